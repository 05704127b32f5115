"""A table of things by name: our own from literal names, others' from the entry points of installed packages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, TypeVar, cast

from edgeformer_runtime.errors import InputError

Thing = TypeVar("Thing")


class Registry(Mapping[str, Thing]):
    """Names to what "module:attribute" names, imported when it is looked up: to look for a name imports nothing.

    A package of another author adds its own by an entry point of the registry's group:

        [project.entry-points."edgeformer.targets"]
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


# Entries of literal tables: "module:attribute", imported when they are asked for.


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
