"""Configuration of the Asterisk sentence encoder."""

from typing import Any

from transformers import PretrainedConfig


class AsteriskConfig(PretrainedConfig):
    """Configuration of an `AsteriskModel`.

    `hidden_size` is the width of what comes out, as clients read it: of `last_hidden_state`, of every entry of
    `hidden_states` and of the sentence embedding. The layers inside have a width of their own.

    Args:
        vocab_size: Number of tokens.
        hidden_size: Width of the output.
        encoder_hidden_size: Width of the encoder layers.
        num_hidden_layers: Number of encoder layers.
        num_attention_heads: Attention heads in each layer; must divide `encoder_hidden_size`.
        intermediate_size: Width of the feed-forward layers. At 256 the two default layers hold
            2,631,168 parameters.
        embedding_size: Width of the token table. When set, a linear map takes token vectors to
            `encoder_hidden_size`: the table, not the encoder, makes up most of a download. None means
            `encoder_hidden_size`, without the map.
        max_position_embeddings: Longest sequence, in tokens.
        layer_norm_eps: Epsilon of the layer norms.
        initializer_range: Standard deviation of the initial weights.
        pad_token_id: Token that pads the shorter texts of a batch.
        projection_dim: Width of the output in older configurations, whose `hidden_size` is that of the layers.

    Raises:
        ValueError: If `num_attention_heads` does not divide `encoder_hidden_size`.
    """

    model_type = "asterisk"

    def __init__(
        self,
        vocab_size: int = 30522,
        hidden_size: int = 256,
        encoder_hidden_size: int = 512,
        num_hidden_layers: int = 2,
        num_attention_heads: int = 2,
        intermediate_size: int = 256,
        embedding_size: int | None = None,
        max_position_embeddings: int = 512,
        layer_norm_eps: float = 1e-5,
        initializer_range: float = 0.02,
        pad_token_id: int = 0,
        projection_dim: int | None = None,
        **kwargs: Any,
    ) -> None:
        if projection_dim is not None:
            hidden_size, encoder_hidden_size = projection_dim, hidden_size
        if encoder_hidden_size % num_attention_heads:
            raise ValueError(
                f"num_attention_heads ({num_attention_heads}) must divide encoder_hidden_size "
                f"({encoder_hidden_size})"
            )
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.encoder_hidden_size = encoder_hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.embedding_size = embedding_size
        self.max_position_embeddings = max_position_embeddings
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range
        super().__init__(pad_token_id=pad_token_id, **kwargs)


AsteriskConfig.register_for_auto_class()
