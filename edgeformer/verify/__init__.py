"""Verification of layers: which layer of a model file differs from the source's."""
