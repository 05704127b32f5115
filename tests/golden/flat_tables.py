"""Writes flatbuffers without a schema's compiler: a table is given by its fields' numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np


@dataclass(frozen=True)
class Number:
    """A number, of the type with that name in numpy."""

    value: int
    dtype: str = "int32"


def u8(value: int) -> Number:
    """A byte."""
    return Number(value, "uint8")


def u32(value: int) -> Number:
    """An unsigned number of four bytes."""
    return Number(value, "uint32")


def u64(value: int) -> Number:
    """An unsigned number of eight bytes."""
    return Number(value, "uint64")


@dataclass(frozen=True)
class Numbers:
    """An array of numbers."""

    values: Sequence[int]
    dtype: str = "int32"


@dataclass(frozen=True)
class Shared:
    """So many references of an array to one table."""

    table: Mapping[int, Any]
    count: int


Field = Number | Numbers | str | Mapping[int, Any] | list[Mapping[int, Any] | Shared]
"""A number, an array, a text, a table, or an array of tables."""
Table = Mapping[int, Field]

_SLOTS = {
    "int8": "PrependInt8Slot",
    "uint8": "PrependUint8Slot",
    "int16": "PrependInt16Slot",
    "int32": "PrependInt32Slot",
    "uint32": "PrependUint32Slot",
    "int64": "PrependInt64Slot",
    "uint64": "PrependUint64Slot",
}


def flatbuffer(table: Table, identifier: bytes) -> bytes:
    """A buffer whose root is the table."""
    builder = flatbuffers.Builder()
    builder.ForceDefaults(True)
    builder.Finish(_table(builder, table), file_identifier=identifier)
    return bytes(builder.Output())


def _table(builder: Any, table: Table) -> int:
    places = {slot: _place(builder, field) for slot, field in table.items() if not isinstance(field, Number)}
    builder.StartObject(max(table, default=-1) + 1)
    for slot, field in table.items():
        if isinstance(field, Number):
            getattr(builder, _SLOTS[field.dtype])(slot, field.value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, places[slot], 0)
    return int(builder.EndObject())


def _place(builder: Any, field: Field) -> int:
    if isinstance(field, str):
        return int(builder.CreateString(field))
    if isinstance(field, Numbers):
        return int(builder.CreateNumpyVector(np.array(field.values, field.dtype)))
    if isinstance(field, Mapping):
        return _table(builder, field)
    assert isinstance(field, list)
    places: list[int] = []
    for each in field:
        shared = each if isinstance(each, Shared) else Shared(each, 1)
        places += [_table(builder, shared.table)] * shared.count
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return int(builder.EndVector())
