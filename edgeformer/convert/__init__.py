"""Conversion: a checkpoint's programs lowered, quantized, checked and written as bundles."""

from edgeformer import make_callable

make_callable(__name__)
