"""Converters from programs to each target's files."""
