"""Graphs of XNNPACK made to harm, inside a valid `.pte`: refused before XNNPACK packs weights by their numbers."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.model_files import Broken
from edgeformer_runtime.model_files.encodings import FlatBuffer, Steps, Table
from edgeformer_runtime.model_files.executorch_file import check_executorch
from edgeformer_runtime.model_files.executorch_operators import _HEADER, FULLY_CONNECTED, NO_ID

pytestmark = [pytest.mark.executorch, pytest.mark.slow]

Change = Callable[[Table], tuple[Table, int, int]]
"""Takes a graph; gives one of its tables, a field of it, and the field's new number."""


def graph_with_weights(data: memoryview) -> tuple[int, Table]:
    """The first graph that has a fully connected node, and where it starts."""
    at = 0
    while True:
        at = bytes(data).index(b"XH00", at + 4)
        _, _, start, size, _, _ = _HEADER.unpack_from(data, at - 4)
        begin = at - 4 + start
        graph = FlatBuffer(data[begin : begin + size], b"XN01", "graph", Steps()).root()
        if any(each.scalar(0, "B") == FULLY_CONNECTED for each in graph.tables(1)):
            return begin, graph


def inner(union: Table) -> Table:
    table = union.table(1)
    assert table is not None
    return table


def node(graph: Table) -> Table:
    return next(inner(each) for each in graph.tables(1) if each.scalar(0, "B") == FULLY_CONNECTED)


def computed_value(graph: Table) -> Table:
    """One that neither the call nor the file has."""
    values = (inner(each) for each in graph.tables(2))
    return next(each for each in values if each.scalar(4, "I") == NO_ID and not each.scalar(3, "I"))


def operand_of_the_call(graph: Table) -> tuple[Table, int, int]:
    """A computed value that claims the operand 0, which another has by default: XNNPACK died of it."""
    return computed_value(graph), 4, 0


def bias_of_another_shape(graph: Table) -> tuple[Table, int, int]:
    return node(graph), 2, node(graph).scalar(1, "I")


def computed_bias(graph: Table) -> tuple[Table, int, int]:
    return node(graph), 2, node(graph).scalar(0, "I")


def output_onto_its_input(graph: Table) -> tuple[Table, int, int]:
    """XNNPACK wrote behind its memory."""
    return node(graph), 3, node(graph).scalar(0, "I")


def input_that_comes_later(graph: Table) -> tuple[Table, int, int]:
    return node(graph), 0, node(graph).scalar(3, "I")


def computed_weights(graph: Table) -> tuple[Table, int, int]:
    return node(graph), 1, node(graph).scalar(0, "I")


def transposed_weights(graph: Table) -> tuple[Table, int, int]:
    return node(graph), 4, 1 - node(graph).scalar(4, "I")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (operand_of_the_call, "a value of XNNPACK has the operand 0 and the flags 0"),
        (bias_of_another_shape, r"has a bias of \(4, 3\) for 3 channels"),
        (computed_bias, r"has a bias of \(1, 4\) for 3 channels"),
        (output_onto_its_input, r"or writes \[2\] again"),
        (input_that_comes_later, r"reads \[4, 5, 4294967295\] before they are written"),
        (computed_weights, "has weights of"),
        (transposed_weights, r"has weights of \(4, 3\)"),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
def test_what_would_be_packed(tiny_executorch: Path, change: Change, reason: str) -> None:
    with Bundle.open(tiny_executorch) as bundle:
        programs = list(bundle.manifest.programs)
        good = bundle.read_bytes(programs[0].file)
    begin, graph = graph_with_weights(memoryview(good))
    table, field, number = change(graph)
    place = table.place(field, 4)
    assert place is not None
    corrupted = bytearray(good)
    struct.pack_into("<I", corrupted, begin + place, number)
    check_executorch(memoryview(good), programs)
    with pytest.raises(Broken, match=reason):
        check_executorch(memoryview(bytes(corrupted)), programs)
