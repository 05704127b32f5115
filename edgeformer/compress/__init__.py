"""Compression: recipes of steps that make a checkpoint smaller, and the checkpoint that results in the same format."""

from edgeformer import make_callable

make_callable(__name__)
