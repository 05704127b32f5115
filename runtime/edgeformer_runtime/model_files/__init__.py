"""Looks at model files before an engine opens them: a literal table from a target to its formats rules."""
