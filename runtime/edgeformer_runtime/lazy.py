"""Entries of literal tables: "module:attribute", imported when they are asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def load_attribute(entry: str) -> Any:
    """What a "module:attribute" names."""
    module, _, attribute = entry.partition(":")
    return getattr(import_module(module), attribute)
