"""The version of this package: what a bundle's `requires.runtime` is compared with."""

__version__ = "0.1.0"
