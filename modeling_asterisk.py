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
from transformers.utils import ModelOutput, can_return_tuple

try:  # remote code is loaded as a package, the installed modules are not
    from .configuration_asterisk import AsteriskConfig
except ImportError:
    from configuration_asterisk import AsteriskConfig


@dataclass
class AsteriskModelOutput(ModelOutput):
    """Output of `AsteriskModel`.

    Attributes:
        last_hidden_state: Projected token vectors, `[batch, sequence, projection_dim]`.
        sentence_embedding: L2-normalised mean of the real tokens' vectors, `[batch, projection_dim]`;
            zeros for a row whose mask is all zero.
    """

    last_hidden_state: Tensor | None = None
    sentence_embedding: Tensor | None = None


class AsteriskLayer(GradientCheckpointingLayer):
    """Pre-norm transformer layer: attention, then a GELU feed-forward network, each added to its input."""

    def __init__(self, config: AsteriskConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.head_size = size // config.num_attention_heads
        self.attention_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.query = nn.Linear(size, size)
        self.key = nn.Linear(size, size)
        self.value = nn.Linear(size, size)
        self.attention_output = nn.Linear(size, size)
        self.feed_forward_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.intermediate = nn.Linear(size, config.intermediate_size)
        self.feed_forward_output = nn.Linear(config.intermediate_size, size)

    def forward(self, hidden_states: Tensor, attention_bias: Tensor) -> Tensor:
        """Transform `[batch, sequence, hidden_size]`; `attention_bias` is `[batch, 1, 1, sequence]`."""
        normed = self.attention_norm(hidden_states)
        query, key, value = (
            project(normed).unflatten(-1, (-1, self.head_size)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        context = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=attention_bias)
        hidden_states = hidden_states + self.attention_output(context.transpose(1, 2).flatten(-2))
        inner = nn.functional.gelu(self.intermediate(self.feed_forward_norm(hidden_states)))
        return hidden_states + self.feed_forward_output(inner)


class AsteriskModel(PreTrainedModel):
    """Bidirectional transformer encoder that maps a text's tokens to one L2-normalised vector."""

    config_class = AsteriskConfig
    base_model_prefix = "asterisk"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["AsteriskLayer"]  # noqa: RUF012

    def __init__(self, config: AsteriskConfig) -> None:
        super().__init__(config)
        size = config.hidden_size
        table_width = config.embedding_size or size
        self.token_embeddings = nn.Embedding(config.vocab_size, table_width, padding_idx=config.pad_token_id)
        self.embedding_projection = (
            nn.Linear(table_width, size, bias=False) if config.embedding_size else nn.Identity()
        )
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, size)
        self.layers = nn.ModuleList(AsteriskLayer(config) for _ in range(config.num_hidden_layers))
        self.projection = nn.Linear(size, config.projection_dim)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the token table."""
        return self.token_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:  # type: ignore[override]
        """Replace the token table."""
        self.token_embeddings = value

    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        # Near zero, so that training starts from the mean of the token vectors: from a static-embedding
        # model that already knows the teacher's words, not from noise.
        residual_std = std / 100
        if isinstance(module, nn.Linear):
            # Token vectors, and what they are mapped to, have unit variance: beside smaller ones the first updates
            # of layers and positions would drown what tells one text from another.
            is_token_map = module is getattr(self, "embedding_projection", None)
            nn.init.normal_(module.weight, std=module.in_features**-0.5 if is_token_map else std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=residual_std if module is self.position_embeddings else 1.0)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, AsteriskLayer):
            nn.init.normal_(module.attention_output.weight, std=residual_std)
            nn.init.normal_(module.feed_forward_output.weight, std=residual_std)

    @can_return_tuple
    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> AsteriskModelOutput:
        """Embed a batch of token sequences.

        Args:
            input_ids: Token ids, `[batch, sequence]`.
            attention_mask: 1 for real tokens and 0 for padding, `[batch, sequence]`; all ones if None.
            kwargs: Arguments that only other encoders know, such as `token_type_ids`, are ignored.

        Raises:
            ValueError: If the sequence is longer than `max_position_embeddings`.
        """
        limit = self.config.max_position_embeddings
        if input_ids.shape[1] > limit:
            raise ValueError(
                f"the sequence has {input_ids.shape[1]} tokens, the model takes at most {limit}: truncate it"
            )
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        # Counted over real tokens, positions do not depend on the side that padding is on.
        position_ids = (attention_mask.long().cumsum(1) - 1).clamp(min=0)
        hidden_states = self.embedding_projection(self.token_embeddings(input_ids))
        hidden_states = hidden_states + self.position_embeddings(position_ids)
        # A large finite bias, not -inf: a row without real tokens must not turn into NaN.
        mask = attention_mask.to(hidden_states.dtype)
        attention_bias = (1.0 - mask[:, None, None, :]) * torch.finfo(hidden_states.dtype).min
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_bias)
        last_hidden_state = self.projection(hidden_states)
        total = (last_hidden_state * mask[:, :, None]).sum(1)
        # The mean's divisor is immaterial: the vector is normalised to length one.
        return AsteriskModelOutput(
            last_hidden_state=last_hidden_state,
            sentence_embedding=nn.functional.normalize(total, dim=-1),
        )


AutoConfig.register("asterisk", AsteriskConfig, exist_ok=True)
AutoModel.register(AsteriskConfig, AsteriskModel, exist_ok=True)
AsteriskModel.register_for_auto_class("AutoModel")
