"""Sentence embeddings on the user's device: tokenizers, ONNX Runtime and NumPy, without torch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asterisk.encoder import AsteriskEncoder

__all__ = ["AsteriskEncoder"]


def __getattr__(name: str) -> object:
    """Import the encoder when it is asked for: `make web` runs where Python has no packages."""
    if name != "AsteriskEncoder":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from asterisk.encoder import AsteriskEncoder

    return AsteriskEncoder
