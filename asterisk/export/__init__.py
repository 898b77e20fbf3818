"""The ONNX files of a trained model, fp32 and INT8, and how they are verified: the extra `export`."""
