"""TOML tables to frozen dataclasses, strictly: every mistake is one line that names the key and what was expected."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.registry import did_you_mean

T = TypeVar("T")

MAX_NUMBER = 1 << 53
"""What a float holds exactly."""


def read_table(kind: type[T], table: Mapping[str, Any], where: str) -> T:
    """A dataclass from the table of its fields.

    Fields are bool, int, float (an integer will do), str, dict, another dataclass, a tuple of one of them from an
    array, or a union of them and None. A field without a key keeps its default.

    Args:
        kind: the dataclass.
        table: as tomllib reads it.
        where: what the table is, for messages: "recipe zoo.toml, step 2 (prune)".

    Raises:
        InputError: an unknown key, a missing one, a value of another type, or one that the dataclass refuses.
    """
    known = {field.name: field for field in dataclasses.fields(cast(Any, kind)) if field.init}
    for key in table:
        if key not in known:
            guess = did_you_mean(key, known)
            raise InputError(f"{where}: unknown key {shorten(key)}: {guess}expected any of {', '.join(known)}")
    for name, field in known.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in table:
            raise InputError(f"{where}: {name} is missing")
    hints = typing.get_type_hints(kind)
    values = {key: _read(hints[key], value, f"{where}: {key}") for key, value in table.items()}
    try:
        return kind(**values)
    except InputError as error:  # a dataclass's own __post_init__, which does not know where its values come from
        raise InputError(f"{where}: {error}") from None


def _read(kind: Any, value: Any, where: str) -> Any:
    if isinstance(value, int | float) and not abs(value) <= MAX_NUMBER:
        raise InputError(f"{where} must be a number of at most {MAX_NUMBER}, found {shorten(value)}")
    members = typing.get_args(kind) if typing.get_origin(kind) in (types.UnionType, typing.Union) else (kind,)
    for member in members:
        if _fits(member, value):
            return _convert(member, value, where)
    raise InputError(f"{where} must be {' or '.join(_name(member) for member in members)}, found {shorten(value)}")


def _fits(kind: Any, value: Any) -> bool:
    """Whether a value has a type's outer shape; what is inside is told by `_convert`."""
    if dataclasses.is_dataclass(kind) or typing.get_origin(kind) is dict:
        return isinstance(value, dict)
    if typing.get_origin(kind) is tuple:
        return isinstance(value, list)
    if kind is float:
        return type(value) in (int, float)
    return type(value) is kind


def _convert(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return read_table(cast(type[Any], kind), value, where)
    if typing.get_origin(kind) is tuple:
        first, *others = typing.get_args(kind)
        kinds = [first] * len(value) if others == [...] else [first, *others]
        if len(kinds) != len(value):
            raise InputError(f"{where} must be {len(kinds)} values, found {len(value)}")
        pairs = enumerate(zip(kinds, value, strict=True))
        return tuple(_read(each, item, f"{where}[{number}]") for number, (each, item) in pairs)
    return float(value) if kind is float else value


def _name(kind: Any) -> str:
    """What TOML calls a type."""
    if dataclasses.is_dataclass(kind) or typing.get_origin(kind) is dict:
        return "a table"
    if typing.get_origin(kind) is tuple:
        return "an array"
    return {bool: "true or false", int: "an integer", float: "a number", str: "a text"}.get(kind, "absent")
