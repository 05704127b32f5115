"""How doctor looks into a `.pte`: methods, kernels, what XNNPACK was given, memory plans and segments."""

from __future__ import annotations

import json
import mmap
import re
from collections import Counter
from collections.abc import Collection, Iterator
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
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
    count_operators,
    parse_version,
    show,
)
from edgeformer.foreign_code import quiet_tools
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.engines import Engine
from edgeformer_runtime.errors import BundleError, EngineError

XNNPACK = "XnnpackBackend"
# XNNPACK reads weights in vectors of 16 bytes where they lie; ExecuTorch's writer aligns to as much.
ALIGNMENT_BYTES = 16
NO_ID = 0xFFFFFFFF
# Of exir.scalar_type.ScalarType; what is not here is not computed with.
DTYPES = {
    0: "uint8",
    1: "int8",
    2: "int16",
    3: "int32",
    4: "int64",
    5: "float16",
    6: "float32",
    7: "float64",
    11: "bool",
}
XNN_DTYPES = {
    "xnn_datatype_fp32": "float32", "xnn_datatype_fp16": "float16", "xnn_datatype_qint8": "int8",
    "xnn_datatype_quint8": "uint8", "xnn_datatype_qint32": "int32", "xnn_datatype_qcint8": "int8",
    "xnn_datatype_qcint32": "int32", "xnn_datatype_qdint8": "int8", "xnn_datatype_int32": "int32",
}  # fmt: skip
VIEW = "view"
# The memory that methods share; what lies there outlives a call.
STATE_MEMORY_ID = 2


class ExecuTorchExaminer:
    """`.pte` files, with the graphs that XNNPACK got in them."""

    runtime_name = "ExecuTorch"
    without_vnni: str | None = "XNNPACK's sums stay exact there, and gain less over fp32 than with VNNI"
    package: str | None = "executorch"

    def read(self, bundle: Bundle) -> ModelView:
        """A method per program; see `Examiner`."""
        files: dict[str, _File] = {}
        for name in sorted({spec.file for spec in bundle.manifest.programs}):
            try:
                with quiet_tools():
                    files[name] = _File(name, bundle.path(name))
            except BundleError:
                raise
            except ImportError as error:
                raise EngineError(
                    f"examining an executorch bundle needs {error.name}: pip install 'edgeformer[executorch]'"
                ) from None
            except Exception as error:  # struct's and flatbuffers' errors share no base class
                raise BundleError(f"{name}: no .pte file: {' '.join(str(error).split())[:200]}") from None
        with quiet_tools():
            programs = tuple(files[spec.file].program(spec.name, spec.entry) for spec in bundle.manifest.programs)
        used: Counter[tuple[str, int | None]] = Counter()
        for file in files.values():
            used.update((name, None) for name in file.called())
        placements = tuple(placement for file in files.values() for placement in file.placements())
        return ModelView(programs, count_operators(used), placements, {}, files)

    def support(self, view: ModelView, runtime: str) -> tuple[Support, ...]:
        """By the kernels and delegates that the installed runtime registers; of other versions nothing is known."""
        try:
            installed = version("executorch")
        except PackageNotFoundError:
            installed = ""
        wanted = parse_version(runtime, "--runtime")
        same = bool(installed) and parse_version(installed, "executorch") == wanted
        known = _registered() if same else set()
        found = []
        for each in view.operators:
            # An operator without an overload is registered without the dot that would separate it.
            has = each.name.rstrip(".") in known
            found.append(Support(each, f"ExecuTorch {show(wanted)}" if has else None, has if same else None))
        return tuple(found)

    def partitions(self, bundle: Bundle, view: ModelView) -> tuple[Partitioning, ...]:  # noqa: ARG002
        """As the file has it: lowering has divided each method already."""
        return tuple(
            Partitioning(
                program.name,
                "XNNPACK",
                len({node.piece for node in program.nodes if node.piece is not None}),
                Counter(node.operator for node in program.nodes if node.piece is None and node.operator != VIEW),
            )
            for program in view.programs
        )

    def computes_in_half(self, precision: str) -> bool:
        """At fp16, from the first to the last operator."""
        return precision == "fp16"

    def observed(self, bundle: Bundle, view: ModelView, observe: Observe) -> Engine | None:  # noqa: ARG002
        """None: what a delegate computes on the way cannot be seen from outside."""
        return None

    def tapped(self, bundle: Bundle, view: ModelView, tap: Tap, sizes: Collection[int]) -> Engine | None:  # noqa: ARG002
        """As `observed`."""
        return None


def _registered() -> set[str]:
    """The kernels and delegates of the installed runtime."""
    with quiet_tools():
        import executorch.kernels.quantized  # noqa: F401 - registers its kernels
        from executorch.extension.pybindings import portable_lib

        return {*portable_lib._get_operator_names(), *portable_lib._get_registered_backend_names()}


class _File:
    """One `.pte`: a flatbuffer with the program, and segments behind it with weights and delegates' data."""

    def __init__(self, name: str, path: Path) -> None:
        from executorch.exir._serialize._program import _flatbuffer_to_program, _get_extended_header

        self._name = name
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if self._bytes[4:6] != b"ET":
            raise BundleError(f"{name}: no .pte file: expected ET at byte 4, found {self._bytes[4:6]!r}")
        header = _get_extended_header(self._bytes[:64])
        if header is None or not header.is_valid():
            raise BundleError(f"{name}: a .pte without segments is not supported: convert the bundle again")
        self._base = int(header.segment_base_offset)
        self.content: Any = _flatbuffer_to_program(self._bytes[: header.program_size])
        ends = [self._base + int(each.offset) + int(each.size) for each in self.content.segments]
        if max(ends, default=0) > len(self._bytes):
            raise BundleError(f"{name}: its last segment ends at byte {max(ends)}, the file at {len(self._bytes)}")
        self._named = {each.key: each.segment_index for each in self.content.named_data or []}

    def called(self) -> Iterator[str]:
        """The name of each kernel and delegate that an instruction calls, over all methods."""
        for plan in self.content.execution_plan:
            for call in _calls(plan):
                if hasattr(call, "op_index"):
                    operator = plan.operators[call.op_index]
                    yield f"{operator.name}.{operator.overload}"
                elif hasattr(call, "delegate_index"):
                    yield plan.delegates[call.delegate_index].id

    def placements(self) -> Iterator[Placement]:
        """Where each segment lies."""
        for number, segment in enumerate(self.content.segments):
            if segment.size:
                offset = self._base + int(segment.offset)
                yield Placement(self._name, f"segment {number}", offset, int(segment.size), ALIGNMENT_BYTES)

    def program(self, name: str, entry: str) -> Program:
        """A method; its values' keys are the numbers of the method's values, and inside a delegate its own as well."""
        plans = {plan.name: plan for plan in self.content.execution_plan}
        if entry not in plans:
            raise BundleError(f"{self._name} has no method {entry!r}: found {', '.join(plans)}")
        plan = plans[entry]
        values = {
            str(index): value
            for index, each in enumerate(plan.values)
            if (value := self._value(str(index), each.val)) is not None
        }
        nodes: list[Node] = []
        pieces = 0
        for number, call in enumerate(_calls(plan)):
            if hasattr(call, "op_index"):
                operator = plan.operators[call.op_index]
                operator_name = f"{operator.name}.{operator.overload}"
                nodes.append(_kernel(plan, call.args, operator_name, f"{operator.name} number {number}", values))
            elif hasattr(call, "delegate_index"):
                delegate = plan.delegates[call.delegate_index]
                outer = tuple(str(index) for index in call.args)
                nodes += self._delegated(delegate, outer, pieces, values)
                pieces += 1
        state = [
            str(index)
            for index, each in enumerate(plan.values)
            if getattr(getattr(each.val, "allocation_info", None), "memory_id", 0) >= STATE_MEMORY_ID
        ]
        inputs = tuple(dict.fromkeys((*map(str, plan.inputs), *state)))
        outputs = tuple(str(index) for index in plan.outputs if str(index) in values)
        places = {str(index): _place(each.val) for index, each in enumerate(plan.values)}
        ordered = tuple(_with_views(nodes, {*inputs}, values, places))
        return Program(name, ordered, values, inputs, outputs, int(sum(plan.non_const_buffer_sizes)))

    def _value(self, label: str, value: Any) -> Value | None:
        """A tensor, or a floating-point argument; None for what carries no data."""
        kind = type(value).__name__
        if kind == "Double":
            number = float(value.double_val)
            return Value(label, "float64", (), 0, lambda: np.asarray(number))
        if kind != "Tensor":
            return None
        dtype = DTYPES.get(int(value.scalar_type), "unknown")
        shape = tuple(map(int, value.sizes))
        size = int(np.prod(shape)) * (np.dtype(dtype).itemsize if dtype != "unknown" else 0)
        stored = value.data_buffer_idx and value.allocation_info is None
        return Value(label, dtype, shape, size, partial(self._constant, value, dtype, shape) if stored else None)

    def _constant(self, value: Any, dtype: str, shape: tuple[int, ...]) -> Array:
        where = self.content.constant_segment
        if dtype == "unknown":
            return np.zeros(0, np.float32)
        offset = self._base + self.content.segments[where.segment_index].offset + where.offsets[value.data_buffer_idx]
        return np.frombuffer(self._bytes, dtype, int(np.prod(shape)), offset).reshape(shape)

    def _delegated(self, delegate: Any, outer: tuple[str, ...], piece: int, values: dict[str, Value]) -> Iterator[Node]:
        """A delegate's nodes: XNNPACK's one by one, of another it is one node that makes its last operand."""
        segment = self.content.segments[delegate.processed.index]
        start = self._base + int(segment.offset)
        if delegate.id != XNNPACK or int(delegate.processed.location) != 1:
            yield Node(delegate.id, f"{delegate.id} {piece}", outer[:-1], outer[-1:], piece)
            return
        graph = _XnnpackGraph(self._bytes[start : start + int(segment.size)], self._named_data)
        keys = {}
        for tensor in graph.tensors:
            external = tensor["external_id"]
            if external != NO_ID:
                keys[tensor["id_out"]] = outer[external]
            else:
                keys[tensor["id_out"]] = key = f"{piece}/{tensor['id_out']}"
                values[key] = graph.value(key, tensor)
        for number, (operator, inputs, outputs) in enumerate(graph.nodes()):
            yield Node(
                operator,
                f"{operator} number {number} of piece {piece}",
                tuple(keys[each] for each in inputs),
                tuple(keys[each] for each in outputs),
                piece,
            )

    def _named_data(self, key: str) -> bytes:
        if key not in self._named:
            raise BundleError(f"{self._name}: XNNPACK's weights {key[:16]} are not in the file")
        segment = self.content.segments[self._named[key]]
        start = self._base + int(segment.offset)
        return self._bytes[start : start + int(segment.size)]


def _calls(plan: Any) -> Iterator[Any]:
    return (instruction.instr_args for chain in plan.chains for instruction in chain.instructions)


def _kernel(plan: Any, args: list[int], operator: str, label: str, values: dict[str, Value]) -> Node:
    """A kernel's call. What it returns is listed last, a list of tensors where there are several, and before that as an
    operand to write to.
    """
    returned = plan.values[args[-1]].val
    outputs = [str(index) for index in getattr(returned, "items", [args[-1]])]
    lists = [getattr(plan.values[index].val, "items", [index]) for index in args[:-1]]
    inputs = [str(index) for each in lists if isinstance(each, list) for index in each]
    in_place = operator.split(".")[0].endswith("_")
    kept = [key for key in inputs if key in values and (in_place or key not in outputs)]
    return Node(operator, label, tuple(kept), tuple(key for key in outputs if key in values))


def _place(value: Any) -> tuple[int, int] | None:
    """The memory and the offset in it that are planned for a value; None: none is."""
    info = getattr(value, "allocation_info", None)
    return None if info is None else (int(info.memory_id), int(info.memory_offset))


def _with_views(
    nodes: list[Node], made: set[str], values: dict[str, Value], places: dict[str, tuple[int, int] | None]
) -> Iterator[Node]:
    """The nodes, and where one reads what nobody wrote because it has the place of something else, a node for that.

    ExecuTorch leaves out views whose shapes are known: they are planned into the place of what they show.
    """
    latest: dict[tuple[int, int], str] = {place: key for key in made if (place := places[key]) is not None}
    for node in nodes:
        for key in node.inputs:
            place = places.get(key)
            if key in made or values[key].constant is not None or place is None:
                continue
            origin = latest.get(place)
            if origin is not None and values[origin].size_bytes == values[key].size_bytes:
                made.add(key)
                yield Node(VIEW, f"view {key}", (origin,), (key,), node.piece)
        yield node
        made.update(node.outputs)
        latest.update({place: key for key in node.outputs if (place := places.get(key)) is not None})


class _XnnpackGraph:
    """The graph that a delegate's data holds, by the schema that ExecuTorch ships for it."""

    def __init__(self, data: bytes, named: Any) -> None:
        from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader, _get_schema_bytes
        from executorch.exir._serialize._flatbuffer import _flatc_decompile

        header = XNNHeader.from_bytes(data[: XNNHeader.EXPECTED_LENGTH])
        with TemporaryDirectory() as folder:
            schema, binary = Path(folder) / "schema.fbs", Path(folder) / "graph.bin"
            schema.write_bytes(_get_schema_bytes())
            binary.write_bytes(data[header.flatbuffer_offset : header.flatbuffer_offset + header.flatbuffer_size])
            _flatc_decompile(folder, str(schema), str(binary), ["--raw-binary"])
            text = (Path(folder) / "graph.json").read_text()
        # flatc writes numbers that JSON has not as C does, Python's reader knows them as JavaScript does.
        self._graph = json.loads(re.sub(r": (-?)inf\b", r": \1Infinity", re.sub(r": -?nan\b", ": NaN", text)))
        self._data = data[header.constant_data_offset :]
        self._named = named

    @cached_property
    def tensors(self) -> list[dict[str, Any]]:
        """Each value with its scale, where it has one for all elements."""
        found = []
        for value in self._graph["xvalues"]:
            union = value["xvalue_union"]
            scale = union.get("quant_params", {}).get("scale")
            found.append({**union.get("tensor_value", union), "scale": scale if isinstance(scale, float) else None})
        return found

    def value(self, key: str, tensor: dict[str, Any]) -> Value:
        """A value of the graph that nobody outside sees."""
        dtype = XNN_DTYPES.get(tensor["datatype"], "unknown")
        shape = tuple(tensor.get("dims", ()))
        size = int(np.prod(shape)) * (np.dtype(dtype).itemsize if dtype != "unknown" else 0)
        index = tensor["constant_buffer_idx"]
        return Value(key, dtype, shape, size, partial(self._constant, index, dtype, tensor["scale"]) if index else None)

    def nodes(self) -> Iterator[tuple[str, list[int], list[int]]]:
        """Each node's operator and the ids of its inputs and outputs."""
        for node in self._graph["xnodes"]:
            ids = {name: each for name, each in node["xnode_union"].items() if name.endswith("_id") and each != NO_ID}
            outputs = [each for name, each in ids.items() if name.startswith("output")]
            yield (
                node["xnode_union_type"],
                [each for name, each in ids.items() if not name.startswith("output")],
                outputs,
            )

    def _constant(self, index: int, dtype: str, scale: float | None) -> Array:
        if dtype == "unknown":
            return np.zeros(0, np.float32)
        place = self._graph["constant_data"][index]
        if place["named_key"]:
            content = self._named(place["named_key"])[: place["size"]]
        else:
            content = self._data[place["offset"] : place["offset"] + place["size"]]
        values = np.frombuffer(content, dtype, len(content) // np.dtype(dtype).itemsize)
        return values if scale is None else values.astype(np.float32) * np.float32(scale)


EXAMINER = ExecuTorchExaminer()
