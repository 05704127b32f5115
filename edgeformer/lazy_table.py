"""A table of things by name that are imported when they are looked up, so that names can be checked without them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar, cast

from edgeformer_runtime.lazy import load_attribute

Thing = TypeVar("Thing")


class LazyTable(Mapping[str, Thing]):
    """Names to what "module:attribute" names. To list or look for a name imports nothing."""

    def __init__(self, entries: Mapping[str, str]) -> None:
        """`entries`: "module:attribute" by name."""
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> Thing:
        return cast(Thing, load_attribute(self._entries[name]))

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
