"""Lowering to LiteRT: one `.tflite` whose signatures are the programs and share their weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeformer.precision import Precision
from edgeformer.programs import Program
from edgeformer_converters.base import Lowered
from edgeformer_converters.checks import common_problems
from edgeformer_converters.litert_graph import LiteRTGraph
from edgeformer_converters.litert_int8 import quantize_to_int8
from edgeformer_converters.quiet import quiet_tools
from edgeformer_runtime.manifest import Requirements

MODEL_FILE = "model.tflite"


class LiteRTConverter:
    """litert-torch for fp32; the AI Edge Quantizer takes that file to fp16 weights or int8.

    dynamic-int8 stores weights per channel in int8 (embedding tables included, biases and norms in float32) and
    quantizes activations while it runs. static-int8 takes the ranges of activations from calibration inputs. fp16
    stores the weights in half; a CPU computes in float32, a GPU in half.
    """

    target = "litert"
    precisions: tuple[str, ...] = ("fp32", "fp16", "dynamic-int8", "static-int8")
    # Apple: what the LiteRT pods build for; Android: the oldest API of the LiteRT 2 archive.
    requires = Requirements(runtime="0.1.0", ios="15.0", macos="12.0", android_api=23)
    packages = ("litert-torch", "litert-converter", "ai-edge-litert", "ai-edge-quantizer", "torch")

    def check(self, programs: Sequence[Program], precision: Precision) -> list[str]:
        """What LiteRT cannot do with these programs, one sentence each."""
        modules = ("litert_torch", "ai_edge_litert", "ai_edge_quantizer")
        return common_problems(self.target, self.precisions, modules, programs, precision)

    def lower_fp32(self, programs: Sequence[Program], folder: Path) -> Lowered:
        """Write `model.tflite` with one signature per program into the empty folder."""
        path = folder / MODEL_FILE
        with quiet_tools(), torch.no_grad():
            import litert_torch

            converter: Any = litert_torch
            for program in programs:
                inputs = {
                    spec.name: tensor for spec, tensor in zip(program.inputs, program.example_inputs(), strict=True)
                }
                converter = converter.signature(program.name, _NamedOutputs(program).eval(), sample_kwargs=inputs)
            converter.convert().export(str(path))
        return self._lowered(programs, folder)

    def lower_precision(
        self, programs: Sequence[Program], fp32: Lowered, precision: Precision, folder: Path
    ) -> Lowered:
        """Quantize the fp32 `.tflite` into another one."""
        source, destination = fp32.folder / MODEL_FILE, folder / MODEL_FILE
        with quiet_tools():
            if precision.name == "fp16":
                _store_weights_in_half(source, destination)
            else:
                quantize_to_int8(programs, precision.name, source, destination)
        return self._lowered(programs, folder)

    def _lowered(self, programs: Sequence[Program], folder: Path) -> Lowered:
        path = folder / MODEL_FILE
        with quiet_tools():
            operators, partitions = LiteRTGraph(path).count_operators(), count_partitions(path)
        entries = {program.name: (MODEL_FILE, program.name) for program in programs}
        return Lowered(folder, (MODEL_FILE,), entries, operators, partitions)


class _NamedOutputs(nn.Module):
    """A program that takes and returns its tensors by name: these become the names in the signature."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.module = program.module
        self.names = tuple(spec.name for spec in program.outputs)
        self.order = tuple(spec.name for spec in program.inputs)

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Inputs by name to outputs by name."""
        return dict(zip(self.names, self.module(*(inputs[name] for name in self.order)), strict=True))


def _store_weights_in_half(source: Path, destination: Path) -> None:
    from ai_edge_quantizer import quantizer, recipe, recipe_manager
    from ai_edge_quantizer.qtyping import TFLOperationName

    manager = recipe_manager.RecipeManager()
    manager.add_weight_only_config(
        ".*", TFLOperationName.ALL_SUPPORTED, num_bits=16, algorithm_key=recipe.AlgorithmName.FLOAT_CASTING
    )
    quantizer.Quantizer(str(source), manager.get_quantization_recipe()).quantize().export_model(str(destination))


def count_partitions(path: Path) -> int:
    """How many pieces XNNPACK makes of the first signature; the other buckets have the same graph."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    # The delegate's nodes are appended to the plan under this name; the nodes that they replace stay listed.
    return [node["op_name"] for node in interpreter._get_ops_details()].count("DELEGATE")


CONVERTER = LiteRTConverter()
