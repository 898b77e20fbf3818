"""The ONNX files of a trained model, fp32 and INT8, and how they are verified: the extra `export`."""

# sentence-transformers' names for INT8 files: the type of the weights, and the processor by Optimum's name.
PROCESSORS = ("qint8_avx512_vnni", "qint8_arm64", "quint8_avx2")
PROCESSOR_FILES = tuple(f"model_{processor}.onnx" for processor in PROCESSORS)
