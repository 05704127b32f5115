"""Lowering to ONNX for ONNX Runtime: one `.onnx` per program, weights shared between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch

from edgeformer.precision import Precision
from edgeformer.programs import Program
from edgeformer_converters.base import Lowered
from edgeformer_converters.checks import common_problems
from edgeformer_converters.quiet import quiet_tools
from edgeformer_runtime.manifest import Requirements

if TYPE_CHECKING:
    import onnx

# The first opset with GELU as one operator, in ONNX Runtime since 1.17.
OPSET = 20
ENTRY = "main"
# Products after GELU get their activations quantized per block of 128; see `_quantize`.
BLOCK_SIZE = 128


class OnnxConverter:
    """torch.onnx's exporter for fp32; ONNX Runtime's quantizers for dynamic-int8.

    fp16 stores the weights in half and computes in float32: ONNX Runtime folds the casts when it loads, so latency is
    fp32's. A graph that computes in half is no faster on a CPU without half kernels, and far less exact.

    dynamic-int8 holds weights per channel and embedding tables per tensor in int8, biases and norms in float32.
    """

    target = "onnx"
    precisions: tuple[str, ...] = ("fp32", "fp16", "dynamic-int8")
    # The oldest systems that ONNX Runtime 1.22's packages support; 1.22 brought 8 bits to MatMulNBits.
    requires = Requirements(runtime="0.1.0", ios="15.1", macos="13.4", android_api=24)
    packages = ("onnx", "onnxscript", "onnxruntime", "torch")

    def check(self, programs: Sequence[Program], precision: Precision) -> list[str]:
        """What ONNX cannot do with these programs, one sentence each."""
        return common_problems(self.target, self.precisions, ("onnx", "onnxscript", "onnxruntime"), programs, precision)

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

            from edgeformer_converters.onnx_storage import store_weights_in_half

            models = {program.name: onnx.load(fp32.folder / fp32.entries[program.name][0]) for program in programs}
            for name, model in models.items():
                if precision.name == "dynamic-int8":
                    models[name] = _quantize(model)
                else:
                    store_weights_in_half(model)
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


def _quantize(model: onnx.ModelProto) -> onnx.ModelProto:
    """Weights to int8; activations are quantized while the model runs.

    ONNX Runtime quantizes activations per tensor, which leaves MiniLM's embeddings a cosine of only 0.990 to fp32's.
    Half of that comes from GELU's outputs with their one long tail. Quantizing those per row and block (MatMulNBits)
    gives 0.996 for 25 % more time, still 1.8 times fp32's speed. Doing so everywhere is another 1.2 times slower there,
    and on MobileBERT, whose ReLU outputs do not need it (0.9997), as slow as fp32. Signed weights are 1.7 times faster
    than unsigned ones, whose cosine is no better.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    _quantize_after_gelu(model)
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "quantized.onnx"
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul", "Gemm", "Gather"],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(path)


def _quantize_after_gelu(model: onnx.ModelProto) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    after_gelu = {output for node in model.graph.node if node.op_type == "Gelu" for output in node.output}
    others = [node.name for node in model.graph.node if node.op_type != "MatMul" or node.input[0] not in after_gelu]
    # Accuracy level 4: activations in int8, per row and block.
    config = DefaultWeightOnlyQuantConfig(block_size=BLOCK_SIZE, is_symmetric=True, accuracy_level=4, bits=8)
    quantizer = MatMulNBitsQuantizer(
        model,
        bits=8,
        block_size=BLOCK_SIZE,
        is_symmetric=True,
        accuracy_level=4,
        nodes_to_exclude=others,
        algo_config=config,
    )
    quantizer.process()
    model.CopyFrom(quantizer.model.model)


def _save(models: dict[str, onnx.ModelProto], folder: Path) -> Lowered:
    from edgeformer_converters.onnx_storage import save_models

    operators = Counter(node.op_type for model in models.values() for node in model.graph.node)
    files = save_models(models, folder)
    entries = {name: (f"{name}.onnx", ENTRY) for name in models}
    return Lowered(folder, files, entries, dict(sorted(operators.items())), None)


CONVERTER = OnnxConverter()
