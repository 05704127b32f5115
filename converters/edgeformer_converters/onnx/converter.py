"""Lowering to ONNX for ONNX Runtime: a `.onnx` for all lengths of a text, or one per program with shared weights."""

from __future__ import annotations

import hashlib
import inspect
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from edgeformer.convert.layer_plan import FORMATS
from edgeformer.convert.target import PLANNED, Precision, Target
from edgeformer.foreign_code import quiet_tools
from edgeformer.models.family import Program
from edgeformer_converters.checks import Lowered, PlannedLayers, common_problems, plan_problems
from edgeformer_converters.onnx.target import TARGET
from edgeformer_runtime.bundle.manifest import Requirements
from edgeformer_runtime.bundle.specs import SHORTEST_TEXT

# The first opset with GELU as one operator, in ONNX Runtime since 1.17.
OPSET = 20
ENTRY = "main"
LENGTH = "S"
"""The symbolic size."""
LAYER_FORMATS = {nn.Linear: FORMATS, nn.Conv2d: FORMATS[:3], nn.Embedding: FORMATS[:3]}
"""What each kind of layer can be stored in: MatMulNBits is a product."""


class OnnxConverter:
    """torch.onnx's exporter for fp32; ONNX Runtime's quantizers for int8.

    fp16 stores the weights in float16 and computes in float32: ONNX Runtime folds the casts when it loads, so latency
    is fp32's. A graph that computes in float16 is no faster on a CPU without float16 kernels, and far less exact.

    dynamic-int8 holds weights per channel and embedding tables per tensor in int8, biases and norms in float32.
    static-int8 takes the ranges of activations from calibration inputs. weight-int8 stores weights in int8 and computes
    in float32. int4 is dynamic-int8 with linear layers' weights in 4 bits, in blocks; mixed has a format for each
    layer.
    """

    # The oldest systems that ONNX Runtime 1.22's packages support; 1.22 brought 8 bits to MatMulNBits.
    requires = Requirements(runtime="0.1.0", ios="15.1", macos="13.4", android_api=24)
    quantizes_files = True
    packages = ("onnx", "onnxscript", "onnxruntime", "torch")

    def __init__(self, target: Target = TARGET) -> None:
        """`target`: with this module's format."""
        self.target = target
        self.precisions = target.precisions

    def check(self, programs: Sequence[Program], precision: Precision) -> list[str]:
        """What ONNX cannot do with these programs, one sentence each."""
        return [
            *common_problems(self.target, self.precisions, ("onnx", "onnxscript", "onnxruntime"), programs, precision),
            *plan_problems(self.target, programs, LAYER_FORMATS),
        ]

    def lower_fp32(self, programs: Sequence[Program], folder: Path) -> Lowered:
        """Write the `.onnx` files, and `weights.bin` when there are several, into the empty folder."""
        graphs = graphs_of(programs)
        with quiet_tools(), torch.no_grad():
            return _save({graph: _export(graph) for graph in graphs}, folder)

    def lower_precision(
        self, programs: Sequence[Program], fp32: Lowered, precision: Precision, folder: Path
    ) -> Lowered:
        """Quantize or halve the weights of each fp32 file."""
        with quiet_tools():
            import onnx

            from edgeformer_converters.onnx.quantize import (
                quantize_by_plan,
                quantize_dynamically,
                quantize_statically,
                store_weights_in_int8,
            )

            layers = PlannedLayers(programs) if precision.name in PLANNED else None
            models = {graph: onnx.load(fp32.folder / graph.file) for graph in graphs_of(programs)}
            for graph, model in models.items():
                if layers is not None:
                    models[graph] = quantize_by_plan(model, layers)
                elif precision.name == "dynamic-int8":
                    models[graph] = quantize_dynamically(model)
                elif precision.name == "static-int8":
                    models[graph] = quantize_statically(model, graph.program)
                elif precision.name == "weight-int8":
                    store_weights_in_int8(model)
                else:
                    store_weights_in_half(model)
            if layers is not None:
                layers.require_all(self.target.name)
            return _save(models, folder)


@dataclass(frozen=True, eq=False)
class Graph:
    """A `.onnx` file to be.

    Attributes:
        name: of the file, without its ending.
        programs: what it computes: one, or several that differ in nothing but the length of their inputs, rising.
    """

    name: str
    programs: tuple[Program, ...]

    @property
    def file(self) -> str:
        """The file's name."""
        return f"{self.name}.onnx"

    @property
    def program(self) -> Program:
        """The longest, with the calibration inputs of all."""
        inputs = tuple(each for program in self.programs for each in program.calibration)
        return replace(self.programs[-1], calibration=inputs)


def graphs_of(programs: Sequence[Program]) -> tuple[Graph, ...]:
    """Programs that take any length are one graph; each of the others has its own."""
    lengths = tuple(program for program in programs if program.any_length)
    alone = tuple(Graph(program.name, (program,)) for program in programs if not program.any_length)
    return (Graph("model", lengths), *alone) if lengths else alone


def _export(graph: Graph) -> onnx.ModelProto:
    _remember_operators()
    program = graph.program
    sizes = None
    if program.any_length:
        length = torch.export.Dim(LENGTH, min=SHORTEST_TEXT, max=program.inputs[0].shape[1])
        # By the names of forward's parameters, one of which may take several inputs.
        sizes = dict(inspect.signature(program.module.forward).bind(*({1: length} for _ in program.inputs)).arguments)
    exported = torch.onnx.export(
        program.module,
        program.example_inputs(),
        dynamo=True,
        opset_version=OPSET,
        input_names=[spec.name for spec in program.inputs],
        dynamic_shapes=sizes,
        verbose=False,
    )
    assert exported is not None, "the exporter returns a program when it is given no file"
    model = exported.model_proto
    _name_outputs(model, [spec.name for spec in program.outputs])
    return model


@cache
def _remember_operators() -> None:
    """onnxscript parses its 500 operators' sources anew at every export, a fifth of a small one's time; now once."""
    from onnxscript import values

    operator: Any = values.TracedOnnxFunction
    operator.function_ir = property(cache(operator.function_ir.fget))


def _name_outputs(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Give the graph's outputs their names. The exporter's own way lets them collide with values inside the graph."""
    graph = model.graph
    changed = dict(zip((output.name for output in graph.output), names, strict=True))
    changed |= {name: f"{name}_inside" for name in names if name not in changed}
    for node in graph.node:
        node.input[:] = [changed.get(name, name) for name in node.input]
        node.output[:] = [changed.get(name, name) for name in node.output]
    for value in (*graph.initializer, *graph.value_info, *graph.output):
        value.name = changed.get(value.name, value.name)


def _save(models: Mapping[Graph, onnx.ModelProto], folder: Path) -> Lowered:
    operators = Counter(node.op_type for model in models.values() for node in model.graph.node)
    files = save_models({graph.name: model for graph, model in models.items()}, folder)
    entries = {program.name: (graph.file, ENTRY) for graph in models for program in graph.programs}
    return Lowered(folder, files, entries, dict(sorted(operators.items())), None)


# How ONNX models are kept: no trace of the machine, weights once for all the programs, float16 weights where asked.


WEIGHTS_FILE = "weights.bin"
# The specification asks for page alignment of what is memory-mapped; what is smaller than a page stays in the graph.
PAGE_BYTES = 4096
# Biases, norms and constants are a thousandth of the size and lose the most from rounding.
HALF_MIN_ELEMENTS = 1024


def save_models(models: Mapping[str, onnx.ModelProto], folder: Path) -> tuple[str, ...]:
    """Write one `<name>.onnx` per model; several models keep their large weights, each once, in `weights.bin`.

    Args:
        models: model by program name; they are changed in place and not to be used afterwards.
        folder: an existing folder.

    Returns:
        The names of the files.
    """
    files = [f"{name}.onnx" for name in models]
    for model in models.values():
        strip_metadata(model)
        _drop_derived_sizes(model.graph)
    if len(models) > 1:
        _share_weights(models, folder / WEIGHTS_FILE)
        files.append(WEIGHTS_FILE)
    for name, model in models.items():
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))
    return tuple(files)


def _share_weights(models: Mapping[str, onnx.ModelProto], path: Path) -> None:
    offsets: dict[bytes, int] = {}
    with path.open("wb") as file:
        for model in models.values():
            for tensor in model.graph.initializer:
                content = numpy_helper.to_array(tensor).tobytes()
                if len(content) < PAGE_BYTES:
                    continue
                digest = hashlib.sha256(content).digest()
                if digest not in offsets:
                    file.write(bytes(-file.tell() % PAGE_BYTES))
                    offsets[digest] = file.tell()
                    file.write(content)
                _refer(tensor, offsets[digest], len(content))


def _refer(tensor: TensorProto, offset: int, length: int) -> None:
    for field in ("raw_data", "float_data", "int32_data", "int64_data"):
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", WEIGHTS_FILE), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def strip_metadata(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes about source files and classes: it names folders of this machine."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")


def _drop_derived_sizes(graph: onnx.GraphProto) -> None:
    """Forget the shapes of values with other sizes than numbers and the length itself, which readers do not take."""
    kept = [value for value in graph.value_info if _symbols(value) <= {LENGTH}]
    del graph.value_info[:]
    graph.value_info.extend(kept)


def _symbols(value: onnx.ValueInfoProto) -> set[str]:
    return {size.dim_param for size in value.type.tensor_type.shape.dim} - {""}


def store_weights_in_half(model: onnx.ModelProto) -> None:
    """Turn every large float32 initializer into a float16 one and a Cast, which sessions fold when they load."""
    store_in_half(model, {tensor.name for tensor in model.graph.initializer})


def store_in_half(model: onnx.ModelProto, names: Collection[str]) -> None:
    """The same for the initializers of these names."""
    graph, casts = model.graph, []
    for tensor in graph.initializer:
        is_large = np.prod(tensor.dims, dtype=np.int64) >= HALF_MIN_ELEMENTS
        if tensor.name not in names or tensor.data_type != TensorProto.FLOAT or not is_large:
            continue
        name = tensor.name
        half = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
        casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], name=f"{name}_cast", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
