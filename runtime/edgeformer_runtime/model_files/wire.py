"""Protobuf's wire format, read strictly and without copies: only what is asked for is decoded."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edgeformer_runtime.model_files.refusal import Broken, refuse

MAX_FIELDS = 1 << 20
"""Of one file. A speech model has some 100,000."""

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10

Fields = Mapping[int, str]
"""What is known of a message: by a field's number its wire type, "int", "bytes", "float", or "ints" (packed or not)."""

_WIRE_TYPES = {
    "int": (VARINT,), "bytes": (BYTES,), "float": (FIXED32,), "ints": (VARINT, BYTES),
    "floats": (FIXED32, BYTES),
}  # fmt: skip


class WireReader:
    """Reads the messages of one file; counts what it has read, so that a small file cannot keep it busy."""

    def __init__(self, strict: bool) -> None:
        """`strict`: a field that is not known is refused, else skipped."""
        self._strict = strict
        self._left = MAX_FIELDS

    def message(self, data: memoryview, known: Fields, what: str) -> dict[int, list[Any]]:
        """The values of each known field, in order: integers as Python's, unsigned; everything else as bytes.

        "ints" are joined to one list of integers, "floats" to one of numbers' bytes.
        """
        # Most of a check's time is spent in here: numbers below 128, as most are, are read without a call.
        found: dict[int, list[Any]] = {}
        at, end = 0, len(data)
        while at < end:
            self.spend(1, what)
            key = data[at]
            at += 1
            if key > 127:
                key, at = self._varint(data, at - 1, what)
            number, kind = key >> 3, key & 7
            value: Any
            if kind in (VARINT, BYTES):
                if at < end and data[at] < 128:
                    value = data[at]
                    at += 1
                else:
                    value, at = self._varint(data, at, what)
                size = value if kind == BYTES else 0
            elif kind in (FIXED32, FIXED64):
                size = 4 if kind == FIXED32 else 8
            else:
                refuse(f"{what} has the wire type {kind}")
            if kind != VARINT:
                if size > end - at:
                    refuse(f"{what} ends inside its field {number}")
                value = data[at : at + size]
                at += size
            if number == 0:
                refuse(f"{what} has a field of number 0")
            expected = known.get(number)
            if expected is None:
                if self._strict:
                    refuse(f"{what} has the field {number}, which no reader takes")
            elif kind not in _WIRE_TYPES[expected]:
                refuse(f"{what}: its field {number} has the wire type {kind}")
            elif expected == "ints" and kind == BYTES:
                found.setdefault(number, []).extend(self.varints(value, what))
            elif number in found:
                found[number].append(value)
            else:
                found[number] = [value]
        return found

    def varints(self, data: memoryview, what: str) -> Iterator[int]:
        """Packed integers."""
        at = 0
        while at < len(data):
            value, at = self._varint(data, at, what)
            self.spend(1, what)
            yield value

    def spend(self, count: int, what: str) -> None:
        """Count what is read."""
        self._left -= count
        if self._left < 0:
            refuse(f"{what}: the file has more than {MAX_FIELDS} fields")

    def _varint(self, data: memoryview, at: int, what: str) -> tuple[int, int]:
        value = shift = 0
        end = min(len(data), at + _MAX_VARINT_BYTES)
        while at < end:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value & (1 << 64) - 1, at
            shift += 7
        raise Broken(f"{what} ends inside an integer")


def count_varints(data: memoryview) -> int:
    """How many packed integers there are, without decoding them."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) < 128))


def signed(value: int) -> int:
    """An int32 or int64 of the format, which its 64 bits spell."""
    return value - (1 << 64) if value >> 63 else value


def text(data: memoryview, what: str) -> str:
    """A string field."""
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        refuse(f"{what} has a text that is no UTF-8")


def number(data: memoryview) -> float:
    """A float field."""
    return float(struct.unpack("<f", data)[0])


def one(message: Mapping[int, list[Any]], field: int, default: Any = None) -> Any:
    """A field that occurs at most once; protobuf's readers take the last, so a second one is refused."""
    found = message.get(field, ())
    if len(found) > 1:
        refuse(f"a message has its field {field} {len(found)} times")
    return found[0] if found else default
