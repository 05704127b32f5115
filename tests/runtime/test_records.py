"""Tests of `edgeformer_runtime.records` against the library's own frozen dataclasses."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any, ClassVar

import pytest

from edgeformer_runtime.records import dataclass


@dataclass(frozen=True)
class Ours:
    """A class as the runtime has them."""

    name: str
    sizes: tuple[int, ...] = ()
    parts: dict[str, int] = dataclasses.field(default_factory=dict, compare=False)
    kind: str = dataclasses.field(default="text", repr=False)
    KNOWN: ClassVar[int] = 3

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("no name")


@dataclasses.dataclass(frozen=True)
class Theirs:
    """The same of the library."""

    name: str
    sizes: tuple[int, ...] = ()
    parts: dict[str, int] = dataclasses.field(default_factory=dict, compare=False)
    kind: str = dataclasses.field(default="text", repr=False)


@dataclass(frozen=True)
class Heir(Ours):
    """Inherits from one."""

    more: int = 0


@dataclasses.dataclass(frozen=True)
class OthersHeir(Ours):
    """Of another author, who has the library's decorator."""

    more: int = 0


@dataclass(frozen=True, kw_only=True)
class Named:
    """Fields by name alone, in any order of defaults."""

    first: int = 1
    second: int


@dataclass(frozen=True, eq=False)
class Same:
    """Equal to itself alone."""

    size: int


def test_it_is_what_the_library_makes() -> None:
    """Fields, their order, defaults, text, equality and hash."""
    ours, theirs = Ours("a", (1,)), Theirs("a", (1,))
    assert repr(ours).replace("Ours", "Theirs") == repr(theirs)
    assert list(vars(ours)) == list(vars(theirs)) and dataclasses.asdict(ours) == dataclasses.asdict(theirs)
    assert hash(ours) == hash(theirs) and ours != theirs and ours == Ours("a", (1,), {"x": 1})
    assert ours != Ours("a", (2,)) and ours.parts is not Ours("a").parts
    assert Ours.__match_args__ == Theirs.__match_args__
    changed = dataclasses.replace(ours, sizes=(3, 4))
    assert (changed.sizes, ours.sizes) == ((3, 4), (1,))
    with pytest.raises(ValueError, match="no name"):
        dataclasses.replace(ours, name="")


@pytest.mark.parametrize("one", [Ours("a"), Heir("a", more=2), OthersHeir("a", more=2), Named(second=2), Same(1)])
def test_it_is_frozen_and_copies(one: Any) -> None:
    """Heirs of both kinds are."""
    field = dataclasses.fields(one)[0].name
    for change in (lambda: setattr(one, field, 1), lambda: delattr(one, field), lambda: setattr(one, "new", 1)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            change()
    for again in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert dataclasses.asdict(again) == dataclasses.asdict(one)
        assert (again == one) == (type(one) is not Same)


@pytest.mark.parametrize(
    ("kind", "values", "named"),
    [
        (Ours, (), {}),
        (Ours, ("a", (), {}, "b", 5), {}),
        (Ours, ("a",), {"name": "b"}),
        (Ours, ("a",), {"colour": 1}),
        (Named, (1,), {"second": 2}),
        (Named, (), {"first": 1}),
    ],
)
def test_wrong_fields_are_refused(kind: Any, values: tuple[Any, ...], named: dict[str, Any]) -> None:
    """As a call with wrong arguments is."""
    with pytest.raises(TypeError, match=kind.__name__):
        kind(*values, **named)
