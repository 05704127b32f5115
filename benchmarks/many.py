"""Many texts in a list: a bundle, and ONNX Runtime by hand over sorted batches of a symbolic size.

`benchmarks.sentences` measures them; a process of its own imports this for each.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeformer_runtime.bench.contender import Contender, Run
from edgeformer_runtime.bench.workload import read_inputs
from edgeformer_runtime.bundle.bundle import Bundle

BATCHES = (8, 32)
"""Texts of a batch; of each precision the faster one is told."""
MOST_TEXTS = 64


def bundle_over(path: Path, inputs: Path) -> Contender:
    """A bundle as a contender whose run is a call with the whole list."""
    with Bundle.open(path) as bundle:
        manifest, size = bundle.manifest, bundle.model_size_bytes
    arguments = {"path": str(path), "inputs": str(inputs)}
    name = path.name
    return Contender(name, manifest.target, manifest.precision, f"{__name__}:bundle_run", arguments, size)


def peers_over(models: Sequence[Path], tokenizer: Path, longest: int, inputs: Path) -> list[Contender]:
    """ONNX Runtime at fp32 and int8, with each size of batches."""
    shared = {"tokenizer": str(tokenizer), "longest": longest, "inputs": str(inputs)}
    return [
        Contender(
            name=f"onnxruntime, sorted batches of {size}",
            engine="onnxruntime",
            precision=precision,
            factory=f"{__name__}:batches_run",
            arguments={**shared, "model": str(model), "size": size},
            size_bytes=model.stat().st_size,
        )
        for precision, model in zip(("fp32", "dynamic-int8"), models, strict=True)
        for size in BATCHES
    ]


def export_batches(program: Any, folder: Path) -> tuple[Path, Path]:
    """A text program with symbolic batch and length at fp32, and at int8 as ONNX Runtime's own tool makes it."""
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    longest = program.inputs[0].shape[1]
    sizes = {0: torch.export.Dim("B", min=1, max=MOST_TEXTS), 1: torch.export.Dim("S", min=2, max=longest)}
    shapes = dict(inspect.signature(program.module.forward).bind(*(sizes for _ in program.inputs)).arguments)
    exported = torch.onnx.export(
        program.module,
        tuple(tensor.repeat(3, 1) for tensor in program.example_inputs()),
        dynamo=True,
        opset_version=20,
        input_names=[spec.name for spec in program.inputs],
        dynamic_shapes=shapes,
        verbose=False,
    )
    assert exported is not None
    fp32, int8 = folder / "batches.onnx", folder / "batches-int8.onnx"
    exported.save(str(fp32))
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        quantize_dynamic(fp32, int8, per_channel=True, weight_type=QuantType.QInt8)
    finally:
        logging.disable(disabled)
    return fp32, int8


def bundle_run(path: str, inputs: str, threads: int) -> Run:
    """A call with the list."""
    from edgeformer_runtime import load

    pipeline, texts = load(path, threads), read_inputs(inputs)
    return lambda: pipeline(texts)


def batches_run(model: str, tokenizer: str, longest: int, inputs: str, size: int, threads: int) -> Run:
    """The list in batches of texts of nearly one length, each padded to its longest; outputs in the list's order."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread means one
    from tokenizers import Tokenizer

    from edgeformer.bench.peers import onnxruntime_session

    session, texts = onnxruntime_session(model, threads), read_inputs(inputs)
    library = Tokenizer.from_file(tokenizer)
    library.no_padding()
    library.enable_truncation(longest)
    names = [each.name for each in session.get_inputs()]

    def run() -> object:
        encoded = library.encode_batch(texts)
        order = sorted(range(len(encoded)), key=lambda number: len(encoded[number].ids))
        found: list[Any] = [None] * len(encoded)
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            shape = len(batch), len(encoded[batch[-1]].ids)
            inputs = {name: np.zeros(shape, np.int32) for name in names}
            for row, number in enumerate(batch):
                each = encoded[number]
                columns = {
                    "input_ids": each.ids,
                    "attention_mask": each.attention_mask,
                    "token_type_ids": each.type_ids,
                }
                for name in names:
                    inputs[name][row, : len(each.ids)] = columns[name]
            (outputs,) = session.run(None, inputs)
            for row, number in enumerate(batch):
                found[number] = outputs[row]
        return found

    return run
