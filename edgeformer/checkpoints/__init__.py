"""Checkpoints: a public model's files, read as strictly as they are written."""
