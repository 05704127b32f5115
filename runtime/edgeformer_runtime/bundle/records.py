"""Frozen dataclasses to plain JSON values and back, for every record of the format by the same rule."""

from __future__ import annotations

import dataclasses
import types
import typing
from functools import cache
from typing import Any, TypeVar, cast

from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import BundleError, InputError

T = TypeVar("T")


def to_data(record: Any) -> Any:
    """A dataclass, or a dict, tuple or plain value of them, as JSON values. Every field is written, None as null."""
    if dataclasses.is_dataclass(record):
        return {field.name: to_data(getattr(record, field.name)) for field in dataclasses.fields(record)}
    if isinstance(record, dict):
        return {key: to_data(value) for key, value in record.items()}
    if isinstance(record, (tuple, list)):
        return [to_data(value) for value in record]
    return record


def from_data(kind: type[T], value: Any, where: str) -> T:
    """The dataclass that `to_data` wrote, from a value that has passed its schema.

    Dataclasses in a union are told apart by their field `kind`.

    Raises:
        BundleError: a number is written as 1.0 where an integer belongs (JSON Schema cannot tell them apart), or
            values contradict each other.
    """
    try:
        return cast(T, _build(kind, value, ""))
    except _WrongType as error:
        raise BundleError(f"{where}: {error}") from None
    except InputError as error:  # a record's own __post_init__, which does not know where its values come from
        raise BundleError(f"{where}: {error}") from None


class _WrongType(Exception):
    """A value of another type than its field, at the path in the message."""


def _build(kind: Any, value: Any, path: str) -> Any:
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    prefix = f"{path}." if path else ""
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _build(_member(arguments, value), value, path)
    if origin is tuple:
        return tuple(_build(arguments[0], item, f"{path}[{index}]") for index, item in enumerate(value))
    if origin is dict:
        return {key: _build(arguments[1], item, prefix + key) for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        hints = _hints(cast(type, kind))
        return cast(Any, kind)(**{key: _build(hints[key], item, prefix + key) for key, item in value.items()})
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise _WrongType(f"{path}: expected {kind.__name__}, found {shorten(value)}")
    return value


@cache
def _hints(record: type) -> dict[str, Any]:
    return typing.get_type_hints(record)


def _member(members: tuple[Any, ...], value: Any) -> Any:
    """The member of a union that a value belongs to."""
    real = [member for member in members if member is not type(None)]
    if len(real) == 1:
        return real[0]
    return next(member for member in real if _kind_of(member) == value["kind"])


def _kind_of(record: Any) -> Any:
    return next(field.default for field in dataclasses.fields(record) if field.name == "kind")
