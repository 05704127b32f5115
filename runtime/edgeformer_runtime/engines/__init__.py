"""Engines that run a bundle's programs."""
