"""The errors that users meet. Each message is one line: what was expected, what was found, what to do."""

from __future__ import annotations


class EdgeFormerError(Exception):
    """Base of every error that is the input's or the environment's fault; commands print it and exit with 2."""


class BundleError(EdgeFormerError):
    """A bundle that does not follow BUNDLE.md: corrupted, foreign, or made by a newer version."""


class InputError(EdgeFormerError):
    """An input (text, image, audio, argument, checkpoint) that cannot be used."""


class EngineError(EdgeFormerError):
    """An engine that is missing, too old, or cannot run on this platform."""
