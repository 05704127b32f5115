"""Looks at a Core ML package before Core ML, or the reference interpreter, opens it."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from edgeformer_runtime.bundle.manifest import ProgramSpec
from edgeformer_runtime.bundle.specs import TensorSpec
from edgeformer_runtime.bundle.strict_json import loads
from edgeformer_runtime.errors import BundleError
from edgeformer_runtime.model_files import Contents, IndexTrace, Shape, check_range, check_shape, refuse, shown
from edgeformer_runtime.model_files.encodings import Fields, WireReader, count_varints, one, signed, text

MODEL_FILE = "Data/com.apple.CoreML/model.mlmodel"

WEIGHTS_FILE = "Data/com.apple.CoreML/weights/weight.bin"

MANIFEST_FILE = "Manifest.json"

MAX_MANIFEST_BYTES = 1 << 16

FILES = (MANIFEST_FILE, MODEL_FILE, WEIGHTS_FILE)

PATHS = ("com.apple.CoreML/model.mlmodel", "com.apple.CoreML/weights")

# Fields of Model.proto and MIL.proto. A model of another kind than a program has another field, from 200 on.
DESCRIPTION, UPDATABLE, PROGRAM = 2, 10, 502

MODEL: Fields = {1: "int", DESCRIPTION: "bytes", UPDATABLE: "int", **dict.fromkeys(range(200, 3001), "bytes")}

MIL_PROGRAM: Fields = {1: "int", 2: "bytes", 3: "bytes", 4: "bytes"}

ENTRY: Fields = {1: "bytes", 2: "bytes"}

FUNCTION: Fields = {1: "bytes", 2: "bytes", 3: "bytes", 4: "bytes"}

NAMED_TYPE: Fields = {1: "bytes", 2: "bytes"}

BLOCK: Fields = {1: "bytes", 2: "bytes", 3: "bytes", 4: "bytes"}

OPERATION: Fields = {1: "bytes", 2: "bytes", 3: "bytes", 4: "bytes", 5: "bytes"}

ARGUMENT: Fields = {1: "bytes"}

BINDING: Fields = {1: "bytes", 2: "bytes"}

CONST = "const"

_EMPTY = memoryview(b"")


def check_coreml(files: Collection[str], read: Callable[[str], memoryview], programs: list[ProgramSpec]) -> Contents:
    """Refuse a package that breaks a rule of BUNDLE.md.

    Args:
        files: the names in the package's folder.
        read: gives a file's bytes by such a name.
        programs: those that the manifest says this package has.

    Returns:
        How often each operator occurs, and the rows of the tables that inputs index.

    Raises:
        Broken: says which rule and where.
    """
    if not {MANIFEST_FILE, MODEL_FILE} <= set(files) <= set(FILES):
        refuse(f"it has the files {shown(sorted(files))}: expected {', '.join(FILES)}")
    _check_manifest(bytes(read(MANIFEST_FILE)))
    values = ValueReader(read(WEIGHTS_FILE) if WEIGHTS_FILE in files else None)
    model = values.reader.message(read(MODEL_FILE), MODEL, "the model")
    kinds = [field for field in model if field >= 200]
    if kinds != [PROGRAM] or one(model, UPDATABLE, 0):
        refuse(f"it is updatable, or a model of the kind {shown(kinds)}: expected an mlProgram")
    functions: dict[str, _Function] = {}
    counts: Counter[str] = Counter()
    for each in values.reader.message(one(model, PROGRAM), MIL_PROGRAM, "the program").get(2, ()):
        entry = values.reader.message(each, ENTRY, "a function")
        name = text(one(entry, 1, _EMPTY), "a function")
        if name in functions:
            refuse(f"it has the function {shown(name)} twice")
        functions[name] = _Function(values, one(entry, 2, _EMPTY), f"the function {shown(name)}", counts)
    for program in programs:
        if program.entry not in functions:
            refuse(f"it has no function {shown(program.entry)}")
        functions[program.entry].compare(program)
    return Contents(counts, {program.name: functions[program.entry].rows for program in programs})


def _check_manifest(data: bytes) -> None:
    """Refuse a package whose own manifest names a file elsewhere."""
    try:
        entries = loads(data, MANIFEST_FILE, MAX_MANIFEST_BYTES)["itemInfoEntries"].values()
        paths = [entry["path"] for entry in entries]
    except (BundleError, KeyError, TypeError, AttributeError):
        refuse(f"its {MANIFEST_FILE} is none of a Core ML package")
    if not all(path in PATHS for path in paths):
        refuse(f"its {MANIFEST_FILE} names {shown(json.dumps(paths))}: expected {' and '.join(PATHS)}")


class _Function:
    """A function, whose only block runs in order."""

    def __init__(self, values: ValueReader, data: memoryview, what: str, counts: Counter[str]) -> None:
        self._read, self._what = values, what
        self._made: dict[str, Type | None] = {}
        self.inputs: list[tuple[str, Type]] = []
        message = values.reader.message(data, FUNCTION, what)
        for each in message.get(1, ()):
            name, kind = self._named(each)
            if kind is None:
                refuse(f"{what} has the input {shown(name)}, which is no tensor")
            self.inputs.append((name, kind))
            self._make(name, kind)
        self._trace = IndexTrace(name for name, _ in self.inputs)
        blocks = message.get(3, ())
        if len(blocks) != 1:
            refuse(f"{what} has {len(blocks)} blocks")
        entry = values.reader.message(blocks[0], ENTRY, what)
        if one(entry, 1, _EMPTY) != one(message, 2, _EMPTY):
            refuse(f"{what} has no block of its opset")
        block = values.reader.message(one(entry, 2, _EMPTY), BLOCK, what)
        for each in block.get(3, ()):
            self._run(each, counts)
        self.rows = self._trace.rows({name: name for name, _ in self.inputs})
        self.outputs = [text(each, what) for each in block.get(2, ())]
        for name in self.outputs:
            if self._made.get(name) is None:
                refuse(f"{what} has the output {shown(name)}, which is made by none of its operators, or no tensor")

    def _named(self, data: memoryview) -> tuple[str, Type | None]:
        message = self._read.reader.message(data, NAMED_TYPE, self._what)
        name = text(one(message, 1, _EMPTY), self._what)
        return name, self._read.type(one(message, 2, _EMPTY), f"the value {shown(name)}")

    def _make(self, name: str, kind: Type | None) -> None:
        if not name or name in self._made:
            refuse(f"{self._what} makes {shown(name)} twice")
        self._made[name] = kind

    def _run(self, data: memoryview, counts: Counter[str]) -> None:
        reader = self._read.reader
        message = reader.message(data, OPERATION, self._what)
        operator = text(one(message, 1, _EMPTY), self._what)
        what = f"{self._what}: the operator {shown(operator)}"
        if message.get(4):
            refuse(f"{what} runs other blocks")
        operands: dict[str, str] = {}
        for each in message.get(2, ()):
            entry = reader.message(each, ENTRY, what)
            for binding in reader.message(one(entry, 2, _EMPTY), ARGUMENT, what).get(1, ()):
                name = self._operand(reader.message(binding, BINDING, what), what)
                operands[text(one(entry, 1, _EMPTY), what)] = name
        for each in message.get(5, ()):
            self._read.value(one(reader.message(each, ENTRY, what), 2, _EMPTY), f"a constant of {what}")
        constant = operator == CONST
        if not constant:
            counts[operator] += 1
            if operator not in OPERATORS:
                refuse(f"{what} is none that a reader knows: see BUNDLE.md")
        for each in message.get(3, ()):
            if constant:
                named = reader.message(each, NAMED_TYPE, what)
                kind = self._read.type(one(named, 2, _EMPTY), what, computed=False)
                self._make(text(one(named, 1, _EMPTY), what), kind)
            else:
                name, kind = self._named(each)
                self._make(name, kind)
                self._follow(operator, operands, name, kind)

    def _operand(self, binding: dict[int, list[memoryview]], what: str) -> str:
        """The name of what is read; empty: a constant that stands here."""
        if 2 in binding:
            self._read.value(one(binding, 2), f"an operand of {what}")
            return ""
        name = text(one(binding, 1, _EMPTY), what)
        if name not in self._made:
            refuse(f"{what} reads {shown(name)}, which nothing before it makes")
        return name

    def _follow(self, operator: str, operands: dict[str, str], result: str, kind: Type | None) -> None:
        """Where the numbers of inputs go. Core ML may read beyond a table whose row is not there."""
        if operator in MOVES:
            self._trace.move(operands.get("x", ""), [result])
        if operator == SELECT:  # as coremltools writes an index: itself from 0 on, else counted from the end
            self._trace.move(operands.get("a", ""), [result])
        table, indices = (self._made.get(operands.get(key, "")) for key in ("x", "indices"))
        if operator != GATHER or table is None or indices is None or kind is None:
            return
        for axis, rows in enumerate(table.shape):  # which one is a constant; the declared result says it, too
            if (*table.shape[:axis], *indices.shape, *table.shape[axis + 1 :]) == kind.shape:
                self._trace.index(operands["indices"], rows)
                return

    def compare(self, program: ProgramSpec) -> None:
        """Refuse other inputs or outputs than the manifest states; states are none of them."""
        given = [(name, kind) for name, kind in self.inputs if not kind.is_state]
        made = [(name, self._made[name]) for name in self.outputs]
        for declared, found in ((program.inputs, given), (program.outputs, made)):
            if not _alike(declared, found):
                refuse(f"{self._what} has other inputs or outputs than the manifest declares")


def _alike(declared: tuple[TensorSpec, ...], found: list[tuple[str, Type]] | list[tuple[str, Type | None]]) -> bool:
    stated = {spec.name: (spec.dtype, spec.shape) for spec in declared}
    listed = {name: (TYPES[kind.dtype][0], kind.shape) for name, kind in found if kind is not None}
    return len(found) == len(stated) and stated == listed


OPERATORS: frozenset[str] = frozenset({
    "abs", "acos", "add", "asin", "atan", "atanh", "avg_pool", "batch_norm", "cast", "ceil", "clip", "concat",
    "constexpr_affine_dequantize", "constexpr_blockwise_shift_scale", "constexpr_cast", "constexpr_lut_to_dense",
    "conv", "coreml_update_state", "cos", "cosh", "cumsum", "depth_to_space", "dequantize", "einsum", "elu",
    "equal", "erf", "exp", "exp2", "expand_dims", "fill", "floor", "floor_div", "gather", "gather_along_axis",
    "gather_nd", "gelu", "greater", "greater_equal", "identity", "instance_norm", "inverse", "l2_norm",
    "layer_norm", "leaky_relu", "less", "less_equal", "linear", "linear_activation", "log", "logical_and",
    "logical_not", "logical_or", "logical_xor", "matmul", "max_pool", "maximum", "minimum", "mod", "mul",
    "not_equal", "one_hot", "pad", "pixel_shuffle", "pixel_unshuffle", "pow", "prelu", "quantize", "read_state",
    "real_div", "reduce_argmax", "reduce_argmin", "reduce_l1_norm", "reduce_l2_norm", "reduce_log_sum",
    "reduce_log_sum_exp", "reduce_max", "reduce_mean", "reduce_min", "reduce_prod", "reduce_sum",
    "reduce_sum_square", "relu", "relu6", "reshape", "resize_bilinear", "resize_nearest_neighbor", "reverse",
    "round", "rsqrt", "scaled_dot_product_attention", "scaled_tanh", "scatter", "scatter_along_axis",
    "scatter_nd", "select", "sigmoid", "sigmoid_hard", "sign", "silu", "sin", "sinh", "slice_by_index",
    "slice_by_size", "slice_update", "softmax", "softplus", "softsign", "space_to_depth", "split", "sqrt",
    "square", "squeeze", "stack", "sub", "tan", "tanh", "threshold", "tile", "transpose", "upsample_bilinear",
    "upsample_nearest_neighbor", "write_state",
})  # fmt: skip

GATHER, SELECT = "gather", "select"

MOVES = frozenset({
    "cast", "expand_dims", "identity", "reshape", "slice_by_index", "slice_by_size", "squeeze", "tile",
    "transpose",
})  # fmt: skip
"""The result's numbers are those of `x`."""

# Types and constants of MIL, the program inside a Core ML package, and the file of weights beside it.


VALUE_TYPE: Fields = {1: "bytes", 2: "bytes", 3: "bytes", 4: "bytes", 5: "bytes"}

TENSOR, LIST, STATE = 1, 2, 5

TENSOR_TYPE: Fields = {1: "int", 2: "int", 3: "bytes", 4: "bytes"}

DIMENSION: Fields = {1: "bytes", 2: "bytes"}

CONSTANT_SIZE: Fields = {1: "int"}

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

# Sentinel, data type, size and offset of the data, which starts a weight's 64 bytes of metadata.
_METADATA = struct.Struct("<IIQQ")

_METADATA_BYTES = 64

_SENTINEL = 0xDEADBEEF

WEIGHTS = "@model_path/weights/weight.bin"


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
        self._types: dict[tuple[bytes, bool], Type | None] = {}

    def type(self, data: memoryview, what: str, computed: bool = True) -> Type | None:
        """A tensor's type, or a state's; None: a list, or a text."""
        key = (bytes(data), computed)
        if key not in self._types:  # many values have one type
            self._types[key] = self._type(data, what, computed)
        return self._types[key]

    def _type(self, data: memoryview, what: str, computed: bool, is_state: bool = False) -> Type | None:
        message = self.reader.message(data, VALUE_TYPE, what)
        if len(message) != 1:
            refuse(f"{what} has {len(message)} types")
        if TENSOR in message:
            return self._tensor_type(one(message, TENSOR), what, computed)
        if is_state:
            refuse(f"{what} is a state of no tensor")
        if STATE in message:
            wrapped = one(self.reader.message(one(message, STATE), {1: "bytes"}, what), 1, _EMPTY)
            inner = self._type(wrapped, what, computed=True, is_state=True)
            if inner is None:
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
