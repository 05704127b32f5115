"""Lowering to LiteRT: one `.tflite` whose signatures are the programs and share their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from edgeformer.convert.layer_plan import FORMATS
from edgeformer.convert.target import PLANNED, Precision, Target
from edgeformer.foreign_code import quiet_tools
from edgeformer.models.program import Program
from edgeformer_converters.checks import Lowered, common_problems, plan_problems
from edgeformer_converters.litert.graph import LiteRTGraph, store_compactly
from edgeformer_converters.litert.lengths import NotAlikeError, add_lengths, to_trace
from edgeformer_converters.litert.quantize import quantize_by_plan, quantize_to_int8
from edgeformer_converters.litert.target import TARGET
from edgeformer_runtime.bundle.manifest import Requirements

MODEL_FILE = "model.tflite"
LAYER_FORMATS = {nn.Linear: FORMATS, nn.Conv2d: FORMATS, nn.Embedding: FORMATS}
"""What each kind of layer can be stored in."""


class LiteRTConverter:
    """litert-torch for fp32; the AI Edge Quantizer takes that file to fp16 weights or int8.

    dynamic-int8 stores weights per channel in int8 (embedding tables included, biases and norms in float32) and
    quantizes activations while it runs. static-int8 takes the ranges of activations from calibration inputs. fp16
    stores the weights in float16; a CPU computes in float32, a GPU in float16. weight-int8 stores them in int8 and
    computes in float32. int4 is dynamic-int8 with linear layers' weights in 4 bits, per channel; mixed has a format
    for each layer.
    """

    # Apple: what the LiteRT pods build for; Android: the oldest API of the LiteRT 2 archive.
    requires = Requirements(runtime="0.1.0", ios="15.0", macos="12.0", android_api=23)
    quantizes_files = True
    packages = ("litert-torch", "litert-converter", "ai-edge-litert", "ai-edge-quantizer", "torch")

    def __init__(self, target: Target = TARGET) -> None:
        """`target`: with this module's format."""
        self.target = target
        self.precisions = target.precisions

    def check(self, programs: Sequence[Program], precision: Precision) -> list[str]:
        """What LiteRT cannot do with these programs, one sentence each."""
        modules = ("litert_torch", "ai_edge_litert", "ai_edge_quantizer")
        return [
            *common_problems(self.target, self.precisions, modules, programs, precision),
            *plan_problems(self.target, programs, LAYER_FORMATS),
        ]

    def lower_fp32(self, programs: Sequence[Program], folder: Path) -> Lowered:
        """Write `model.tflite` with one signature per program into the empty folder."""
        traced = to_trace(programs)
        with quiet_tools(), torch.no_grad(), TemporaryDirectory() as scratch:
            exported = Path(scratch) / MODEL_FILE
            _export(traced, exported)
            if len(traced) < len(programs):
                try:
                    add_lengths(exported, programs)
                except NotAlikeError:  # nothing is lost but time
                    _export(programs, exported)
            store_compactly(exported, folder / MODEL_FILE)
        return self._lowered(programs, folder)

    def lower_precision(
        self, programs: Sequence[Program], fp32: Lowered, precision: Precision, folder: Path
    ) -> Lowered:
        """Quantize the fp32 `.tflite` into another one."""
        source = fp32.folder / MODEL_FILE
        with quiet_tools(), TemporaryDirectory() as scratch:
            quantized = Path(scratch) / MODEL_FILE
            if precision.name == "fp16":
                _store_weights_in_half(source, quantized)
            elif precision.name in PLANNED:
                quantize_by_plan(programs, source, quantized)
            else:
                quantize_to_int8(programs, precision.name, source, quantized)
            store_compactly(quantized, folder / MODEL_FILE)
        return self._lowered(programs, folder)

    def _lowered(self, programs: Sequence[Program], folder: Path) -> Lowered:
        with quiet_tools():
            graph = LiteRTGraph(folder / MODEL_FILE)
            operators, partitions = graph.count_operators(), count_partitions(graph)
        entries = {program.name: (MODEL_FILE, program.name) for program in programs}
        return Lowered(folder, (MODEL_FILE,), entries, operators, partitions)


def _export(programs: Sequence[Program], path: Path) -> None:
    """Write a `.tflite` with one signature per program, as the tool makes it."""
    import litert_torch

    _spare_repetitions()
    with ExitStack() as stack:
        converter: Any = litert_torch
        for program in programs:
            stack.enter_context(plain_norms(program.module))
            inputs = {spec.name: tensor for spec, tensor in zip(program.inputs, program.example_inputs(), strict=True)}
            converter = converter.signature(program.name, _NamedOutputs(program).eval(), sample_kwargs=inputs)
        converter.convert().export(str(path))


@cache
def _spare_repetitions() -> None:
    """Let litert-torch do once what it does several times. The same bytes.

    It has JAX lower an operator of the same shapes once for each signature: of two speech lengths at fp32 that is a
    fifth of the CPU time, and every further one shares more. And it decomposes a program when it is exported and again
    when it is lowered, a third of the time of either.
    """
    from litert_torch._convert import core
    from litert_torch.backend.jax_bridge import _wrap

    exporting: Any = core
    exporting.export_torch_signature = partial(core.export_torch_signature, run_decompositions=False)
    bridge: Any = _wrap
    lower, texts = bridge._lower_to_ir_text, dict[Any, str]()

    def lower_once(
        jaxfn: Any, args: Any, kwargs: Any, ir_input_names: Any = None
    ) -> tuple[Callable[[], str], list[Any]]:
        make_text, inputs = lower(jaxfn, args, kwargs, ir_input_names=ir_input_names)
        key = bridge.get_cache_fingerprint((jaxfn, args, kwargs, ir_input_names))  # shapes, dtypes and the code

        def text() -> str:
            if key not in texts:
                texts[key] = make_text()
            return texts[key]

        return (make_text if key is None else text), inputs

    bridge._lower_to_ir_text = lower_once
    bridge._stablehlo_to_vhlo = cache(bridge._stablehlo_to_vhlo)


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


def count_partitions(graph: LiteRTGraph) -> int:
    """How many partitions XNNPACK makes of all signatures; signatures of the same operators are counted alike."""
    counts: dict[tuple[str, ...], int] = {}
    for index, operators in enumerate(graph.sequences()):
        if operators not in counts:
            counts[operators] = _partitions(graph.alone(index))
    return sum(counts[operators] for operators in graph.sequences())


def _partitions(content: bytearray) -> int:
    """How many partitions XNNPACK makes of a model's first graph."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=bytes(content), num_threads=1)
    interpreter.allocate_tensors()
    # The delegate's nodes are appended to the plan under this name; the nodes that they replace stay listed.
    return [node["op_name"] for node in interpreter._get_ops_details()].count("DELEGATE")


@contextmanager
def plain_norms(module: nn.Module) -> Iterator[None]:
    """Let each LayerNorm be nine operators instead of litert-torch's fifteen.

    With their factors as rows, the weights of the linear layers behind are the same in every program. Otherwise LiteRT
    multiplies the factors into these, but not where the input is a single row, so that Whisper's decode and prefill
    would share half of their weights.
    """
    norms = [part for part in module.modules() if isinstance(part, nn.LayerNorm)]
    for norm in norms:
        norm.__dict__["forward"] = partial(_layer_norm, norm)
    try:
        yield
    finally:
        for norm in norms:
            norm.__dict__.pop("forward", None)  # programs share their layers


def _layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Layer normalisation (Ba et al. 2016, equation 3) over the last axis of x (..., C), by hand."""
    centred = x - x.mean(dim=-1, keepdim=True)
    out = centred * torch.rsqrt((centred * centred).mean(dim=-1, keepdim=True) + norm.eps)
    shape = (1,) * (x.dim() - 1) + (-1,)
    if norm.weight is not None:
        out = out * norm.weight.reshape(shape)
    return out if norm.bias is None else out + norm.bias.reshape(shape)
