"""Conversion: a checkpoint's programs lowered, quantized, checked and written as bundles."""
