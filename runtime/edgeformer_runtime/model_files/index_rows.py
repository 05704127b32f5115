"""What the inputs of a program index, and how many rows there are: not every engine looks before it reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Rows = Mapping[str, Mapping[str, int]]
"""By the names of a program and of its input: the input's numbers must be below this."""
Value = TypeVar("Value", bound=Hashable)


@dataclass(frozen=True)
class Contents:
    """What a reader found in one model file.

    Attributes:
        operators: how often each occurs.
        rows: of the inputs that index a table, the rows of the smallest such table.
    """

    operators: Counter[str]
    rows: dict[str, dict[str, int]] = field(default_factory=dict)


class IndexTrace(Generic[Value]):
    """Follows the inputs of a graph, or other values in it, to the tables that they index.

    `Value` is how the format names what flows through a graph. Numbers that are computed are not followed: there the
    engine has to look, and a format whose engine does not has to refuse them.
    """

    def __init__(self, inputs: Iterable[Value]) -> None:
        """`inputs`: the values to follow."""
        self._sources: dict[Value, Value] = {each: each for each in inputs}
        self._rows: dict[Value, int] = {}

    def move(self, value: Value, results: Iterable[Value]) -> None:
        """An operator passes numbers on as they are: in another shape or type, or some of them."""
        if value in self._sources:
            self._sources.update((result, self._sources[value]) for result in results)

    @property
    def followed(self) -> Set[Value]:
        """What has numbers of an input."""
        return self._sources.keys()

    def forget(self, values: Iterable[Value]) -> None:
        """Numbers are computed, or written over."""
        for value in values:
            self._sources.pop(value, None)

    def index(self, indices: Value, rows: int) -> Value | None:
        """An operator takes rows of a table by numbers; returns where these come from, None: they are computed."""
        source = self._sources.get(indices)
        if source is not None:
            self._rows[source] = min(rows, self._rows.get(source, rows))
        return source

    def rows(self, names: Mapping[Value, str]) -> dict[str, int]:
        """What was found, by the inputs' names."""
        return {names[value]: rows for value, rows in self._rows.items() if value in names}
