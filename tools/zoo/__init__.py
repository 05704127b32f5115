"""Trains and makes what the zoo ships."""
