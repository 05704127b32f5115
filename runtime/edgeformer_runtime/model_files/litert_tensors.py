"""Tensors of a `.tflite`: their types, bytes and scales."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgeformer_runtime.model_files.flatbuffer import Table
from edgeformer_runtime.model_files.litert_shapes import Tensor
from edgeformer_runtime.model_files.refusal import Shape, check_range, check_shape, refuse, shown

# TensorType: its number to its size in bits and numpy's name; what is not here is a text, a resource, complex, ...
TYPES: dict[int, tuple[int, str]] = {
    0: (32, "float32"), 1: (16, "float16"), 2: (32, "int32"), 3: (8, "uint8"), 4: (64, "int64"), 6: (8, "bool"),
    7: (16, "int16"), 9: (8, "int8"), 10: (64, "float64"), 16: (16, "uint16"), 15: (32, "uint32"), 17: (4, ""),
    19: (2, ""), 20: (4, ""),
}  # fmt: skip
MAX_STEERING = 4096
"""Elements of a constant that is looked at: shapes, axes and the like have a few."""
BLOCKWISE = 2
_INTEGERS = ("int32", "int64", "int16", "int8", "uint8")

Place = tuple[int, int]
"""A buffer's first byte in the file, and how many it has."""


class TensorReader:
    """Reads the tensors of one file."""

    def __init__(self, data: memoryview, buffers: list[Place]) -> None:
        self._data = data
        self._buffers = buffers
        self._sound: set[tuple[int, Shape]] = set()

    def read(self, table: Table, number: int) -> Tensor:
        """One tensor."""
        what = f"tensor {number}"
        sizes = [int(each) for each in table.numbers(0, "<i4")]
        signature = [int(each) for each in table.numbers(7, "<i4")]
        if signature and signature != sizes:
            refuse(f"{what} has a shape that is not static: {shown(signature)}")
        if table.has(6):
            refuse(f"{what} is sparse")
        if table.scalar(5, "?") or table.has(9) or table.scalar(10, "I"):
            refuse(f"{what} is a variable, or lies in another file")
        dtype = table.scalar(1, "b")
        if dtype not in TYPES:
            refuse(f"{what} has the type {dtype}, which is no dense number")
        buffer = table.scalar(2, "I")
        if buffer >= len(self._buffers):
            refuse(f"{what} has the buffer {buffer} of {len(self._buffers)}")
        place = self._buffers[buffer]
        shape = check_shape(sizes, what, computed=not place[1])
        self._check_quantization(table.table(4), shape, what)
        bits, name = TYPES[dtype]
        needed = -(-math.prod(shape) * bits // 8)
        if place[1] and place[1] != needed:
            refuse(f"{what} has {place[1]} bytes where its shape needs {needed}")
        return Tensor(shape, dtype, place[1] > 0, self._numbers(place, name, shape))

    def _numbers(self, place: Place, name: str, shape: Shape) -> Callable[[], list[int]] | None:
        if not place[1] or name not in _INTEGERS or math.prod(shape) > MAX_STEERING:
            return None
        return lambda: [int(each) for each in np.frombuffer(self._data, name, math.prod(shape), place[0])]

    def _check_quantization(self, table: Table | None, shape: Shape, what: str) -> None:
        if table is None or (table.at, shape) in self._sound:
            return
        scales, zeros = len(table.numbers(2, "<f4")), len(table.numbers(3, "<i8"))
        axis = table.scalar(6, "i")
        if scales > 1 and (not 0 <= axis < len(shape) or shape[axis] != scales):
            refuse(f"{what} has {scales} scales along the axis {axis} of {shape}")
        if zeros not in (0, 1, scales):
            refuse(f"{what} has {zeros} zero points for {scales} scales")
        if table.has(5) and table.scalar(4, "B") != BLOCKWISE:
            refuse(f"{what} has details of its quantization that no reader knows")
        self._sound.add((table.at, shape))


def read_buffers(data: memoryview, tables: list[Table]) -> list[Place]:
    """Where each buffer lies."""
    places = []
    for number, table in enumerate(tables):
        inside = table.bytes(0)
        offset, size = table.scalar(1, "Q"), table.scalar(2, "Q")
        if inside is not None and len(inside):
            if offset > 1 or size > 1:
                refuse(f"buffer {number} lies inside and behind the flatbuffer")
            start = table.offset(0)
            assert start is not None
            places.append((start, len(inside)))
        elif offset > 1:
            check_range(offset, size, len(data), f"buffer {number}")
            places.append((offset, size))
        else:
            places.append((0, 0))
    return places


def check_blockwise(table: Table, tensors: list[Tensor], shape: Shape, what: str) -> None:
    """Refuse blocks whose scales are not there."""
    quantization = table.table(4)
    blocks = None if quantization is None else quantization.table(5)
    if blocks is None:
        return
    scales, zeros, size = (blocks.scalar(field, "i") for field in range(3))
    if not 0 <= scales < len(tensors) or not -1 <= zeros < len(tensors) or size < 1:
        refuse(f"{what} has the scales {scales} and zero points {zeros} for blocks of {size}")
    if math.prod(tensors[scales].shape) * size != math.prod(shape):
        refuse(f"{what} has scales of {tensors[scales].shape} for blocks of {size}")
