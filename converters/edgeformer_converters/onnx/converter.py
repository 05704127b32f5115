"""Lowering to ONNX for ONNX Runtime: one `.onnx` per program, weights shared between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from edgeformer.convert.layer_plan import FORMATS
from edgeformer.convert.target import PLANNED, Precision, Target
from edgeformer.models.program import Program
from edgeformer_converters.checks import Lowered, PlannedLayers, common_problems, plan_problems
from edgeformer_converters.onnx.target import TARGET
from edgeformer_converters.quiet import quiet_tools
from edgeformer_runtime.bundle.manifest import Requirements

if TYPE_CHECKING:
    import onnx

# The first opset with GELU as one operator, in ONNX Runtime since 1.17.
OPSET = 20
ENTRY = "main"
LAYER_FORMATS = {nn.Linear: FORMATS, nn.Conv2d: FORMATS[:3], nn.Embedding: FORMATS[:3]}
"""What each kind of layer can be stored in: MatMulNBits is a product."""


class OnnxConverter:
    """torch.onnx's exporter for fp32; ONNX Runtime's quantizers for int8.

    fp16 stores the weights in half and computes in float32: ONNX Runtime folds the casts when it loads, so latency is
    fp32's. A graph that computes in half is no faster on a CPU without half kernels, and far less exact.

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
        """Write one `.onnx` per program, and `weights.bin` when there are several, into the empty folder."""
        with quiet_tools(), torch.no_grad():
            return _save({program.name: _export(program) for program in programs}, folder)

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
            from edgeformer_converters.onnx.storage import store_weights_in_half

            layers = PlannedLayers(programs) if precision.name in PLANNED else None
            models = {program.name: onnx.load(fp32.folder / fp32.entries[program.name][0]) for program in programs}
            for program in programs:
                model = models[program.name]
                if layers is not None:
                    models[program.name] = quantize_by_plan(model, layers)
                elif precision.name == "dynamic-int8":
                    models[program.name] = quantize_dynamically(model)
                elif precision.name == "static-int8":
                    models[program.name] = quantize_statically(model, program)
                elif precision.name == "weight-int8":
                    store_weights_in_int8(model)
                else:
                    store_weights_in_half(model)
            if layers is not None:
                layers.require_all(self.target.name)
            return _save(models, folder)


def _export(program: Program) -> onnx.ModelProto:
    exported = torch.onnx.export(
        program.module,
        program.example_inputs(),
        dynamo=True,
        opset_version=OPSET,
        input_names=[spec.name for spec in program.inputs],
        verbose=False,
    )
    assert exported is not None, "the exporter returns a program when it is given no file"
    model = exported.model_proto
    _name_outputs(model, [spec.name for spec in program.outputs])
    return model


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


def _save(models: dict[str, onnx.ModelProto], folder: Path) -> Lowered:
    from edgeformer_converters.onnx.storage import save_models

    operators = Counter(node.op_type for model in models.values() for node in model.graph.node)
    files = save_models(models, folder)
    entries = {name: (f"{name}.onnx", ENTRY) for name in models}
    return Lowered(folder, files, entries, dict(sorted(operators.items())), None)
