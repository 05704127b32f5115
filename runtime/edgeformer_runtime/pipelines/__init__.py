"""Pipelines from raw input to a typed result."""
