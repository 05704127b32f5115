"""How doctor looks into `.onnx` files: graphs, opsets, external weights and the ranges of values."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeformer.doctor.examiner import (
    ModelView,
    Node,
    Observe,
    Operator,
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
from edgeformer_converters.observe import ObservedEngine, numbers
from edgeformer_converters.onnx.converter import OPSET, PAGE_BYTES
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import ProgramSpec
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.engines import Engine, Tensor
from edgeformer_runtime.errors import BundleError, EngineError
from edgeformer_runtime.model_files.onnx_values import MAX_STEERING

# The oldest ONNX Runtime for each opset (onnxruntime.ai, Compatibility, up to 1.20).
OLDEST_FOR_OPSET: dict[int, Version] = {
    11: (1, 0), 12: (1, 3), 13: (1, 6), 14: (1, 8), 15: (1, 9), 16: (1, 11), 17: (1, 12), 18: (1, 14), 19: (1, 15),
    20: (1, 17), 21: (1, 18),
}  # fmt: skip
OLDEST_OPSET = 7
# Operators of ONNX Runtime's own domain, with the release that brought what our models use of them: MatMulNBits with
# 4 bits (microsoft/onnxruntime#17890) and with 8 (#24384).
OWN_DOMAIN = "com.microsoft"
OLDEST_FOR_OWN: dict[tuple[str, int], Version] = {("MatMulNBits", 4): (1, 17), ("MatMulNBits", 8): (1, 22)}
LARGEST = "largest absolute number of "


class OnnxExaminer:
    """ONNX graphs, read with their weights left in their files."""

    runtime_name = "ONNX Runtime"
    package: str | None = "onnxruntime"
    without_vnni = (
        "ONNX Runtime's sums saturate there unless session.x64quantprecision is set, as this runtime and its Android "
        "engine do: answers are right and take 1.15 to 1.2 times as long as without it"
    )

    def read(self, bundle: Bundle) -> ModelView:
        """A file per program, or one for programs of several lengths; see `Examiner`."""
        files = {spec.file: spec for spec in bundle.manifest.programs}
        loaded = {file: _load(file, bundle.path(file)) for file in files}
        models = {spec.name: loaded[spec.file] for spec in bundle.manifest.programs}
        used: Counter[tuple[str, int | None]] = Counter()
        placements: dict[tuple[str, int], Placement] = {}
        facts: dict[str, int] = {}
        for spec in files.values():
            model = models[spec.name]
            opsets = {each.domain: int(each.version) for each in model.opset_import}
            used.update((node.op_type, opsets.get(node.domain)) for node in model.graph.node)
            for placement in _placements(model, spec.file):
                placements[placement.file, placement.offset] = placement
            facts["opset"] = max(facts.get("opset", 0), opsets.get("", 0))
            for node in model.graph.node:
                if node.domain == OWN_DOMAIN:
                    facts[f"{node.op_type} bits"] = max(facts.get(f"{node.op_type} bits", 0), _bits(node))
        programs = tuple(
            _program(spec, models[spec.name], bundle.path(spec.file).parent) for spec in bundle.manifest.programs
        )
        return ModelView(programs, count_operators(used), tuple(placements.values()), facts, models)

    def support(self, view: ModelView, runtime: str) -> tuple[Support, ...]:
        """By opset; operators of ONNX Runtime's own domain by name."""
        version = parse_version(runtime, "--runtime")
        found = []
        for operator in view.operators:
            needed = _oldest(operator, view.facts)
            supported = None if needed is None else not older(version, needed)
            found.append(Support(operator, None if needed is None else f"ONNX Runtime {show(needed)}", supported))
        return tuple(found)

    def partitions(self, bundle: Bundle, view: ModelView) -> tuple[Partitioning, ...]:  # noqa: ARG002
        """None: the CPU provider takes every operator, or no session opens."""
        return ()

    def computes_in_half(self, precision: str) -> bool:  # noqa: ARG002
        """Never: the graphs cast float16 weights to float32."""
        return False

    def observed(self, bundle: Bundle, view: ModelView, observe: Observe) -> Engine:
        """Sessions over copies of the graphs that also give the largest number of each value."""
        return _Observed(bundle, view, numbers(observe))

    def tapped(self, bundle: Bundle, view: ModelView, tap: Tap, sizes: Collection[int]) -> Engine:
        """Sessions over copies of the graphs that also give the values."""
        return _Observed(bundle, view, tap, sizes)


def _load(name: str, path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path, load_external_data=False)
        # Quantizers add values without their shapes.
        model = onnx.shape_inference.infer_shapes(model)
        if not all(isinstance(node.op_type, str) for node in model.graph.node):
            raise ValueError("an operator's name is no UTF-8")
        for tensor in model.graph.initializer:
            _check_stored(tensor, path.parent)
        for attribute in (each for node in model.graph.node for each in node.attribute):
            if any(each.data_location == TensorProto.EXTERNAL for each in (attribute.t, *attribute.tensors)):
                raise ValueError(f"the attribute {attribute.name} refers to another file")
    except Exception as error:  # protobuf and onnx share no base class
        raise BundleError(f"{name}: not an ONNX model: {' '.join(str(error).split())[:200]}") from None
    if not model.graph.node:  # almost any bytes are a message of fields that nobody knows
        raise BundleError(f"{name}: not an ONNX model: its graph has no operator")
    return model


def _check_stored(tensor: onnx.TensorProto, folder: Path) -> None:
    """Raises ValueError, or what onnx's checker raises: the tensor's numbers are not there."""
    if tensor.data_location != TensorProto.EXTERNAL:
        onnx.checker.check_tensor(tensor)
        return
    places = {each.key: each.value for each in tensor.external_data}
    if Path(places["location"]).name != places["location"]:
        raise ValueError(f"the weight {tensor.name} lies outside the model's folder: {places['location']}")
    end = int(places.get("offset", 0)) + int(places.get("length", 0))
    if end > (folder / places["location"]).stat().st_size:
        raise ValueError(f"the weight {tensor.name} ends at byte {end} of {places['location']}, which is shorter")


def _oldest(operator: Operator, facts: Mapping[str, int]) -> Version | None:
    bits = facts.get(f"{operator.name} bits")
    if bits is not None:
        return OLDEST_FOR_OWN.get((operator.name, bits))
    opset = operator.version or 0
    return OLDEST_FOR_OPSET.get(max(opset, min(OLDEST_FOR_OPSET))) if opset >= OLDEST_OPSET else None


def _bits(node: onnx.NodeProto) -> int:
    return next((int(each.i) for each in node.attribute if each.name == "bits"), 0)


def _program(spec: ProgramSpec, model: onnx.ModelProto, folder: Path) -> Program:
    graph = model.graph
    sized = _sized(graph, spec)
    values = {each.name: _computed(each) for each in (*sized.value_info, *sized.input, *sized.output)}
    values |= {each.name: _constant(each, folder) for each in graph.initializer}
    nodes = []
    for index, node in enumerate(graph.node):
        if node.op_type == "Constant":
            stored = next(each.t for each in node.attribute if each.name == "value")
            values[node.output[0]] = _constant(stored, folder)
            continue
        inputs, outputs = tuple(filter(None, node.input)), tuple(filter(None, node.output))
        for name in (*inputs, *outputs):
            values.setdefault(name, Value(name, "unknown", (), 0))
        nodes.append(Node(node.op_type, node.name or f"{node.op_type} number {index}", inputs, outputs))
    stored_names = {each.name for each in graph.initializer}
    inputs = tuple(each.name for each in graph.input if each.name not in stored_names)
    return Program(spec.name, tuple(nodes), values, inputs, tuple(each.name for each in graph.output))


def _sized(graph: onnx.GraphProto, spec: ProgramSpec) -> onnx.GraphProto:
    """The graph, or where its inputs have a symbolic size, one without weights whose values have a program's shapes."""
    if not any(size.dim_param for each in graph.input for size in each.type.tensor_type.shape.dim):
        return graph
    stored = {each.name for each in graph.initializer}
    inputs = [helper.make_tensor_value_info(each.name, TensorProto.INT32, each.shape) for each in spec.inputs]
    outputs = [helper.make_tensor_value_info(each.name, TensorProto.FLOAT, each.shape) for each in spec.outputs]
    weights = [each for each in graph.initializer if math.prod(each.dims) > MAX_STEERING]
    inputs += [helper.make_tensor_value_info(each.name, each.data_type, each.dims) for each in weights]
    few = [each for each in graph.initializer if math.prod(each.dims) <= MAX_STEERING]
    # Shape inference does not follow a size to the slice that ends there: here it is a constant.
    shapes = {each.name: each.shape for each in spec.inputs}
    measured = [node for node in graph.node if node.op_type == "Shape" and node.input[0] in shapes]
    for node in measured:
        places = {each.name: each.i for each in node.attribute}
        sizes = shapes[node.input[0]][places.get("start", 0) : places.get("end")]
        few.append(numpy_helper.from_array(np.array(sizes, np.int64), node.output[0]))
    nodes = [node for node in graph.node if node not in measured]
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(OWN_DOMAIN, 1)]
    bare = helper.make_model(helper.make_graph(nodes, graph.name, inputs, outputs, few), opset_imports=opsets)
    found = onnx.shape_inference.infer_shapes(bare).graph
    kept = [each for each in found.input if each.name not in stored]
    del found.input[:]
    found.input.extend(kept)
    return found


def _computed(info: onnx.ValueInfoProto) -> Value:
    tensor = info.type.tensor_type
    shape = tuple(int(each.dim_value) for each in tensor.shape.dim)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)) if tensor.elem_type else None
    if dtype is None:
        return Value(info.name, "unknown", shape, 0)
    return Value(info.name, str(dtype), shape, int(np.prod(shape)) * dtype.itemsize)


def _constant(tensor: onnx.TensorProto, folder: Path) -> Value:
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    shape = tuple(map(int, tensor.dims))
    read = partial(numpy_helper.to_array, tensor, str(folder))
    return Value(tensor.name, str(dtype), shape, int(np.prod(shape)) * dtype.itemsize, cast(Any, read))


def _placements(model: onnx.ModelProto, file: str) -> Iterator[Placement]:
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            places = {each.key: each.value for each in tensor.external_data}
            location = "/".join((*file.split("/")[:-1], places["location"]))
            yield Placement(
                location, tensor.name, int(places.get("offset", 0)), int(places.get("length", 0)), PAGE_BYTES
            )


class _Observed(ObservedEngine):
    """ONNX Runtime without its optimizations, which would fuse away what is to be seen."""

    def __init__(self, bundle: Bundle, view: ModelView, tap: Tap, sizes: Collection[int] | None = None) -> None:
        super().__init__(bundle.manifest.programs, tap, sizes)
        self._folders = {spec.name: bundle.path(spec.file).parent for spec in bundle.manifest.programs}
        self._models: dict[str, onnx.ModelProto] = view.foreign
        self._view = {program.name: program for program in view.programs}
        self._open: tuple[str, Any, dict[str, str]] = ("", None, {})

    def _execute(self, program: ProgramSpec, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        names = [spec.name for spec in program.outputs]
        try:
            if self._open[0] != program.name:
                self._open = ("", None, {})
                self._open = (program.name, *self._session(program.name))
            _, session, labels = self._open
            results = session.run([*names, *labels], dict(inputs))
        except Exception as error:  # the library's errors share no base class
            raise EngineError(f"ONNX Runtime cannot run {program.name}: {shorten(str(error), 200)[1:-1]}") from error
        for label, result in zip(labels.values(), results[len(names) :], strict=True):
            if self.wants(result.size) and result.dtype == np.float32:
                self.tap(program.name, label, result)
        return dict(zip(names, cast(list[Tensor], results), strict=False))

    def _session(self, name: str) -> tuple[Any, dict[str, str]]:
        """A session whose graph has a further output for each floating-point value, and what each of them is.

        Where all are observed, the output is the value's largest number: all values together would fill the memory.
        """
        import onnxruntime

        from edgeformer_runtime.engines.onnx import PRECISE_INT8, saturates

        model = onnx.ModelProto()
        model.CopyFrom(self._models[name])
        labels: dict[str, str] = {}
        values = self._view[name].values
        given = set(self._view[name].outputs)
        for node in self._view[name].nodes:
            # The sum of products of integers is no value of the model before it is scaled.
            if node.operator == "Cast" and not values[node.inputs[0]].is_float:
                continue
            for value in node.outputs:
                if self.sizes is not None:
                    # Shape inference knows no operator of ONNX Runtime's own: what comes after one has no size here.
                    known = values[value]
                    if known.dtype == "unknown" or (known.dtype == "float32" and self.wants(math.prod(known.shape))):
                        if value not in given:
                            model.graph.output.append(onnx.ValueInfoProto(name=value))
                        labels[value] = node.label
                elif values[value].dtype == "float32":
                    largest = LARGEST + value
                    model.graph.node.append(helper.make_node("Abs", [value], [largest + " (all)"]))
                    model.graph.node.append(helper.make_node("ReduceMax", [largest + " (all)"], [largest], keepdims=0))
                    model.graph.output.append(helper.make_tensor_value_info(largest, TensorProto.FLOAT, ()))
                    labels[largest] = node.label
        for tensor in model.graph.initializer:
            if tensor.data_location == TensorProto.EXTERNAL:
                onnx.external_data_helper.load_external_data_for_tensor(tensor, str(self._folders[name]))
                tensor.data_location = TensorProto.DEFAULT
                del tensor.external_data[:]
        options = onnxruntime.SessionOptions()
        # `PRECISE_INT8` is one of the extended optimizations; outputs of the graph stay as they are under all of them.
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_EXTENDED if saturates() else levels.ORT_DISABLE_ALL
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry(*PRECISE_INT8)
        return (
            onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]),
            labels,
        )

    def _release(self) -> None:
        self._open = ("", None, {})


EXAMINER = OnnxExaminer()
