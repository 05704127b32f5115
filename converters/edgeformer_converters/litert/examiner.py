"""How doctor looks into a `.tflite`: graph, operators' versions, XNNPACK's partitions and values' ranges."""

from __future__ import annotations

import math
import mmap
import struct
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from edgeformer.doctor.examiner import (
    Array,
    ModelView,
    Node,
    Observe,
    Partitioning,
    Placement,
    Program,
    Support,
    Tap,
    Value,
    Version,
    count_operators,
    older,
    parse_version,
    show,
)
from edgeformer.foreign_code import quiet_tools
from edgeformer_converters.litert.graph import LEAST_BYTES, LiteRTGraph
from edgeformer_converters.observe import ObservedEngine, numbers
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import ProgramSpec
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.engines import Engine, Tensor
from edgeformer_runtime.engines.litert import check_model
from edgeformer_runtime.errors import BundleError, EngineError
from edgeformer_runtime.process import held_back

# XNNPACK reads weights in vectors of 16 bytes where they lie; small constants are read number by number.
ALIGNMENT_BYTES, SMALL_ALIGNMENT_BYTES = 16, 4
# Sizes of types in bits; what is not here (strings, resources) has no fixed size.
BITS = {
    "FLOAT32": 32, "FLOAT16": 16, "BFLOAT16": 16, "FLOAT64": 64, "INT2": 2, "INT4": 4, "UINT4": 4, "INT8": 8,
    "UINT8": 8, "INT16": 16, "UINT16": 16, "INT32": 32, "UINT32": 32, "INT64": 64, "UINT64": 64, "BOOL": 8,
}  # fmt: skip
DELEGATE = "DELEGATE"


class LiteRTExaminer:
    """`.tflite` files, read where they lie."""

    runtime_name = "LiteRT"
    without_vnni: str | None = "XNNPACK's sums stay exact there, and gain less over fp32 than with VNNI"
    package: str | None = "ai-edge-litert"

    def read(self, bundle: Bundle) -> ModelView:
        """Every signature that the manifest names; see `Examiner`."""
        files: dict[str, _File] = {}
        used: Counter[tuple[str, int | None]] = Counter()
        try:
            for name in sorted({each.file for each in bundle.manifest.programs}):
                files[name] = _File(name, bundle.path(name))
                used.update(files[name].operators())
            programs = tuple(files[each.file].program(each) for each in bundle.manifest.programs)
            placements = tuple(placement for file in files.values() for placement in file.placements())
        except (struct.error, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
            # The flatbuffers library follows whatever offsets the file has.
            raise BundleError(f"no .tflite file that can be read: {shorten(str(error), 200)[1:-1]}") from None
        return ModelView(programs, count_operators(used), placements, {}, files)

    def support(self, view: ModelView, runtime: str) -> tuple[Support, ...]:
        """By the table of `litert_versions`."""
        found = []
        for operator in view.operators:
            oldest = oldest_runtime(operator.name, operator.version or 1)
            # An unknown operator must not hide that the version is none.
            supported = None if oldest is None else oldest.in_runtime(runtime)
            found.append(Support(operator, None if oldest is None else str(oldest), supported))
        return tuple(found)

    def partitions(self, bundle: Bundle, view: ModelView) -> tuple[Partitioning, ...]:
        """What XNNPACK takes when the installed LiteRT opens each graph alone; graphs of equal operators are alike."""
        found: list[Partitioning] = []
        known: dict[tuple[str, ...], tuple[int, Counter[str]]] = {}
        graphs: dict[str, LiteRTGraph] = {}
        for file in view.foreign:
            with held_back():
                check_model(bundle.path(file), file)
        with quiet_tools():
            for spec, program in zip(bundle.manifest.programs, view.programs, strict=True):
                operators = tuple(node.operator for node in program.nodes)
                if operators not in known:
                    graph = graphs.setdefault(spec.file, LiteRTGraph(bundle.path(spec.file)))
                    known[operators] = _delegated(graph.alone(view.foreign[spec.file].subgraph(spec.entry)))
                found.append(Partitioning(program.name, "XNNPACK", *known[operators]))
        return tuple(found)

    def computes_in_half(self, precision: str) -> bool:  # noqa: ARG002
        """Never on a CPU: float16 weights are widened. A GPU computes in float16 whatever the precision is."""
        return False

    def observed(self, bundle: Bundle, view: ModelView, observe: Observe) -> Engine:
        """LiteRT's interpreter without a delegate, which keeps every value; one program at a time is open."""
        return _Observed(bundle, view, numbers(observe))

    def tapped(self, bundle: Bundle, view: ModelView, tap: Tap, sizes: Collection[int]) -> Engine:
        """As `observed`."""
        return _Observed(bundle, view, tap, sizes)


class _File:
    """The flatbuffer of one file; nothing is copied but what is asked for."""

    def __init__(self, name: str, path: Path) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._name = name
        self._schema: Any = schema
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if self._bytes[4:8] != b"TFL3":
            raise BundleError(f"{name}: no .tflite file: expected TFL3 at its start, found {self._bytes[4:8]!r}")
        self._model: Any = schema.Model.GetRootAs(self._bytes, 0)
        self._types = {code: type_name for type_name, code in vars(schema.TensorType).items() if isinstance(code, int)}
        names = {code: each for each, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
        codes = [self._model.OperatorCodes(index) for index in range(self._model.OperatorCodesLength())]
        self._codes = [
            (names.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "unknown"), int(code.Version()))
            for code in codes
        ]
        self._signatures = {
            signature.SignatureKey().decode(): signature
            for signature in map(self._model.SignatureDefs, range(self._model.SignatureDefsLength()))
        }

    def subgraph(self, entry: str) -> int:
        """The index of a signature's graph."""
        if entry not in self._signatures:
            found = ", ".join(self._signatures) or "none"
            raise BundleError(f"{self._name} has no signature {entry!r}: found {found}")
        return int(self._signatures[entry].SubgraphIndex())

    def operators(self) -> Iterator[tuple[str, int | None]]:
        """Name and version of each operator of each graph."""
        for graph in map(self._model.Subgraphs, range(self._model.SubgraphsLength())):
            for index in range(graph.OperatorsLength()):
                yield self._codes[graph.Operators(index).OpcodeIndex()]

    def program(self, spec: ProgramSpec) -> Program:
        """A signature's graph; its values' keys are the numbers of its tensors."""
        graph = self._model.Subgraphs(self.subgraph(spec.entry))
        signature = self._signatures[spec.entry]
        names = {
            int(each.TensorIndex()): each.Name().decode()
            for each in (
                *map(signature.Inputs, range(signature.InputsLength())),
                *map(signature.Outputs, range(signature.OutputsLength())),
            )
        }
        values = {
            str(index): self._value(graph.Tensors(index), names.get(index)) for index in range(graph.TensorsLength())
        }
        nodes = []
        for index in range(graph.OperatorsLength()):
            operator = graph.Operators(index)
            name = self._codes[operator.OpcodeIndex()][0]
            nodes.append(
                Node(name, f"{name} number {index}", _keys(operator.InputsAsNumpy()), _keys(operator.OutputsAsNumpy()))
            )
        return Program(spec.name, tuple(nodes), values, _keys(graph.InputsAsNumpy()), _keys(graph.OutputsAsNumpy()))

    def placements(self) -> Iterator[Placement]:
        """Where each buffer that has content lies."""
        for index in range(self._model.BuffersLength()):
            offset, size = self._place(index)
            if size:
                alignment = SMALL_ALIGNMENT_BYTES if size < LEAST_BYTES else ALIGNMENT_BYTES
                yield Placement(self._name, f"buffer {index}", offset, size, alignment)

    def _place(self, index: int) -> tuple[int, int]:
        """Offset and size of a buffer: inside the flatbuffer, or behind it."""
        buffer = self._model.Buffers(index)
        if buffer.DataLength():
            return int(buffer._tab.Vector(buffer._tab.Offset(4))), int(buffer.DataLength())
        # An offset of 1 or 0 says that there is nothing behind the flatbuffer.
        return (int(buffer.Offset()), int(buffer.Size())) if buffer.Offset() > 1 else (0, 0)

    def _value(self, tensor: Any, name: str | None) -> Value:
        type_name = self._types[tensor.Type()]
        shape = tuple(map(int, tensor.ShapeAsNumpy())) if tensor.ShapeLength() else ()
        label = name or (tensor.Name() or b"").decode()
        size_bytes = -(-int(np.prod(shape)) * BITS.get(type_name, 0) // 8)
        dtype = type_name.lower()
        offset, stored_bytes = self._place(tensor.Buffer())
        if stored_bytes and (offset + stored_bytes > len(self._bytes) or size_bytes not in (0, stored_bytes)):
            raise BundleError(f"{self._name}: the tensor {label} of shape {shape} has {stored_bytes} bytes at {offset}")
        constant = partial(self._read, tensor, dtype) if stored_bytes else None
        return Value(label, dtype, shape, size_bytes, constant)

    def _read(self, tensor: Any, dtype: str) -> Array:
        offset, size = self._place(tensor.Buffer())
        if dtype not in ("float32", "float16", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"):
            return np.zeros(0, np.float32)
        stored = np.frombuffer(self._bytes, dtype, size // np.dtype(dtype).itemsize, offset)
        return _dequantized(
            stored.reshape(tensor.ShapeAsNumpy() if tensor.ShapeLength() else ()), tensor.Quantization()
        )


def _dequantized(stored: Array, quantization: Any) -> Array:
    """The numbers that quantized integers stand for; others as they are."""
    if quantization is None or not quantization.ScaleLength():
        return stored
    scale, zero = quantization.ScaleAsNumpy(), quantization.ZeroPointAsNumpy()
    if scale.size > 1:
        axis = [1] * stored.ndim
        axis[quantization.QuantizedDimension()] = -1
        scale, zero = scale.reshape(axis), zero.reshape(axis)
    return np.asarray((stored.astype(np.float32) - zero) * scale, np.float32)


def _keys(indices: Any) -> tuple[str, ...]:
    """Tensor numbers as keys; -1 is an absent operand, and 0 stands for an empty list."""
    return () if isinstance(indices, int) else tuple(str(index) for index in indices if index >= 0)


def _delegated(content: bytearray) -> tuple[int, Counter[str]]:
    """How many partitions XNNPACK takes of a model's only graph, and what it leaves."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter = Interpreter(model_content=bytes(content), num_threads=1)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise EngineError(f"LiteRT cannot open the model: {shorten(str(error), 200)[1:-1]}") from error
    details = interpreter._get_ops_details()
    # The delegate's nodes stand behind those that they replace.
    pieces = [node for node in details if node["op_name"] == DELEGATE]
    producers = {int(key): node for node in details if node["op_name"] != DELEGATE for key in node["outputs"]}
    inside: set[int] = set()
    for piece in pieces:
        border = set(map(int, piece["inputs"]))
        wanted = [int(key) for key in piece["outputs"]]
        while wanted:
            key = wanted.pop()
            if key in producers and key not in border and producers[key]["index"] not in inside:
                inside.add(producers[key]["index"])
                wanted += map(int, producers[key]["inputs"])
    outside = Counter(
        node["op_name"] for node in details if node["op_name"] != DELEGATE and node["index"] not in inside
    )
    return len(pieces), outside


class _Observed(ObservedEngine):
    """An interpreter per program; only the latest one is kept, for each holds every value of its program."""

    def __init__(self, bundle: Bundle, view: ModelView, tap: Tap, sizes: Collection[int] | None = None) -> None:
        super().__init__(bundle.manifest.programs, tap, sizes)
        self._view = {program.name: program for program in view.programs}
        self._graphs = {
            name: LiteRTGraph(bundle.path(name)) for name in sorted({spec.file for spec in bundle.manifest.programs})
        }
        self._indices = {spec.name: view.foreign[spec.file].subgraph(spec.entry) for spec in bundle.manifest.programs}
        self._open: tuple[str, Any] = ("", None)

    def _execute(self, program: ProgramSpec, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        with quiet_tools():
            if self._open[0] != program.name:
                self._open = ("", None)
                self._open = (program.name, self._interpreter(program))
            interpreter = self._open[1]
            view = self._view[program.name]
            keys = {value.label: int(key) for key, value in view.values.items()}
            for name, array in inputs.items():
                interpreter.set_tensor(keys[name], array)
            interpreter.invoke()
        for node in view.nodes:
            for key in node.outputs:
                value = view.values[key]
                if value.is_float and self.wants(math.prod(value.shape)):
                    self.tap(program.name, node.label, interpreter.get_tensor(int(key)))
        return {spec.name: interpreter.get_tensor(keys[spec.name]) for spec in program.outputs}

    def _interpreter(self, program: ProgramSpec) -> Any:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        interpreter = Interpreter(
            model_content=bytes(self._graphs[program.file].alone(self._indices[program.name])),
            num_threads=1,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
        interpreter.allocate_tensors()
        return interpreter

    def _release(self) -> None:
        self._open = ("", None)


EXAMINER = LiteRTExaminer()


# The oldest LiteRT, and TensorFlow Lite before it, that has each version of each builtin operator.
#
# Facts from google-ai-edge/LiteRT: `runtime_version.cc` (operator versions of TensorFlow Lite) and the versions that
# `register.cc` lists at each release from v2.0.2 to v2.2.0. LiteRT 1.0 is TensorFlow Lite 2.17.


LAST_TFLITE: Version = (2, 17)
FIRST_LITERT: Version = (1, 0)
TFLITE_PREFIX = "tflite-"


@dataclass(frozen=True)
class Oldest:
    """The oldest releases that have an operator's version.

    Attributes:
        tflite: of TensorFlow Lite; None: the facts name none.
        litert: of LiteRT, where releases between 1.0 and 2.0.2 count as 1.0; None: no release is known to have it.
    """

    tflite: Version | None
    litert: Version | None

    def __str__(self) -> str:
        names = [f"TensorFlow Lite {show(self.tflite)}"] if self.tflite else []
        return ", ".join([*names, *([f"LiteRT {show(self.litert)}"] if self.litert else [])])

    def in_runtime(self, runtime: str) -> bool | None:
        """Whether a runtime, "2.1.0" of LiteRT or "tflite-2.14.0", has it; None: not known.

        Raises:
            InputError: `runtime` is no version.
        """
        if runtime.startswith(TFLITE_PREFIX):
            version = parse_version(runtime.removeprefix(TFLITE_PREFIX), "--runtime tflite-")
            return None if self.tflite is None else not older(version, self.tflite)
        version = parse_version(runtime, "--runtime")
        return None if self.litert is None else not older(version, self.litert)


def oldest_runtime(operator: str, version: int) -> Oldest | None:
    """The oldest runtimes that have a version of a builtin operator; None: the table does not know it."""
    versions = _table().get(operator, ())
    return versions[version - 1] if 0 < version <= len(versions) else None


def _entry(text: str) -> Oldest | None:
    """`2.11` is TensorFlow Lite and so LiteRT 1.0; `2.21/2.1` is TensorFlow Lite 2.21 and LiteRT 2.1."""
    if text == "-":
        return None
    tflite, _, litert = text.partition("/")
    oldest = parse_version(tflite, "table")
    if litert:
        return Oldest(oldest, parse_version(litert, "table"))
    return Oldest(oldest, None if older(LAST_TFLITE, oldest) else FIRST_LITERT)


@cache
def _table() -> dict[str, tuple[Oldest | None, ...]]:
    """By operator the oldest runtime of its version 1, 2, 3, ..."""
    rows = Path(__file__).with_name("operator_versions.txt").read_text(encoding="utf-8").splitlines()
    return {name: tuple(map(_entry, versions)) for name, *versions in map(str.split, rows)}
