"""A `.tflite` whose float16 weights are float32.

XNNPACK widens float16 constants in each signature anew: tiny.en's eighteen programs hold eighteen parts of the weights
at float32, 1 GB in all. Widened in the file, they are packed once for all signatures.
"""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from collections.abc import Iterator
from typing import IO, NamedTuple

import numpy as np

from edgeformer_runtime.bundle.manifest import ProgramSpec
from edgeformer_runtime.model_files import refuse
from edgeformer_runtime.model_files.encodings import FlatBuffer, Steps, Table
from edgeformer_runtime.model_files.litert_file import check_litert

_MODEL_CODES, _MODEL_GRAPHS, _MODEL_BUFFERS = 1, 2, 4
_GRAPH_TENSORS, _GRAPH_OUTPUTS, _GRAPH_OPERATORS = 0, 2, 3
_OPERATOR_CODE, _OPERATOR_INPUTS, _OPERATOR_OUTPUTS = 0, 1, 2
_TENSOR_TYPE, _TENSOR_BUFFER = 1, 2
_BUFFER_OFFSET, _BUFFER_SIZE = 1, 2
_FLOAT32, _FLOAT16, _DEQUANTIZE = 0, 1, 6
_ALIGNMENT_BYTES = 64


class _Widened(NamedTuple):
    """A DEQUANTIZE of a constant: its number in the graph, its buffer, and the tensors that it reads and makes."""

    operator: int
    buffer: int
    read: int
    made: int


def widen(data: memoryview, programs: list[ProgramSpec], file: IO[bytes]) -> bool:
    """Write the model with its large float16 constants in float32, without the operators that widen them.

    Constants inside the flatbuffer are small, and stay. Nothing else changes: a widened number is the same number.

    Args:
        data: a whole `.tflite` that was checked.
        programs: those that the manifest says this file has.
        file: is written to from its start.

    Returns:
        False, and nothing is written, where there is nothing to widen, or where something else reads such a constant.

    Raises:
        Broken: what was written is no model: tables of the file share their parts.
        OSError: there is no room for the file.
    """
    model = FlatBuffer(data, b"TFL3", ".tflite file", Steps()).root()
    buffers = list(model.tables(_MODEL_BUFFERS))
    outside = {number for number, each in enumerate(buffers) if each.scalar(_BUFFER_OFFSET, "Q") > 1}
    codes = [max(each.scalar(0, "b"), each.scalar(3, "i")) for each in model.tables(_MODEL_CODES)]
    graphs = list(model.tables(_MODEL_GRAPHS))
    found = [list(_widened(graph, codes, outside)) for graph in graphs]
    wide = {each.buffer for in_graph in found for each in in_graph}
    if not wide or not all(_is_all(graph, wide, each) for graph, each in zip(graphs, found, strict=True)):
        return False
    start = min(buffers[number].scalar(_BUFFER_OFFSET, "Q") for number in outside)
    head = bytearray(data[:start])
    try:
        for graph, in_graph in zip(graphs, found, strict=True):
            _rewire(head, graph, in_graph)
    except struct.error:
        refuse("parts of its graphs lie behind a constant")
    file.write(head)
    places: dict[tuple[int, int, bool], int] = {}
    for number in sorted(outside):
        offset, size = (buffers[number].scalar(field, "Q") for field in (_BUFFER_OFFSET, _BUFFER_SIZE))
        key = (offset, size, number in wide)
        content = data[offset : offset + size]
        if key not in places:
            file.write(bytes(-file.tell() % _ALIGNMENT_BYTES))
            places[key] = file.tell()
            file.write(np.frombuffer(content, np.float16).astype(np.float32).data if key[2] else content)
        for field, value in ((_BUFFER_OFFSET, places[key]), (_BUFFER_SIZE, size * (2 if key[2] else 1))):
            _write(head, buffers[number], field, "<Q", value)
    file.seek(0)
    file.write(head)
    file.flush()
    # Whoever laid tables over one another could have this change a number that nobody has looked at.
    check_litert(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)), programs)
    return True


def _widened(graph: Table, codes: list[int], outside: set[int]) -> Iterator[_Widened]:
    tensors = list(graph.tables(_GRAPH_TENSORS))
    for number, operator in enumerate(graph.tables(_GRAPH_OPERATORS)):
        if codes[operator.scalar(_OPERATOR_CODE, "I")] == _DEQUANTIZE:
            (read,), (made,) = operator.integers(_OPERATOR_INPUTS), operator.integers(_OPERATOR_OUTPUTS)
            buffer = tensors[read].scalar(_TENSOR_BUFFER, "I")
            if tensors[read].scalar(_TENSOR_TYPE, "b") == _FLOAT16 and buffer in outside:
                yield _Widened(number, buffer, read, made)


def _is_all(graph: Table, wide: set[int], in_graph: list[_Widened]) -> bool:
    """Whether nothing but these operators reads such a buffer, and none of them makes what the graph gives."""
    tensors = enumerate(graph.tables(_GRAPH_TENSORS))
    holders = {number for number, each in tensors if each.scalar(_TENSOR_BUFFER, "I") in wide}
    readers = Counter(
        index for operator in graph.tables(_GRAPH_OPERATORS) for index in set(operator.integers(_OPERATOR_INPUTS))
    )
    given = set(graph.integers(_GRAPH_OUTPUTS))
    return holders == {each.read for each in in_graph} and all(
        readers[each.read] == 1 and each.made not in given for each in in_graph
    )


def _rewire(head: bytearray, graph: Table, in_graph: list[_Widened]) -> None:
    """Let what read the widened tensors read the constants, and take the operators out of the graph's list."""
    tensors = list(graph.tables(_GRAPH_TENSORS))
    for each in in_graph:
        _write(head, tensors[each.read], _TENSOR_TYPE, "<b", _FLOAT32)
    constants = {each.made: each.read for each in in_graph}
    dropped = {each.operator for each in in_graph}
    first, _ = graph.vector(_GRAPH_OPERATORS, 4)
    assert first is not None
    kept = 0
    for number, operator in enumerate(graph.tables(_GRAPH_OPERATORS)):
        if number in dropped:
            continue
        at, count = operator.vector(_OPERATOR_INPUTS, 4)
        for place in range(at or 0, (at or 0) + 4 * count, 4):
            (index,) = struct.unpack_from("<i", head, place)
            struct.pack_into("<i", head, place, constants.get(index, index))
        struct.pack_into("<I", head, first + 4 * kept, operator.at - (first + 4 * kept))
        kept += 1
    struct.pack_into("<I", head, first - 4, kept)


def _write(head: bytearray, table: Table, field: int, code: str, value: int) -> None:
    place = table.place(field, struct.calcsize(code))
    assert place is not None  # a number that is not the schema's default is there
    struct.pack_into(code, head, place, value)
