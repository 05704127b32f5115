"""Tasks: what a model is for, and what surrounds it for that."""
