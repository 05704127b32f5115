"""`dataclass(frozen=True)` for classes that cost next to nothing to define.

The library's own compiles six methods for each class, in .35 ms of CPU. Of the forty classes on the way to a text's
first answer that is an eighth of all its CPU time. Here the methods are written once and read the fields of the class
that they are called on; an object takes .7 us longer to make. `fields`, `replace`, `asdict`, type checkers and
classes that inherit see a frozen dataclass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

Class = TypeVar("Class", bound=type[Any])

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass  # checkers know this one
else:

    def dataclass(*, frozen: bool, eq: bool = True, kw_only: bool = False) -> Callable[[Class], Class]:
        """A decorator as the library's, with these options alone; classes are frozen, and fields are all given."""
        assert frozen
        return lambda made: _frozen(made, eq, kw_only)


def _frozen(made: Class, eq: bool, kw_only: bool) -> Class:
    # Who inherits from a frozen class must be one for the library, which compiles two methods for that.
    heir = any(dataclasses.is_dataclass(base) for base in made.__bases__)
    dataclasses.dataclass(init=False, repr=False, eq=False, frozen=heir, kw_only=kw_only)(made)
    made.__dataclass_params__.frozen = True
    for name, method in _METHODS.items():
        if name not in vars(made) and (eq or method not in (_eq, _hash)):
            setattr(made, name, method)
    return made


def _init(self: Any, /, *values: Any, **named: Any) -> None:
    kind: Any = self.__class__
    defaults, order, required, made, check = _layout(kind)
    given = {**defaults, **dict(zip(order, values, strict=False)), **named}  # in the order of the fields
    if len(values) > len(order) or len(given) > len(defaults) or not named.keys().isdisjoint(order[: len(values)]):
        raise TypeError(f"{kind.__name__} takes each of {', '.join(defaults)} once, found {len(values)} and {named}")
    for name in required:
        if given[name] is dataclasses.MISSING:
            raise TypeError(f"{kind.__name__}: the field {name} is missing")
    for name, make in made:
        if given[name] is dataclasses.MISSING:
            given[name] = make()
    vars(self).update(given)
    if check is not None:
        check(self)


@recursive_repr()
def _repr(self: Any) -> str:
    shown = ", ".join(f"{field.name}={getattr(self, field.name)!r}" for field in _fields(self.__class__) if field.repr)
    return f"{type(self).__qualname__}({shown})"


def _eq(self: Any, other: object) -> bool:
    return _compared(self) == _compared(other) if type(self) is type(other) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_compared(self))


def _setattr(_: Any, name: str, value: object) -> NoReturn:  # noqa: ARG001
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(_: Any, name: str) -> NoReturn:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


_METHODS: dict[str, Callable[..., Any]] = {
    "__init__": _init,
    "__repr__": _repr,
    "__eq__": _eq,
    "__hash__": _hash,
    "__setattr__": _setattr,
    "__delattr__": _delattr,
}


@cache
def _layout(kind: Any) -> tuple[dict[str, Any], tuple[str, ...], tuple[str, ...], tuple[tuple[str, Any], ...], Any]:
    """Defaults by name, names by place, those without a default, those whose default is made, and what looks at all."""
    fields = _fields(kind)
    made = tuple(
        (each.name, each.default_factory) for each in fields if each.default_factory is not dataclasses.MISSING
    )
    bare = [each.name for each in fields if each.default is dataclasses.MISSING]
    required = tuple(name for name in bare if name not in dict(made))
    defaults = {each.name: each.default for each in fields}
    return defaults, kind.__match_args__, required, made, getattr(kind, "__post_init__", None)


@cache
def _fields(kind: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(kind)


def _compared(self: Any) -> tuple[object, ...]:
    return tuple([getattr(self, field.name) for field in _fields(self.__class__) if field.compare])
