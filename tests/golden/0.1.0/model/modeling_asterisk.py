"""The Asterisk sentence encoder: token and position vectors, pre-norm attention layers, a projection, a mean.

The projection is applied to every token before the mean over tokens. The two commute, so
`last_hidden_state`, averaged over the real tokens and L2-normalised, is the sentence embedding in any
loader that knows nothing of Asterisk.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import ModelOutput, can_return_tuple

try:  # remote code is loaded as a package, the installed modules are not
    from .configuration_asterisk import AsteriskConfig
except ImportError:
    from configuration_asterisk import AsteriskConfig


@dataclass
class AsteriskModelOutput(ModelOutput):
    """Output of `AsteriskModel`.

    Attributes:
        last_hidden_state: Projected token vectors, `[batch, sequence, hidden_size]`.
        sentence_embedding: L2-normalised mean of the real tokens' vectors, `[batch, hidden_size]`;
            zeros for a row whose mask is all zero.
        hidden_states: If asked for, the projected token vectors before the first layer and after each,
            `[batch, sequence, hidden_size]`; the last is `last_hidden_state`.
        attentions: If asked for, the attention weights of each layer, `[batch, heads, sequence, sequence]`.
    """

    last_hidden_state: Tensor | None = None
    sentence_embedding: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


def eager_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **_: Any
) -> tuple[Tensor, Tensor]:
    """Attend in plain operations: context `[batch, sequence, heads, head_size]`, weights `[batch, heads, ...]`."""
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).transpose(1, 2), weights


def sdpa_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **_: Any
) -> tuple[Tensor, None]:
    """Attend by PyTorch's function; unlike transformers' own call of it, traced for sequences of any length."""
    context = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
    return context.transpose(1, 2), None


class AsteriskLayer(GradientCheckpointingLayer):
    """Pre-norm transformer layer: attention, then a GELU feed-forward network, each added to its input."""

    is_causal = False

    def __init__(self, config: AsteriskConfig) -> None:
        super().__init__()
        self.config = config
        size = config.encoder_hidden_size
        self.head_size = size // config.num_attention_heads
        self.attention_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.query = nn.Linear(size, size)
        self.key = nn.Linear(size, size)
        self.value = nn.Linear(size, size)
        self.attention_output = nn.Linear(size, size)
        self.feed_forward_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.intermediate = nn.Linear(size, config.intermediate_size)
        self.feed_forward_output = nn.Linear(config.intermediate_size, size)
        # Near zero at first, so that training starts from the mean of the token vectors: from a static-embedding
        # model that already knows the teacher's words, not from noise.
        self.attention_output.initial_std = self.feed_forward_output.initial_std = config.initializer_range / 100

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None, implementation: str
    ) -> tuple[Tensor, Tensor | None]:
        """Transform `[batch, sequence, encoder_hidden_size]`; return it with the weights if attention is eager."""
        normed = self.attention_norm(hidden_states)
        heads = (self.config.num_attention_heads, self.head_size)
        query, key, value = (
            project(normed).unflatten(-1, heads).transpose(1, 2) for project in (self.query, self.key, self.value)
        )
        own: dict[str, Any] = {"eager": eager_attention, "sdpa": sdpa_attention}
        attend = own.get(implementation) or ALL_ATTENTION_FUNCTIONS[implementation]
        context, weights = attend(self, query, key, value, attention_mask, scaling=self.head_size**-0.5)
        hidden_states = hidden_states + self.attention_output(context.reshape(hidden_states.shape))
        inner = nn.functional.gelu(self.intermediate(self.feed_forward_norm(hidden_states)))
        return hidden_states + self.feed_forward_output(inner), weights


class AsteriskModel(PreTrainedModel):
    """Bidirectional transformer encoder that maps a text's tokens to one L2-normalised vector."""

    config_class = AsteriskConfig
    base_model_prefix = "asterisk"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["AsteriskLayer"]  # noqa: RUF012

    def __init__(self, config: AsteriskConfig) -> None:
        super().__init__(config)
        size = config.encoder_hidden_size
        table_width = config.embedding_size or size
        self.token_embeddings = nn.Embedding(config.vocab_size, table_width, padding_idx=config.pad_token_id)
        self.embedding_projection = (
            nn.Linear(table_width, size, bias=False) if config.embedding_size else nn.Identity()
        )
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, size)
        self.layers = nn.ModuleList(AsteriskLayer(config) for _ in range(config.num_hidden_layers))
        self.projection = nn.Linear(size, config.hidden_size)
        # Token vectors, and what they are mapped to, have unit variance: beside smaller ones the first updates
        # of layers and positions would drown what tells one text from another.
        self.token_embeddings.initial_std = 1.0  # type: ignore[assignment]
        self.embedding_projection.initial_std = table_width**-0.5
        self.position_embeddings.initial_std = config.initializer_range / 100
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the token table."""
        return self.token_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:  # type: ignore[override]
        """Replace the token table."""
        self.token_embeddings = value

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=getattr(module, "initial_std", self.config.initializer_range))
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
        if isinstance(module, nn.Linear | nn.LayerNorm) and module.bias is not None:
            nn.init.zeros_(module.bias)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> AsteriskModelOutput:
        """Embed a batch of token sequences.

        Args:
            input_ids: Token ids, `[batch, sequence]`.
            attention_mask: 1 for real tokens and 0 for padding, `[batch, sequence]`; all ones if None.
            token_type_ids: Accepted, because tokenizers give it; there are no token types.
            position_ids: Places of the tokens, `[batch, sequence]`; if None, counted over the real tokens.
            inputs_embeds: Vectors of the token table in place of `input_ids`, `[batch, sequence, table width]`.
            output_attentions: Whether to return the attention weights; attention is then eager.
            output_hidden_states: Whether to return the projected token vectors of every layer.

        Raises:
            ValueError: If not exactly one of `input_ids` and `inputs_embeds` is given, if the sequence is longer
                than `max_position_embeddings`, or if the mask is not `[batch, sequence]`.
        """
        config = self.config
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.token_embeddings(input_ids)
        shape = inputs_embeds.shape[:2]
        if shape[1] > config.max_position_embeddings:
            raise ValueError(
                f"the sequence has {shape[1]} tokens, the model takes at most {config.max_position_embeddings}: "
                "truncate it"
            )
        if output_attentions is None:
            output_attentions = config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = config.output_hidden_states
        if attention_mask is None:
            attention_mask = torch.ones(shape, dtype=torch.long, device=inputs_embeds.device)
        elif attention_mask.ndim != 2:
            raise ValueError(f"attention_mask has {attention_mask.ndim} dimensions: it must be [batch, sequence]")
        if (
            position_ids is None
        ):  # counted over real tokens, positions do not depend on the side that padding is on
            position_ids = (attention_mask.long().cumsum(1) - 1).clamp(min=0)
        hidden_states = self.embedding_projection(inputs_embeds) + self.position_embeddings(position_ids)
        mask = attention_mask.to(hidden_states.dtype)
        implementation = "eager" if output_attentions else config._attn_implementation
        if implementation == "flash_attention_2":
            layer_mask = attention_mask
        else:
            # A large finite bias: a row without real tokens must not turn into NaN. Half of the smallest number,
            # for the sum with a score must be finite in float16, too.
            layer_mask = (1.0 - mask[:, None, None, :]) * (torch.finfo(mask.dtype).min / 2)
        states, attentions = [hidden_states], []
        for layer in self.layers:
            hidden_states, weights = layer(hidden_states, layer_mask, implementation)
            states.append(hidden_states)
            attentions.append(weights)
        last_hidden_state = self.projection(hidden_states)
        # In float32: the sum over a long text may be beyond float16. The mean's divisor is immaterial, for the
        # vector is normalised to length one.
        total = (last_hidden_state.float() * mask[:, :, None].float()).sum(1)
        return AsteriskModelOutput(
            last_hidden_state=last_hidden_state,
            sentence_embedding=nn.functional.normalize(total, dim=-1).to(last_hidden_state.dtype),
            hidden_states=(*map(self.projection, states[:-1]), last_hidden_state)
            if output_hidden_states
            else None,
            attentions=tuple(attentions) if output_attentions else None,
        )


AutoConfig.register("asterisk", AsteriskConfig, exist_ok=True)
AutoModel.register(AsteriskConfig, AsteriskModel, exist_ok=True)
AsteriskModel.register_for_auto_class("AutoModel")
