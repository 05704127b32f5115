"""Entries of literal tables: "module:attribute", imported when they are asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from edgeformer_runtime.errors import InputError


def load_attribute(entry: str) -> Any:
    """What a "module:attribute" names."""
    module, _, attribute = entry.partition(":")
    return getattr(import_module(module), attribute)


def load_optional(entry: str, what: str, extra: str) -> Any:
    """What a "module:attribute" of an extra's package names.

    Args:
        entry: as above.
        what: needs it, for the message.
        extra: the runtime's extra that brings it.

    Raises:
        InputError: it is not installed.
    """
    try:
        return load_attribute(entry)
    except ImportError as error:
        raise InputError(needs(what, error, extra)) from error


def needs(what: str, error: ImportError, extra: str) -> str:
    """One line that says which package is missing and what brings it."""
    return f"{what} needs the package {error.name}: pip install 'edgeformer-runtime[{extra}]'"
