"""Verification of layers: which layer of a model file differs from the source's."""

from edgeformer import make_callable

make_callable(__name__)
