"""Looks at a `.tflite` before LiteRT opens it: it believes shapes, indices and offsets, and follows calls for ever."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from edgeformer_runtime.bundle.manifest import ProgramSpec
from edgeformer_runtime.bundle.specs import TensorSpec
from edgeformer_runtime.model_files import (
    Broken,
    Contents,
    IndexTrace,
    Shape,
    check_range,
    check_shape,
    refuse,
    shown,
)
from edgeformer_runtime.model_files.encodings import FlatBuffer, Steps, Table
from edgeformer_runtime.model_files.litert_shapes import INDICES, MOVES, RULES, Call, Tensor, indexed_rows
from edgeformer_runtime.model_files.shape_rules import check_live


def check_litert(data: memoryview, programs: list[ProgramSpec]) -> Contents:
    """Refuse a file that breaks a rule of BUNDLE.md.

    Args:
        data: the whole file.
        programs: those that the manifest says this file has.

    Returns:
        How often each operator occurs, and the rows of the tables that inputs index.

    Raises:
        Broken: says which rule and where.
    """
    steps = Steps()
    model = FlatBuffer(data, b"TFL3", ".tflite file", steps).root()
    if model.has(8) or model.has(9):
        refuse("it refers to buffers in other files")
    reader = TensorReader(data, read_buffers(data, list(model.tables(4))), steps)
    codes = [_code(table) for table in model.tables(1)]
    counts: Counter[str] = Counter()
    signatures, tables = list(model.tables(7)), list(model.tables(2))
    _check_graphs(signatures, len(tables))
    graphs = [_Graph(reader, codes, table, counts) for table in tables]
    return Contents(counts, _check_signatures(signatures, graphs, programs))


def _code(table: Table) -> str:
    """An operator's name. Codes above 126 live in the second field only; older ones may live in the first."""
    code = max(table.scalar(0, "b"), table.scalar(3, "i"))
    name = NAMES.get(code) or REFUSED.get(code, f"number {code}")
    if name not in RULES or table.has(1):
        refuse(f"it has the operator {name}, which is none that a reader knows: see BUNDLE.md")
    return name


class _Graph:
    """A subgraph whose operators run in order on what is there."""

    def __init__(self, reader: TensorReader, codes: list[str], table: Table, counts: Counter[str]) -> None:
        tables = list(table.tables(0))
        self.tensors = [reader.read(each, number) for number, each in enumerate(tables)]
        for number, each in enumerate(tables):
            check_blockwise(each, self.tensors, self.tensors[number].shape, f"tensor {number}")
        self.inputs = [self._index(each) for each in table.integers(1)]
        self.outputs = [self._index(each) for each in table.integers(2)]
        self._made = {number for number, each in enumerate(self.tensors) if each.constant}
        if self._made.intersection(self.inputs) or len(set(self.inputs)) != len(self.inputs):
            refuse("an input of a graph is a constant, or occurs twice")
        self._made.update(self.inputs)
        self.trace = IndexTrace(self.inputs)
        self._steps: list[tuple[Sequence[int], Sequence[int]]] = []
        self._computed: dict[int, int] = {}
        for each in table.tables(3):
            code = each.scalar(0, "I")
            if code >= len(codes):
                refuse(f"an operator has the code {code} of {len(codes)}")
            counts[codes[code]] += 1
            try:
                self._run(codes[code], each)
            except Broken as error:
                raise Broken(f"operator {sum(counts.values())}, {codes[code]}: {error}") from None
        check_live(self._steps, self._computed)
        if not self._made.issuperset(self.outputs):
            refuse("an output of a graph is made by none of its operators")

    def _index(self, number: int) -> int:
        if not 0 <= number < len(self.tensors):
            refuse(f"there is no tensor {number} among {len(self.tensors)}")
        return number

    def _run(self, name: str, operator: Table) -> None:
        if operator.has(5) or operator.scalar(9, "Q") > 1 or any(operator.integers(7, "?")) or operator.has(8):
            refuse("it has custom options, variables or intermediates")
        kind = operator.scalar(3, "B")
        if kind not in (0, OPTIONS.get(name, 0)):
            refuse(f"it has the options of another operator, {kind}")
        inputs = operator.integers(1)
        operands: list[Tensor | None] = []
        for number in inputs:
            if number != -1 and self._index(number) not in self._made:
                refuse(f"it reads the tensor {number}, which nothing before it makes")
            operands.append(None if number == -1 else self.tensors[number])
        outputs = [self._index(each) for each in operator.integers(2)]
        if self._made.intersection(outputs) or len(set(outputs)) != len(outputs):
            refuse("it writes what is made already")
        options = operator.table(4) if kind else operator.table(12) if operator.has(12) else None
        call = Call(operands, [self.tensors[each] for each in outputs], options)
        shapes = RULES[name](call)
        found = [self.tensors[each].shape for each in outputs]
        if found != list(shapes):
            refuse(f"it makes {shown([*shapes])} where the file declares {shown(found)}")
        self._made.update(outputs)
        if name in MOVES:
            self.trace.move(inputs[0], outputs)
        elif name in INDICES:
            self.trace.index(inputs[INDICES[name]], indexed_rows(name, call))
        self._steps.append((inputs, outputs))
        self._computed.update({each: math.prod(self.tensors[each].shape) for each in outputs})


def _check_graphs(signatures: list[Table], count: int) -> None:
    numbers = [signature.scalar(4, "I") for signature in signatures]
    if sorted(numbers) != list(range(count)):
        refuse(f"its signatures run the graphs {shown(numbers)}: expected each of {count} once")


def _check_signatures(
    signatures: list[Table], graphs: list[_Graph], programs: list[ProgramSpec]
) -> dict[str, dict[str, int]]:
    by_key = {signature.text(2): signature for signature in signatures}
    if len(by_key) != len(signatures):
        refuse("two signatures have the same key")
    for signature in signatures:
        graph = graphs[signature.scalar(4, "I")]
        for field, tensors in ((0, graph.inputs), (1, graph.outputs)):
            listed = [each.scalar(1, "I") for each in signature.tables(field)]
            if sorted(listed) != sorted(tensors):
                refuse(f"the signature {shown(signature.text(2))} names other tensors than its graph has")
    rows: dict[str, dict[str, int]] = {}
    for program in programs:
        if program.entry not in by_key:
            refuse(f"it has no signature {shown(program.entry)}")
        own = by_key[program.entry]
        graph = graphs[own.scalar(4, "I")]
        _compare(own, 0, graph, program.inputs, program.name)
        _compare(own, 1, graph, program.outputs, program.name)
        names = {each.scalar(1, "I"): each.text(0) or "" for each in own.tables(0)}
        rows[program.name] = graph.trace.rows(names)
    return rows


def _compare(signature: Table, field: int, graph: _Graph, declared: tuple[TensorSpec, ...], name: str) -> None:
    tables = list(signature.tables(field))
    found = {each.text(0): graph.tensors[each.scalar(1, "I")] for each in tables}
    stated = {spec.name: (spec.shape, spec.dtype) for spec in declared}
    if len(tables) != len(stated) or {key: (each.shape, TYPES[each.dtype][1]) for key, each in found.items()} != stated:
        refuse(f"the signature of {name} has other tensors than the manifest declares")


# Numbers of TensorFlow Lite's schema for the operators that a reader knows.


NAMES: dict[int, str] = {
    0: "ADD", 1: "AVERAGE_POOL_2D", 2: "CONCATENATION", 3: "CONV_2D", 4: "DEPTHWISE_CONV_2D", 6: "DEQUANTIZE", 7:
    "EMBEDDING_LOOKUP", 8: "FLOOR", 9: "FULLY_CONNECTED", 11: "L2_NORMALIZATION", 14: "LOGISTIC", 17: "MAX_POOL_2D",
    18: "MUL", 19: "RELU", 20: "RELU_N1_TO_1", 21: "RELU6", 22: "RESHAPE", 23: "RESIZE_BILINEAR", 25: "SOFTMAX", 28:
    "TANH", 34: "PAD", 36: "GATHER", 39: "TRANSPOSE", 40: "MEAN", 41: "SUB", 42: "DIV", 43: "SQUEEZE", 45:
    "STRIDED_SLICE", 47: "EXP", 49: "SPLIT", 50: "LOG_SOFTMAX", 53: "CAST", 54: "PRELU", 55: "MAXIMUM", 56:
    "ARG_MAX", 57: "MINIMUM", 58: "LESS", 59: "NEG", 60: "PADV2", 61: "GREATER", 62: "GREATER_EQUAL", 63:
    "LESS_EQUAL", 64: "SELECT", 65: "SLICE", 66: "SIN", 69: "TILE", 70: "EXPAND_DIMS", 71: "EQUAL", 72: "NOT_EQUAL",
    73: "LOG", 74: "SUM", 75: "SQRT", 76: "RSQRT", 78: "POW", 79: "ARG_MIN", 81: "REDUCE_PROD", 82: "REDUCE_MAX",
    83: "PACK", 84: "LOGICAL_OR", 85: "ONE_HOT", 86: "LOGICAL_AND", 87: "LOGICAL_NOT", 88: "UNPACK", 89:
    "REDUCE_MIN", 90: "FLOOR_DIV", 91: "REDUCE_ANY", 92: "SQUARE", 94: "FILL", 95: "FLOOR_MOD", 97:
    "RESIZE_NEAREST_NEIGHBOR", 98: "LEAKY_RELU", 99: "SQUARED_DIFFERENCE", 101: "ABS", 102: "SPLIT_V", 104: "CEIL",
    107: "GATHER_ND", 108: "COS", 111: "ELU", 114: "QUANTIZE", 116: "ROUND", 117: "HARD_SWISH", 123: "SELECT_V2",
    126: "BATCH_MATMUL", 128: "CUMSUM", 130: "BROADCAST_TO", 140: "REDUCE_ALL", 150: "GELU", 151:
    "DYNAMIC_UPDATE_SLICE", 158: "SIGN",
}  # fmt: skip
"""BuiltinOperator."""

OPTIONS: dict[str, int] = {
    "ABS": 78, "ADD": 11, "ARG_MAX": 40, "ARG_MIN": 57, "AVERAGE_POOL_2D": 5, "BATCH_MATMUL": 101, "BROADCAST_TO":
    104, "CAST": 37, "CONCATENATION": 10, "CONV_2D": 1, "COS": 84, "CUMSUM": 102, "DEPTHWISE_CONV_2D": 2,
    "DEQUANTIZE": 38, "DIV": 29, "DYNAMIC_UPDATE_SLICE": 117, "EQUAL": 53, "EXP": 33, "EXPAND_DIMS": 52, "FILL": 68,
    "FLOOR_DIV": 65, "FLOOR_MOD": 72, "FULLY_CONNECTED": 8, "GATHER": 23, "GATHER_ND": 83, "GELU": 116, "GREATER":
    44, "GREATER_EQUAL": 45, "HARD_SWISH": 91, "L2_NORMALIZATION": 12, "LEAKY_RELU": 75, "LESS": 41, "LESS_EQUAL":
    46, "LOGICAL_AND": 62, "LOGICAL_NOT": 63, "LOGICAL_OR": 60, "LOG_SOFTMAX": 36, "MAXIMUM": 39, "MAX_POOL_2D": 5,
    "MEAN": 27, "MINIMUM": 39, "MUL": 21, "NEG": 42, "NOT_EQUAL": 54, "ONE_HOT": 61, "PACK": 59, "PAD": 22, "PADV2":
    43, "POW": 56, "QUANTIZE": 89, "REDUCE_ALL": 27, "REDUCE_ANY": 27, "REDUCE_MAX": 27, "REDUCE_MIN": 27,
    "REDUCE_PROD": 27, "RESHAPE": 17, "RESIZE_BILINEAR": 15, "RESIZE_NEAREST_NEIGHBOR": 74, "SELECT": 47,
    "SELECT_V2": 98, "SIGN": 123, "SLICE": 48, "SOFTMAX": 9, "SPLIT": 35, "SPLIT_V": 79, "SQUARE": 66,
    "SQUARED_DIFFERENCE": 76, "SQUEEZE": 30, "STRIDED_SLICE": 32, "SUB": 28, "SUM": 27, "TILE": 51, "TRANSPOSE": 26,
    "UNPACK": 64,
}  # fmt: skip
"""BuiltinOptions of each operator; one that is not here has none."""

REFUSED: dict[int, str] = {
    32: "CUSTOM", 51: "DELEGATE", 109: "WHERE", 118: "IF", 119: "WHILE", 124: "DENSIFY", 129: "CALL_ONCE",
    136: "HASHTABLE", 142: "VAR_HANDLE", 148: "RANDOM_UNIFORM",
}  # fmt: skip
"""BuiltinOperator: what is refused by name, for messages."""


# Tensors of a `.tflite`: their types, bytes and scales.


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

    def __init__(self, data: memoryview, buffers: list[Place], steps: Steps) -> None:
        self._data = data
        self._buffers = buffers
        self._steps = steps
        self._audio: set[tuple[int, Shape]] = set()

    def read(self, table: Table, number: int) -> Tensor:
        """One tensor."""
        what = f"tensor {number}"
        sizes, signature = table.integers(0), table.integers(7)
        if signature and signature != sizes:
            refuse(f"{what} has a shape that is not static: {shown([*signature])}")
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
        count = math.prod(shape)
        if not place[1] or name not in _INTEGERS or count > MAX_STEERING:
            return None

        def read() -> list[int]:
            self._steps.spend(count)  # many operators may read one
            return [int(each) for each in np.frombuffer(self._data, name, count, place[0])]

        return read

    def _check_quantization(self, table: Table | None, shape: Shape, what: str) -> None:
        if table is None or (table.at, shape) in self._audio:
            return
        scales, zeros = table.count(2, 4), table.count(3, 8)
        axis = table.scalar(6, "i")
        if scales > 1 and (not 0 <= axis < len(shape) or shape[axis] != scales):
            refuse(f"{what} has {scales} scales along the axis {axis} of {shape}")
        if zeros not in (0, 1, scales):
            refuse(f"{what} has {zeros} zero points for {scales} scales")
        if table.has(5) and table.scalar(4, "B") != BLOCKWISE:
            refuse(f"{what} has details of its quantization that no reader knows")
        self._audio.add((table.at, shape))


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
