"""ONNX: the converter, its quantizer, and how its files are examined."""
