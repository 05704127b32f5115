"""FlatBuffers and Protocol Buffers, read strictly and without copies: every offset is checked before it is followed."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from edgeformer_runtime.model_files import Broken, refuse

MAX_STEPS = 2_000_000
"""What is looked at in one file: its tables, and the numbers and letters of its lists, each as often as something
refers to it. All of them may be shared, so a small file could have a reader look at one for ever."""

_UINT32 = struct.Struct("<I")
_INT32 = struct.Struct("<i")
_SCALARS = {code: struct.Struct("<" + code) for code in "?bBhHiIqQfd"}


class Steps:
    """How much of a file may still be looked at, in all of its flatbuffers."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_STEPS

    def spend(self, count: int) -> None:
        """Count what is looked at."""
        self.left -= count
        if self.left < 0:
            refuse(f"it has more than {MAX_STEPS} tables, numbers and letters")


class FlatBuffer:
    """A flatbuffer that fills a part of a file."""

    def __init__(self, data: memoryview, identifier: bytes, what: str, steps: Steps) -> None:
        """data: from the flatbuffer's first byte to its last. `identifier`: what is expected in bytes 4 to 7."""
        self.data = data
        self._end = len(data)
        self.what = what
        self.steps = steps
        self._vtables: dict[int, tuple[int, tuple[int, ...]]] = {}
        if len(data) < 8 or data[4:8] != identifier:
            found = bytes(data[4:8])
            refuse(f"no {what}: expected {identifier.decode()} in bytes 4 to 7, found {found!r}")

    def root(self) -> Table:
        """The table that the buffer starts with."""
        return self.table(self.follow(0))

    def follow(self, at: int) -> int:
        """Where the offset at a place leads to."""
        if not 0 <= at <= self._end - 4:
            refuse(f"an offset of the {self.what} lies outside")
        target: int = at + _UINT32.unpack_from(self.data, at)[0]
        if target > self._end - 4:
            refuse(f"an offset of the {self.what} leads outside")
        return target

    def table(self, at: int) -> Table:
        """The table at a place."""
        self.steps.left -= 1
        if self.steps.left < 0:
            self.steps.spend(0)
        vtable: int = at - _INT32.unpack_from(self.data, at)[0]
        size, fields = self._vtables.get(vtable) or self._read_vtable(vtable)
        if at + size > self._end:
            refuse(f"a table of the {self.what} leads outside")
        return Table(self, at, size, fields)

    def _read_vtable(self, at: int) -> tuple[int, tuple[int, ...]]:
        if not 0 <= at <= len(self.data) - 4:
            refuse(f"a table of the {self.what} has its layout outside")
        length, size = struct.unpack_from("<HH", self.data, at)
        if length < 4 or length % 2 or length > len(self.data) - at or size < 4:
            refuse(f"a table of the {self.what} has no layout")
        fields = struct.unpack_from(f"<{length // 2 - 2}H", self.data, at + 4)
        self._vtables[at] = size, fields
        return size, fields


class Table:
    """A table; fields are asked for by their number in the schema."""

    __slots__ = ("_at", "_buffer", "_fields", "_size")

    def __init__(self, buffer: FlatBuffer, at: int, size: int, fields: tuple[int, ...]) -> None:
        self._buffer, self._at, self._size, self._fields = buffer, at, size, fields

    @property
    def at(self) -> int:
        """Where it lies: tables may be shared."""
        return self._at

    def has(self, field: int) -> bool:
        """Whether the field is there."""
        return field < len(self._fields) and self._fields[field] != 0

    def scalar(self, field: int, code: str, default: Any = 0) -> Any:
        """A number, by its code in Python's `struct`."""
        if field >= len(self._fields) or not self._fields[field]:
            return default
        kind = _SCALARS[code]
        return kind.unpack_from(self._buffer.data, self._inline(self._fields[field], kind.size))[0]

    def table(self, field: int) -> Table | None:
        """Another table."""
        at = self.place(field, 4)
        return None if at is None else self._buffer.table(self._buffer.follow(at))

    def text(self, field: int) -> str | None:
        """A string."""
        found = self.bytes(field)
        if found is None:
            return None
        self._buffer.steps.spend(len(found))
        try:
            return str(found, "utf-8")
        except UnicodeDecodeError:
            refuse(f"the {self._buffer.what} has a text that is no UTF-8")

    def bytes(self, field: int) -> memoryview | None:
        """A vector of bytes."""
        at, count = self.vector(field, 1)
        return None if at is None else self._buffer.data[at : at + count]

    def offset(self, field: int) -> int | None:
        """Where a vector of bytes starts in the buffer."""
        return self.vector(field, 1)[0]

    def integers(self, field: int, code: str = "i") -> tuple[int, ...]:
        """A vector of numbers, empty where it is absent, by their code in Python's `struct`."""
        at, count = self.vector(field, _SCALARS[code].size)
        if at is None:
            return ()
        self._buffer.steps.spend(count)
        return struct.unpack_from(f"<{count}{code}", self._buffer.data, at)

    def count(self, field: int, item: int) -> int:
        """How many items of so many bytes each a vector has; 0 where it is absent."""
        return self.vector(field, item)[1]

    def tables(self, field: int) -> Iterator[Table]:
        """A vector of tables."""
        at, count = self.vector(field, 4)
        for index in range(count):
            assert at is not None
            yield self._buffer.table(self._buffer.follow(at + 4 * index))

    def vector(self, field: int, item: int) -> tuple[int | None, int]:
        """Where the first item of a vector lies, None where it is absent, and how many there are of so many bytes."""
        place = self.place(field, 4)
        if place is None:
            return None, 0
        at = self._buffer.follow(place)
        count: int = _UINT32.unpack_from(self._buffer.data, at)[0]
        if count * item > len(self._buffer.data) - at - 4:
            refuse(f"a list of the {self._buffer.what} leads outside")
        return at + 4, count

    def place(self, field: int, size: int) -> int | None:
        """Where a field of so many bytes lies, None where it is absent."""
        if field >= len(self._fields) or not self._fields[field]:
            return None
        return self._inline(self._fields[field], size)

    def _inline(self, offset: int, size: int) -> int:
        if offset < 4 or offset + size > self._size:
            refuse(f"a field of the {self._buffer.what} lies outside its table")
        return self._at + offset


# Protobuf's wire format, read strictly and without copies: only what is asked for is decoded.


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
