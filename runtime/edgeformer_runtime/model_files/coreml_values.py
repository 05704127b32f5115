"""Types and constants of MIL, the program inside a Core ML package, and the file of weights beside it."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

from edgeformer_runtime.model_files.refusal import Shape, check_range, check_shape, refuse, shown
from edgeformer_runtime.model_files.wire import Fields, WireReader, count_varints, one, signed, text

VALUE_TYPE: Fields = {1: "bytes", 2: "bytes", 3: "bytes", 4: "bytes", 5: "bytes"}
TENSOR, LIST, STATE = 1, 2, 5
TENSOR_TYPE: Fields = {1: "int", 2: "int", 3: "bytes", 4: "bytes"}
DIMENSION: Fields = {1: "bytes", 2: "bytes"}
CONSTANT_SIZE: Fields = {1: "int"}
LIST_TYPE: Fields = {1: "bytes", 2: "bytes"}
VALUE: Fields = {1: "bytes", 2: "bytes", 3: "bytes", 5: "bytes"}
IMMEDIATE: Fields = {1: "bytes", 2: "bytes", 3: "bytes", 4: "bytes"}
TENSOR_VALUE: Fields = dict.fromkeys(range(1, 8), "bytes")
LIST_VALUE: Fields = {1: "bytes"}
BLOB: Fields = {1: "bytes", 2: "int"}
STRING = 2
# DataType: numpy's name where a program's input or output may have it, the size in bits, and the file's own number.
TYPES: dict[int, tuple[str, int, int]] = {
    1: ("bool", 8, 0), 10: ("float16", 16, 1), 11: ("float32", 32, 2), 12: ("float64", 64, 0), 13: ("", 16, 5),
    21: ("int8", 8, 4), 22: ("int16", 16, 6), 23: ("int32", 32, 14), 24: ("int64", 64, 0), 25: ("", 4, 8),
    31: ("uint8", 8, 3), 32: ("uint16", 16, 7), 33: ("uint32", 32, 15), 34: ("uint64", 64, 0), 35: ("", 4, 11),
    36: ("", 2, 10), 37: ("", 1, 9), 38: ("", 6, 13), 39: ("", 3, 12),
}  # fmt: skip
# Sentinel, data type, size and offset of the data, which begins a weight's 64 bytes of metadata.
_METADATA = struct.Struct("<IIQQ")
_METADATA_BYTES = 64
_SENTINEL = 0xDEADBEEF
WEIGHTS = "@model_path/weights/weight.bin"
_EMPTY = memoryview(b"")


@dataclass(frozen=True)
class Type:
    """A tensor's type. `is_state`: it outlives a call."""

    dtype: int
    shape: Shape
    is_state: bool = False


class ValueReader:
    """Reads types and constants of one package."""

    def __init__(self, weights: memoryview | None) -> None:
        """weights: the file of weights; None: there is none."""
        self.reader = WireReader(strict=False)
        self._weights = weights

    def type(self, data: memoryview, what: str, computed: bool = True) -> Type | None:
        """A tensor's type, or a state's; None: a list, or a text."""
        message = self.reader.message(data, VALUE_TYPE, what)
        if len(message) != 1:
            refuse(f"{what} has {len(message)} types")
        if TENSOR in message:
            return self._tensor_type(one(message, TENSOR), what, computed)
        if STATE in message:
            wrapped = one(self.reader.message(one(message, STATE), {1: "bytes"}, what), 1, _EMPTY)
            inner = self.type(wrapped, what)
            if inner is None or inner.is_state:
                refuse(f"{what} is a state of no tensor")
            return Type(inner.dtype, inner.shape, is_state=True)
        if LIST not in message:
            refuse(f"{what} is a tuple or a dictionary")
        return None

    def _tensor_type(self, data: memoryview, what: str, computed: bool) -> Type | None:
        message = self.reader.message(data, TENSOR_TYPE, what)
        dtype, rank = one(message, 1, 0), signed(one(message, 2, 0))
        sizes = []
        for each in message.get(3, ()):
            constant = one(self.reader.message(each, DIMENSION, what), 1)
            if constant is None:
                refuse(f"{what} has a size that is not static")
            sizes.append(signed(one(self.reader.message(constant, CONSTANT_SIZE, what), 1, 0)))
        if rank != len(sizes):
            refuse(f"{what} has {len(sizes)} sizes and states {rank}")
        shape = check_shape(sizes, what, computed)
        if dtype == STRING:
            return None
        if dtype not in TYPES:
            refuse(f"{what} has the type {dtype}, which is no dense number")
        return Type(dtype, shape)

    def value(self, data: memoryview, what: str, depth: int = 0) -> None:
        """Refuse a constant whose bytes are not there, or not as many as its type needs."""
        message = self.reader.message(data, VALUE, what)
        kind = self.type(one(message, 2, _EMPTY), what, computed=False)
        if (3 in message) == (5 in message):
            refuse(f"{what} has its value nowhere, or in two places")
        if 5 in message:
            if kind is None:
                refuse(f"{what} lies in the file of weights and is no tensor")
            self._blob(self.reader.message(one(message, 5), BLOB, what), kind, what)
            return
        immediate = self.reader.message(one(message, 3), IMMEDIATE, what)
        if kind is not None:
            self._immediate(immediate, kind, what)
        elif 3 in immediate:
            if depth > 2:
                refuse(f"{what} is a list of lists of lists")
            for each in self.reader.message(one(immediate, 3), LIST_VALUE, what).get(1, ()):
                self.value(each, what, depth + 1)
        elif 1 not in immediate:
            refuse(f"{what} is no tensor, text or list")

    def _immediate(self, immediate: dict[int, list[Any]], kind: Type, what: str) -> None:
        tensor = self.reader.message(one(immediate, 1, _EMPTY), TENSOR_VALUE, what)
        if len(tensor) != 1:
            refuse(f"{what} has its numbers in {len(tensor)} fields")
        ((field, (data, *_)),) = tensor.items()
        elements = math.prod(kind.shape)
        if field == 7:
            found = len(one(self.reader.message(data, {1: "bytes"}, what), 1, _EMPTY))
            needed = -(-elements * TYPES[kind.dtype][1] // 8)
        else:
            found, needed = self._count(field, data, what), elements
        if found != needed:
            refuse(f"{what} has {found} numbers or bytes where its shape needs {needed}")

    def _count(self, field: int, data: memoryview, what: str) -> int:
        """How many numbers a tensor's list has, packed or not."""
        known: Fields = {1: "floats" if field == 1 else "bytes"}
        if field in (2, 3, 5):
            # One packed field, as every writer makes it, is counted without being decoded.
            inner = self.reader.message(data, {1: "bytes"}, what).get(1, ())
            return sum(count_varints(each) for each in inner)
        if field == 6:
            return sum(len(each) for each in self.reader.message(data, {1: "bytes"}, what).get(1, ())) // 8
        found = self.reader.message(data, known, what).get(1, ())
        return len(found) if field == 4 else sum(len(each) for each in found) // 4

    def _blob(self, message: dict[int, list[Any]], kind: Type, what: str) -> None:
        name, offset = text(one(message, 1, _EMPTY), what), one(message, 2, 0)
        if name != WEIGHTS or self._weights is None:
            refuse(f"{what} lies in {shown(name)}: expected {WEIGHTS}, and that there")
        check_range(offset, _METADATA_BYTES, len(self._weights), f"the metadata of {what}")
        sentinel, dtype, size, start = _METADATA.unpack_from(self._weights, offset)
        needed = -(-math.prod(kind.shape) * TYPES[kind.dtype][1] // 8)
        if sentinel != _SENTINEL or dtype != TYPES[kind.dtype][2] or size != needed:
            refuse(f"{what} has {size} bytes of the type {dtype} where its type needs {needed}")
        check_range(start, size, len(self._weights), what)
