"""Sentence embeddings on the user's device: tokenizers, ONNX Runtime and NumPy, without torch."""
