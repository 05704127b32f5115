"""Core ML: the converter, its compressed weights, and how its files are examined."""
