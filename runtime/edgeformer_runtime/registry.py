"""A table of things by name: our own from literal names, others' from the entry points of installed packages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import TypeVar, cast

from edgeformer_runtime.lazy import load_attribute

Thing = TypeVar("Thing")


class Registry(Mapping[str, Thing]):
    """Names to what "module:attribute" names, imported when it is looked up: to look for a name imports nothing.

    A package of another author adds its own by an entry point of the registry's group:

        [project.entry-points."edgeformer.convert.target"]
        web = "my_package.web_target:TARGET"

    Our own names come first, and nobody else's replaces one.
    """

    def __init__(self, entries: Mapping[str, str], group: str | None = None) -> None:
        """`entries`: "module:attribute" by name; `group`: of entry points, None: there are no others."""
        self.entries = dict(entries)
        self._group = group

    def __getitem__(self, name: str) -> Thing:
        entry = self.entries.get(name) or self._others().get(name)
        if entry is None:
            raise KeyError(name)
        return cast(Thing, load_attribute(entry))

    def __contains__(self, name: object) -> bool:
        return name in self.entries or name in self._others()

    def __iter__(self) -> Iterator[str]:
        yield from self.entries
        yield from (name for name in self._others() if name not in self.entries)

    def __len__(self) -> int:
        return len({*self.entries, *self._others()})

    def _others(self) -> dict[str, str]:
        return {} if self._group is None else {each.name: each.value for each in entry_points(group=self._group)}
