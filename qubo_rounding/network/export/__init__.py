"""Quantized networks as files: integers with their scales, and ONNX."""
