"""Tensors of an `.onnx` file: where their bytes are, and the few numbers that steer operators."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeformer_runtime.model_files import Broken, Shape, check_range, check_shape, refuse, shown
from edgeformer_runtime.model_files.encodings import Fields, WireReader, one, signed, text

# TensorProto, and what its entries about other files are: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
TENSOR: Fields = {
    1: "ints", 2: "int", 4: "floats", 5: "ints", 6: "bytes", 7: "ints", 8: "bytes", 9: "bytes", 10: "bytes", 11: "ints",
    12: "bytes", 13: "bytes", 14: "int",
}  # fmt: skip
DIMS, DATA_TYPE, FLOATS, INT32S, INT64S, NAME, RAW, DOUBLES, UINT64S, ELSEWHERE, LOCATION = (
    1, 2, 4, 5, 7, 8, 9, 10, 11, 13, 14,
)  # fmt: skip
ENTRY: Fields = {1: "bytes", 2: "bytes"}
# TensorProto.DataType: bits, the field that holds values which are not raw, numpy's name.
TYPES: dict[int, tuple[int, int, str]] = {
    1: (32, FLOATS, "float32"), 2: (8, INT32S, "uint8"), 3: (8, INT32S, "int8"), 4: (16, INT32S, "uint16"),
    5: (16, INT32S, "int16"), 6: (32, INT32S, "int32"), 7: (64, INT64S, "int64"), 9: (8, INT32S, "bool"),
    10: (16, INT32S, "float16"), 11: (64, DOUBLES, "float64"), 12: (32, UINT64S, "uint32"),
    13: (64, UINT64S, "uint64"), 16: (16, INT32S, "uint16"), 21: (4, INT32S, "uint8"), 22: (4, INT32S, "int8"),
}  # fmt: skip
INT64 = 7
MAX_STEERING = 4096
"""Elements of a constant that is looked at: shapes, axes and the like have a few."""

_DIGITS = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class Known:
    """A value of a graph.

    Attributes:
        shape: its sizes.
        dtype: its number in TensorProto.DataType; 0: derived no further than its shape.
        numbers: gives the numbers of a small constant, or of a `Shape`; None: it is computed, elsewhere, or large.
        varies: the numbers are sizes, which another length of the inputs may change.
    """

    shape: Shape
    dtype: int = 0
    numbers: Callable[[], list[int]] | None = None
    varies: bool = False


def read_tensor(
    reader: WireReader, data: memoryview, sizes: Mapping[str, int] | None, what: str = "a tensor"
) -> tuple[str, Known]:
    """A constant's name and value.

    Args:
        reader: the file's.
        data: the message.
        sizes: of each file that it may lie in, by name; None: it may not lie elsewhere.
        what: what it is called where it has no name.

    Raises:
        Broken: it has not as many bytes as its shape and type need, or refers to what it must not refer to.
    """
    message = reader.message(data, TENSOR, what)
    name = text(one(message, NAME, memoryview(b"")), what)
    what = f"the constant {shown(name)}" if name else what
    dtype = one(message, DATA_TYPE, 0)
    if dtype not in TYPES:
        refuse(f"{what} has the type {dtype}, which is no dense number")
    shape = check_shape([signed(size) for size in message.get(DIMS, ())], what, computed=False)
    bits, typed, _ = TYPES[dtype]
    needed = -(-math.prod(shape) * bits // 8)
    _check_places(message, what, typed, math.prod(shape), needed, sizes)
    if ELSEWHERE in message:
        return name, Known(shape, dtype)
    return name, known_constant(reader, shape, dtype, lambda: _numbers(message, dtype))


def known_constant(reader: WireReader, shape: Shape, dtype: int, numbers: Callable[[], list[int]]) -> Known:
    """A constant whose numbers are looked at where they are few. Many nodes may read one: each time counts."""
    count = math.prod(shape)
    if count > MAX_STEERING:
        return Known(shape, dtype)

    def read() -> list[int]:
        reader.spend(count, "a constant")
        return numbers()

    return Known(shape, dtype, read)


def _check_places(
    message: Mapping[int, list[Any]], what: str, typed: int, elements: int, needed: int, sizes: Mapping[str, int] | None
) -> None:
    fields = [field for field in (FLOATS, INT32S, INT64S, RAW, DOUBLES, UINT64S) if message.get(field)]
    if one(message, LOCATION, 0) == 1:
        if fields:
            refuse(f"{what} has data of its own and elsewhere")
        _check_elsewhere(message, what, needed, sizes)
        return
    if one(message, LOCATION, 0) or ELSEWHERE in message:
        refuse(f"{what} refers to another file, but does not say that it lies there")
    if fields not in ([], [RAW], [typed]):
        refuse(f"{what} has its numbers in a field of another type")
    found = 0
    if fields == [RAW]:
        found = len(one(message, RAW))
    elif fields and typed in (INT32S, INT64S, UINT64S):
        found, needed = len(message[typed]), elements if needed else 0
    elif fields:
        found = sum(map(len, message[typed]))
    if found != needed:
        refuse(f"{what} has {found} bytes or numbers where its shape needs {needed}")


def _check_elsewhere(message: Mapping[int, list[Any]], what: str, needed: int, sizes: Mapping[str, int] | None) -> None:
    if sizes is None:
        refuse(f"{what} refers to another file")
    reader = WireReader(strict=True)
    entries: dict[str, str] = {}
    for data in message.get(ELSEWHERE, ()):
        entry = reader.message(data, ENTRY, what)
        key, value = (text(one(entry, field, memoryview(b"")), what) for field in (1, 2))
        if key in entries:
            refuse(f"{what} states its {shown(key)} twice")
        entries[key] = value
    if sorted(entries) != ["length", "location", "offset"]:
        refuse(f"{what} refers to another file by {shown(sorted(entries))}: expected length, location and offset")
    location = entries["location"]
    if location not in sizes:
        refuse(f"{what} refers to {shown(location)}, which is no listed file of the model's own folder")
    if not all(_DIGITS.fullmatch(entries[key]) for key in ("offset", "length")):
        refuse(f"{what} has the offset {shown(entries['offset'])} and the length {shown(entries['length'])}")
    offset, length = int(entries["offset"]), int(entries["length"])
    check_range(offset, length, sizes[location], f"{what} in {location}")
    if length != needed:
        refuse(f"{what} has {length} bytes where its shape needs {needed}")


def _numbers(message: Mapping[int, list[Any]], dtype: int) -> list[int]:
    bits, typed, name = TYPES[dtype]
    if bits < 8 or name.startswith("float"):
        raise Broken("an operand that decides a shape is no integer")
    if RAW in message:
        return [int(each) for each in np.frombuffer(one(message, RAW), name)]
    return [signed(each) for each in message.get(typed, ())]
