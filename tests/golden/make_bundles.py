"""Writes the small bundles of tiny_bundles.py as zips."""

from __future__ import annotations

from tests.golden.tiny_bundles import BUNDLES, zipped


def files() -> dict[str, bytes]:
    """The golden files by name."""
    return {name: zipped(make) for name, make in BUNDLES.items()}
