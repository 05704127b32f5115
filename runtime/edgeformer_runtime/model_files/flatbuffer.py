"""FlatBuffers, read strictly and without copies: every offset is checked before it is followed."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime.model_files.refusal import refuse

MAX_TABLES = 1 << 20
"""That are visited in one file: tables may be shared, so a small file could have a reader visit one for ever."""

_UINT32 = struct.Struct("<I")
_INT32 = struct.Struct("<i")
_SCALARS = {code: struct.Struct("<" + code) for code in "?bBhHiIqQfd"}


class FlatBuffer:
    """A flatbuffer that fills a part of a file."""

    def __init__(self, data: memoryview, identifier: bytes, what: str) -> None:
        """data: from the flatbuffer's first byte to its last. `identifier`: what is expected in bytes 4 to 7."""
        self.data = data
        self.what = what
        self._left = MAX_TABLES
        self._vtables: dict[int, tuple[int, tuple[int, ...]]] = {}
        if len(data) < 8 or data[4:8] != identifier:
            found = bytes(data[4:8])
            refuse(f"no {what}: expected {identifier.decode()} in bytes 4 to 7, found {found!r}")

    def root(self) -> Table:
        """The table that the buffer begins with."""
        return self.table(self.follow(0))

    def follow(self, at: int) -> int:
        """Where the offset at a place leads to."""
        if not 0 <= at <= len(self.data) - 4:
            refuse(f"an offset of the {self.what} lies outside")
        target: int = at + _UINT32.unpack_from(self.data, at)[0]
        if target > len(self.data) - 4:
            refuse(f"an offset of the {self.what} leads outside")
        return target

    def table(self, at: int) -> Table:
        """The table at a place."""
        self._left -= 1
        if self._left < 0:
            refuse(f"the {self.what} has more than {MAX_TABLES} tables")
        vtable = at - _INT32.unpack_from(self.data, at)[0]
        size, fields = self._vtables.get(vtable) or self._read_vtable(vtable)
        if size > len(self.data) - at:
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
        kind = _SCALARS[code]
        at = self._place(field, kind.size)
        return default if at is None else kind.unpack_from(self._buffer.data, at)[0]

    def table(self, field: int) -> Table | None:
        """Another table."""
        at = self._place(field, 4)
        return None if at is None else self._buffer.table(self._buffer.follow(at))

    def text(self, field: int) -> str | None:
        """A string."""
        found = self.bytes(field)
        try:
            return None if found is None else str(found, "utf-8")
        except UnicodeDecodeError:
            refuse(f"the {self._buffer.what} has a text that is no UTF-8")

    def bytes(self, field: int) -> memoryview | None:
        """A vector of bytes."""
        at, count = self._vector(field, 1)
        return None if at is None else self._buffer.data[at : at + count]

    def offset(self, field: int) -> int | None:
        """Where a vector of bytes begins in the buffer."""
        return self._vector(field, 1)[0]

    def numbers(self, field: int, dtype: str) -> NDArray[Any]:
        """A vector of numbers, empty where it is absent."""
        kind = np.dtype(dtype)
        at, count = self._vector(field, kind.itemsize)
        return np.zeros(0, kind) if at is None else np.frombuffer(self._buffer.data, kind, count, at)

    def tables(self, field: int) -> Iterator[Table]:
        """A vector of tables."""
        at, count = self._vector(field, 4)
        for index in range(count):
            assert at is not None
            yield self._buffer.table(self._buffer.follow(at + 4 * index))

    def _vector(self, field: int, item: int) -> tuple[int | None, int]:
        place = self._place(field, 4)
        if place is None:
            return None, 0
        at = self._buffer.follow(place)
        count: int = _UINT32.unpack_from(self._buffer.data, at)[0]
        if count * item > len(self._buffer.data) - at - 4:
            refuse(f"a list of the {self._buffer.what} leads outside")
        return at + 4, count

    def _place(self, field: int, size: int) -> int | None:
        if field >= len(self._fields) or not self._fields[field]:
            return None
        offset = self._fields[field]
        if offset < 4 or offset + size > self._size:
            refuse(f"a field of the {self._buffer.what} lies outside its table")
        return self._at + offset
