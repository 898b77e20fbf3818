"""Sentence embeddings on the user's device: tokenizers, ONNX Runtime and NumPy, without torch."""

from asterisk.encoder import AsteriskEncoder

__all__ = ["AsteriskEncoder"]
