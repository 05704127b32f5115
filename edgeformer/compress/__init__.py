"""Compression: recipes of steps that make a checkpoint smaller, and the checkpoint that results in the same format."""
