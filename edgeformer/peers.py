"""Peers for `bench --against`: other engines on the same weights and the same recorded input, each at its best.

Peers compute what public implementations of the model do: what our programs leave out is part of the comparison.

Each peer is a factory that `edgeformer_runtime.bench` calls in a process of its own, so it imports only what it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from edgeformer.attention import KERNEL_FOR_TARGET, KERNELS
from edgeformer.checkpoints import Checkpoint, load_module, open_checkpoint
from edgeformer.models.text_tasks import compute_all_tokens
from edgeformer.programs import Program, ProgramOptions
from edgeformer.source_index import open_source
from edgeformer.targets import converter_for
from edgeformer_runtime.bench import Contender
from edgeformer_runtime.bundle import Bundle
from edgeformer_runtime.engines.base import Tensor
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.vectors import longest_case

PEERS = ("onnxruntime", "openvino", "torch")

# PyTorch's fused attention is its fastest on a CPU, so that is what the peer gets.
TORCH_ATTENTION = "fused"

Run = Callable[[], object]


def peer_contenders(names: Sequence[str], bundle: Bundle, source: str | None, folder: Path) -> list[Contender]:
    """Prepare the named peers' models and the bundle's longest recorded input in `folder`.

    Args:
        names: members of `PEERS`.
        bundle: whose weights and input the peers get.
        source: the checkpoint; None: where this user converted it from.
        folder: an empty folder that lives as long as the benchmark.

    Raises:
        InputError: an unknown peer, or a source whose weights are not the bundle's.
    """
    for name in names:
        if name not in PEERS:
            raise InputError(f"unknown peer {name!r}: expected one of {', '.join(PEERS)}")
    manifest = bundle.manifest
    checkpoint = open_source(manifest, source)
    case = longest_case(bundle)
    inputs = folder / "inputs.npz"
    np.savez(inputs, **case.inputs)  # type: ignore[arg-type]
    contenders: list[Contender] = []
    if {"onnxruntime", "openvino"} & set(names):
        fp32, int8 = _onnx_models(checkpoint, _seq_lens(case.inputs), folder)
        rows = [("onnxruntime", "fp32", fp32), ("onnxruntime", "dynamic-int8", int8), ("openvino", "fp32", fp32)]
        if "openvino" in names and _has_bfloat16():
            rows.append(("openvino", "bf16", fp32))
        contenders += [
            Contender(
                name=name,
                engine=name,
                precision=precision,
                factory=f"edgeformer.peers:{name}_run",
                arguments={"model": str(model), "inputs": str(inputs), "precision": precision},
                size_bytes=model.stat().st_size,
            )
            for name, precision, model in rows
            if name in names
        ]
    if "torch" in names:
        arguments = {"source": str(checkpoint.folder), "task": manifest.task, "inputs": str(inputs)}
        size = sum(file.stat().st_size for file in checkpoint.weight_files)
        contenders.append(Contender("torch", "torch", "fp32", "edgeformer.peers:torch_run", arguments, size))
    return contenders


def onnxruntime_run(model: str, inputs: str, precision: str, threads: int) -> Run:  # noqa: ARG001
    """ONNX Runtime on the CPU with its default graph optimisations (all); the precision is the model's own."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    arrays = _arrays(inputs)
    return lambda: session.run(None, arrays)


def openvino_run(model: str, inputs: str, precision: str, threads: int) -> Run:
    """OpenVINO on the CPU, tuned for latency. It computes in bfloat16 by itself where the CPU can: hence the hint."""
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
    }
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    arrays = _arrays(inputs)
    return lambda: request.infer(arrays)


def torch_run(source: str, task: str, inputs: str, threads: int) -> Run:
    """Our module eagerly in torch, with torch's fused attention."""
    import torch

    torch.set_num_threads(threads)
    arrays = _arrays(inputs)
    (program,) = _programs(open_checkpoint(source, task=task), _seq_lens(arrays), TORCH_ATTENTION)
    tensors = [torch.from_numpy(arrays[spec.name]) for spec in program.inputs]

    def run() -> object:
        with torch.inference_mode():
            return program.module(*tensors)

    return run


def _has_bfloat16() -> bool:
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _onnx_models(checkpoint: Checkpoint, seq_lens: tuple[int, ...], folder: Path) -> tuple[Path, Path]:
    """The checkpoint as ONNX at fp32, and at dynamic int8 as ONNX Runtime's own tool makes it."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    programs = _programs(checkpoint, seq_lens, KERNEL_FOR_TARGET["onnx"])
    lowered = converter_for("onnx").lower_fp32(programs, folder)
    fp32 = folder / lowered.entries[programs[0].name][0]
    int8 = folder / "dynamic-int8.onnx"
    # Signed weights are the faster kind on x86.
    quantize_dynamic(fp32, int8, per_channel=True, weight_type=QuantType.QInt8)
    return fp32, int8


def _programs(checkpoint: Checkpoint, seq_lens: tuple[int, ...], attention: str) -> tuple[Program, ...]:
    module, _ = load_module(checkpoint, KERNELS[attention])
    compute_all_tokens(module)
    return checkpoint.family.programs(module, checkpoint.config, ProgramOptions(seq_lens=seq_lens))


def _seq_lens(inputs: Mapping[str, Tensor]) -> tuple[int, ...]:
    """The bucket of a text's inputs; images have none."""
    return (int(inputs["input_ids"].shape[1]),) if "input_ids" in inputs else ()


def _arrays(path: str) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return dict(arrays)
