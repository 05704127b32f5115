"""Looks at a Core ML package before Core ML, or the reference interpreter, opens it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection

from edgeformer_runtime.bundle.manifest import ProgramSpec
from edgeformer_runtime.bundle.specs import TensorSpec
from edgeformer_runtime.bundle.strict_json import loads
from edgeformer_runtime.errors import BundleError
from edgeformer_runtime.model_files.coreml_values import TYPES, Type, ValueReader
from edgeformer_runtime.model_files.refusal import refuse, shown
from edgeformer_runtime.model_files.wire import Fields, one, text

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


def check_coreml(
    files: Collection[str], read: Callable[[str], memoryview], programs: list[ProgramSpec]
) -> Counter[str]:
    """Refuse a package that breaks a rule of BUNDLE.md.

    Args:
        files: the names in the package's folder.
        read: gives a file's bytes by such a name.
        programs: those that the manifest says this package has.

    Returns:
        How often each operator occurs.

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
    return counts


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
        blocks = message.get(3, ())
        if len(blocks) != 1:
            refuse(f"{what} has {len(blocks)} blocks")
        entry = values.reader.message(blocks[0], ENTRY, what)
        if one(entry, 1, _EMPTY) != one(message, 2, _EMPTY):
            refuse(f"{what} has no block of its opset")
        block = values.reader.message(one(entry, 2, _EMPTY), BLOCK, what)
        for each in block.get(3, ()):
            self._run(each, counts)
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
        for each in message.get(2, ()):
            entry = reader.message(each, ENTRY, what)
            for binding in reader.message(one(entry, 2, _EMPTY), ARGUMENT, what).get(1, ()):
                self._operand(reader.message(binding, BINDING, what), what)
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
                self._make(*self._named(each))

    def _operand(self, binding: dict[int, list[memoryview]], what: str) -> None:
        if 2 in binding:
            self._read.value(one(binding, 2), f"an operand of {what}")
        elif text(one(binding, 1, _EMPTY), what) not in self._made:
            refuse(f"{what} reads {shown(text(one(binding, 1, _EMPTY), what))}, which nothing before it makes")

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


# The operators of Core ML's MIL that a reader knows: none runs another block, none has results of unknown size.


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
    "reduce_sum_square", "relu", "relu6", "reshape", "reverse", "round", "rsqrt", "scaled_dot_product_attention",
    "scaled_tanh", "scatter", "scatter_along_axis", "scatter_nd", "select", "sigmoid", "sigmoid_hard", "sign",
    "silu", "sin", "sinh", "slice_by_index", "slice_by_size", "slice_update", "softmax", "softplus", "softsign",
    "space_to_depth", "split", "sqrt", "square", "squeeze", "stack", "sub", "tan", "tanh", "threshold", "tile",
    "transpose", "write_state",
})  # fmt: skip
