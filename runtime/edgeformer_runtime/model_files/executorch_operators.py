"""What an ExecuTorch file may execute: kernels, and the graph that its delegate hands to XNNPACK, which trusts it."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgeformer_runtime.model_files import Shape, check_range, check_shape, refuse
from edgeformer_runtime.model_files.encodings import FlatBuffer, Steps, Table
from edgeformer_runtime.model_files.shape_rules import resized


@cache
def kernels() -> dict[str, tuple[str, int]]:
    """By `name.overload` the kind of each operand, results included, and how many results there are.

    Kinds: T tensor, V list of tensors, O list of tensors some of which are absent, I integer, B boolean, D float, S
    integer or float or boolean, L list of integers, F list of floats, X text; in lower case, it may be absent.
    """
    rows = Path(__file__).with_name("executorch_kernels.txt").read_text(encoding="utf-8").splitlines()
    return {name: (kinds, int(results)) for name, kinds, results in map(str.split, rows)}


MOVES = frozenset({
    "aten::alias_copy.out", "aten::clone.out", "aten::detach_copy.out", "aten::expand_copy.out",
    "aten::permute_copy.out", "aten::repeat.out", "aten::select_copy.int_out", "aten::slice_copy.Tensor_out",
    "aten::squeeze_copy.dim_out", "aten::squeeze_copy.dims_out", "aten::t_copy.out", "aten::transpose_copy.int_out",
    "aten::unsqueeze_copy.out", "aten::view_copy.out", "dim_order_ops::_clone_dim_order.out",
    "dim_order_ops::_to_dim_order_copy.out", "executorch_prim::et_view.default",
})  # fmt: skip
"""The result's numbers are those of the first operand."""

INDICES = {
    "aten::embedding.out": 1, "quantized_decomposed::embedding_4bit.dtype_out": 5,
    "quantized_decomposed::embedding_4bit.out": 5, "quantized_decomposed::embedding_byte.dtype_out": 5,
    "quantized_decomposed::embedding_byte.out": 5,
}  # fmt: skip
"""Which operand numbers the rows of the first one."""


# XNNHeader: 4 zeros, magic, its length, offset and size of the flatbuffer, offset and size of the constants.
_HEADER = struct.Struct("<4x4sHIIIQ")
_MAGIC = b"XH00"
NO_ID = 0xFFFFFFFF
NO_OFFSET = 0xFFFFFFFFFFFFFFFF
# XNNDatatype: bits of the types that a constant may have, and of those that only computed values have.
CONSTANT_BITS = {1: 32, 2: 16, 3: 8, 4: 8, 5: 32, 6: 8, 7: 32, 8: 4, 10: 4, 12: 32, 14: 16}
COMPUTED_TYPES = frozenset({1, 2, 3, 4, 9, 11, 12, 14})
EXTERNAL_INPUT, EXTERNAL_OUTPUT = 1, 2
"""Flags of a value that the call hands over, one of them of each."""
MAX_RANK = 6
"""XNN_MAX_TENSOR_DIMS."""


@dataclass(frozen=True)
class Kind:
    """Where a node's table has its ids, and which of the inputs may be absent."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    optional: tuple[int, ...] = ()


_ONE, _TWO = Kind((0,), (1,)), Kind((0, 1), (2,))
_CONV, _POOL = Kind((15, 16), (18,), (17,)), Kind((10,), (11,))
# XNodeUnion, by number. What is not here has no rule: pooling with indices, attention.
NODES: dict[int, Kind] = {
    **dict.fromkeys((3, 4, 6, 17, 18, 19, 22, 23, 24, 27, 28, 30, 40, 41, 42, 43, 44, 45, 46, 47), _ONE),
    **dict.fromkeys((1, 8, 12, 15, 16, 26, 31, 37), _TWO),
    **dict.fromkeys((7, 13), _CONV),
    **dict.fromkeys((11, 14), _POOL),
    2: Kind((0, 1), (3,), (2,)),
    5: Kind((2,), (3,)),
    9: Kind((2,), (3,)),
    10: Kind((3,), (4,)),
    20: Kind((2,), (3,)),
    25: Kind((1,), (2,)),
    29: Kind((1,), (2,)),
    32: Kind((1, 2), (5,)),
    33: Kind((1, 2, 3), (5,)),
    34: Kind((1, 2, 3, 4), (5,)),
    35: Kind((3,), (4,)),
    38: Kind((1, 2, 3, 4, 7), (5,)),
}
FULLY_CONNECTED, CONV, DEPTHWISE_CONV = 2, 7, 13
TRANSPOSED_WEIGHTS = 1
"""A flag of a fully connected node: its weights are (inputs, outputs)."""
TRANSPOSE, RESIZE, PAD, RESHAPE, SLICE = 5, 9, 10, 20, 35
LISTS = {TRANSPOSE: (1,), PAD: (0, 1), RESHAPE: (1,), SLICE: (1, 2)}
"""The fields of a node with numbers for each axis."""


def check_xnnpack(data: memoryview, named: Callable[[str], int], operands: int, steps: Steps) -> None:
    """Refuse a delegate's data that breaks a rule of BUNDLE.md.

    Args:
        data: the delegate's segment.
        named: gives the size of named data by its key; refuses a key that there is none for.
        operands: how many the call has.
        steps: what may still be looked at in the file: a million calls may be of one delegate.

    Raises:
        Broken: says which rule.
    """
    if len(data) < _HEADER.size:
        refuse("XNNPACK's data is shorter than its header")
    magic, length, start, size, constants, constants_size = _HEADER.unpack_from(data)
    if magic != _MAGIC or length != _HEADER.size:
        refuse(f"XNNPACK's data starts with {magic!r}: expected {_MAGIC!r}")
    check_range(start, size, len(data), "XNNPACK's graph")
    check_range(constants, constants_size, len(data), "XNNPACK's constants")
    graph = FlatBuffer(data[start : start + size], b"XN01", "graph of XNNPACK", steps).root()
    sizes = [_constant_size(each, constants_size, named) for each in graph.tables(8)]
    externals = graph.scalar(3, "I")
    if externals > operands:
        refuse(f"XNNPACK's graph has {externals} operands, its call {operands}")
    values, constants = _values(graph, sizes, externals)
    for field in (4, 5):
        if any(each not in values for each in graph.integers(field, "I")):
            refuse("XNNPACK's graph names an input or output that it has not")
    there = constants.union(graph.integers(4, "I"))
    for each in graph.tables(1):
        kind = each.scalar(0, "B")
        node = each.table(1)
        if kind not in NODES or node is None:
            refuse(f"XNNPACK's graph has a node of the kind {kind}, which is none that a reader knows")
        _check_node(kind, node, values, there)
        if kind in (FULLY_CONNECTED, CONV, DEPTHWISE_CONV):
            _check_weights(kind, node, values, constants)


def _constant_size(table: Table, room: int, named: Callable[[str], int]) -> int:
    offset, size, key = table.scalar(0, "Q", NO_OFFSET), table.scalar(1, "Q"), table.text(2)
    if key:
        if size > named(key):
            refuse("a constant of XNNPACK is longer than its named data")
    elif size or offset not in (0, NO_OFFSET):
        check_range(offset, size, room, "a constant of XNNPACK")
    return int(size)


def _values(graph: Table, sizes: list[int], externals: int) -> tuple[dict[int, Shape], set[int]]:
    """The shape of each value, by its id, and the ids of constants."""
    found: dict[int, Shape] = {}
    constants: set[int] = set()
    outside: set[int] = set()
    for each in graph.tables(2):
        union, value = each.scalar(0, "B"), each.table(1)
        tensor = value if union == 1 or value is None else value.table(0)
        if union not in (1, 2) or value is None or tensor is None:
            refuse("XNNPACK's graph has a value that is no tensor")
        dims = tensor.integers(2, "I")
        if len(dims) > MAX_RANK or tensor.scalar(1, "I") != len(dims):
            refuse(f"a tensor of XNNPACK has {len(dims)} sizes and states {tensor.scalar(1, 'I')}")
        constant, dtype = tensor.scalar(3, "I"), tensor.scalar(0, "h")
        shape = check_shape(dims, "a tensor of XNNPACK", computed=not constant)
        if constant:
            if constant >= len(sizes) or dtype not in CONSTANT_BITS:
                refuse(f"a constant of XNNPACK has the number {constant} of {len(sizes)} and the type {dtype}")
            if -(-math.prod(shape) * CONSTANT_BITS[dtype] // 8) > sizes[constant]:
                refuse(f"a constant of XNNPACK has {sizes[constant]} bytes for the shape {shape}")
        elif dtype not in COMPUTED_TYPES:
            refuse(f"a value of XNNPACK has the type {dtype}")
        if union == 2:
            _check_scales(value, shape, sizes)
        external, flags = tensor.scalar(4, "I"), tensor.scalar(5, "I")
        if flags not in ((0,) if external == NO_ID else (EXTERNAL_INPUT, EXTERNAL_OUTPUT)):
            refuse(f"a value of XNNPACK has the operand {external} and the flags {flags}")
        if external != NO_ID and (external >= externals or external in outside or constant):
            refuse(f"XNNPACK's graph has the operand {external} of {externals}, or twice, or as a constant")
        outside.add(external)
        number = tensor.scalar(6, "I")
        if number in found or number == NO_ID:
            refuse(f"XNNPACK's graph has the value {number} twice")
        found[number] = shape
        if constant:
            constants.add(number)
    return found, constants


def _check_scales(value: Table, shape: Shape, sizes: list[int]) -> None:
    """Refuse scales that are fewer than the channels that they are for."""
    kind, scales = value.scalar(1, "B"), value.table(2)
    if kind not in (1, 2, 3, 4) or scales is None:
        refuse("a tensor of XNNPACK has scales of a kind that no reader knows")
    if kind == 3 and not 0 <= scales.scalar(0, "i") <= len(shape):
        refuse("a tensor of XNNPACK has scales for more axes than it has")
    if kind in (2, 3):
        return
    axis = scales.scalar(1, "i")
    buffer, stated = (2, 3) if kind == 1 else (4, 5)
    group = 0 if kind == 1 else scales.scalar(2, "i")
    if not 0 <= axis < len(shape):
        refuse(f"a tensor of XNNPACK of {len(shape)} axes has scales along the axis {axis}")
    if kind == 4 and (group < 1 or len(shape) != 2 or shape[1 - axis] % group):
        refuse(f"a tensor of XNNPACK has groups of {group}")
    needed = shape[axis] if kind == 1 else shape[axis] * (shape[1 - axis] // group)
    found = scales.count(0, 4)
    number = scales.scalar(buffer, "I")
    if number:
        if number >= len(sizes) or scales.scalar(stated, "I") * (4 if kind == 1 else 2) > sizes[number]:
            refuse("a tensor of XNNPACK has scales that are not there")
        found = scales.scalar(stated, "I")
    if found < needed:
        refuse(f"a tensor of XNNPACK has {found} scales for {needed} channels")


def _check_node(kind: int, node: Table, values: dict[int, Shape], there: set[int]) -> None:
    """Refuse a node whose lists do not go with its input, that reads what is not there yet, or writes what is: XNNPACK
    plans memory for each value once.
    """
    where = NODES[kind]
    inputs, outputs, optional = (
        [node.scalar(field, "I") for field in fields] for fields in (where.inputs, where.outputs, where.optional)
    )
    reads = [*inputs, *optional]
    present = [*inputs, *(number for number in optional if number != NO_ID)]
    for number in (*present, *outputs):
        if number not in values:
            refuse(f"a node of XNNPACK reads or writes the value {number}, which its graph has not")
    if kind in LISTS and not _lists_fit(kind, node, values[inputs[0]]):
        refuse(f"a node of XNNPACK of the kind {kind} does not go with its input of {values[inputs[0]]}")
    if kind == RESIZE:
        sides = [node.scalar(field, "I") for field in (0, 1)]
        if resized(values[inputs[0]], (1, 2), sides) != values[outputs[0]]:
            refuse(f"a node of XNNPACK resizes {values[inputs[0]]} to {sides}, not to {values[outputs[0]]}")
    if not there.issuperset(present) or not there.isdisjoint(outputs):
        refuse(f"a node of XNNPACK of the kind {kind} reads {reads} before they are written, or writes {outputs} again")
    there.update(outputs)


def _lists_fit(kind: int, node: Table, source: Shape) -> bool:
    lists = [node.integers(field, "I") for field in LISTS[kind]]
    stated: int = node.scalar(0, "I")
    if kind == PAD:
        check_shape([sum(sizes) for sizes in zip(source, *lists, strict=False)], "a pad of XNNPACK")
        return len(lists[0]) == len(lists[1]) == len(source)
    if kind == TRANSPOSE:
        return stated == len(lists[0]) and sorted(lists[0]) == list(range(len(source)))
    if kind == RESHAPE:
        check_shape(lists[0], "a reshape of XNNPACK")
        return stated == len(lists[0]) <= MAX_RANK
    return stated == len(lists[0]) == len(lists[1]) == len(source) and all(
        begin + size <= room for begin, size, room in zip(*lists, source, strict=False)
    )


def _check_weights(kind: int, node: Table, values: dict[int, Shape], constants: set[int]) -> None:
    """Refuse weights that are not as the node says: they are packed by its numbers when the model is loaded."""
    source, weights, bias = (node.scalar(field, "I") for field in (*NODES[kind].inputs, *NODES[kind].optional))
    found = values[weights]
    if kind == FULLY_CONNECTED:
        outputs, inputs = found if len(found) == 2 else (0, 0)
        if node.scalar(4, "I") & TRANSPOSED_WEIGHTS:
            outputs, inputs = inputs, outputs
        fits = len(found) == 2 and values[source][-1:] == (inputs,)
    else:
        height, width = node.scalar(4, "I"), node.scalar(5, "I")
        inputs, outputs, groups = (node.scalar(field, "I") for field in (10, 11, 12))
        outputs *= groups
        wanted = (1, height, width, outputs) if kind == DEPTHWISE_CONV else (outputs, height, width, inputs)
        if kind == DEPTHWISE_CONV and inputs != 1:
            refuse(f"a depthwise convolution of XNNPACK has groups of {inputs} channels")
        # Values that are quantized on the way state their sizes with the channels before the rows.
        fits = found == wanted and len(values[source]) == 4 and groups * inputs in values[source][1::2]
    if not fits or weights not in constants:
        refuse(f"a node of XNNPACK of the kind {kind} has weights of {found} for {values[source]}, or computed ones")
    if bias != NO_ID and (bias not in constants or values[bias] != (outputs,)):
        refuse(f"a node of XNNPACK of the kind {kind} has a bias of {values[bias]} for {outputs} channels")
