"""The attention kernels that Core ML bundles can have, in text, vision and speech, against torch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_factory import save_mobilebert, save_whisper

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer.convert.target import PRECISIONS
from edgeformer.models import tinyvit
from edgeformer.models.family import Program, ProgramOptions
from edgeformer_converters.checks import Lowered
from edgeformer_converters.coreml.converter import CoreMLConverter
from edgeformer_converters.mil.interpreter import run
from edgeformer_converters.mil.program import Function, Reference, read_program
from edgeformer_runtime.bundle.specs import HOST_STATE

pytestmark = [pytest.mark.coreml, pytest.mark.slow]
TINY_VIT: dict[str, Any] = {
    "architecture": "tiny_vit_5m_224",
    "model_args": {
        "embed_dims": [8, 12, 16],
        "depths": [1, 1, 1],
        "num_heads": [1, 2, 4],
        "window_sizes": [1, 3, 2],
        "mlp_ratio": 2.0,
        "mbconv_expand_ratio": 3.0,
    },
    "pretrained_cfg": {"input_size": [3, 48, 48], "crop_pct": 0.9},
}
HEADS = {"text": 2 * 2, "image": 2 + 4, "speech": 2 * 2}
"""Attention heads of the program, over its layers."""


def program_of(family: str, kernel: str, folder: Path) -> Program:
    """The first program of a small model of the family."""
    if family == "image":
        torch.manual_seed(0)
        config = tinyvit.FAMILY.parse_config(TINY_VIT)
        module = tinyvit.FAMILY.build(config, "image-classification", 5, KERNELS[kernel]).eval()
        return tinyvit.FAMILY.programs(module, config, ProgramOptions())[0]
    save = {"text": save_mobilebert, "speech": save_whisper}[family]
    checkpoint = open_checkpoint(str(save(folder / "checkpoint")), None, None, None)
    loaded, _ = load_module(checkpoint, KERNELS[kernel])
    options = ProgramOptions(seq_lens=(16,), audio_positions=(100,), decoder_state=HOST_STATE)
    return checkpoint.family.programs(loaded, checkpoint.config, options)[0]


def inputs_of(program: Program) -> dict[str, np.ndarray[Any, Any]]:
    """Seeded inputs; of texts the last quarter is padding."""
    random = np.random.default_rng(0)
    made: dict[str, np.ndarray[Any, Any]] = {}
    for spec in program.inputs:
        if spec.dtype == "float32":
            made[spec.name] = random.standard_normal(spec.shape).astype(np.float32)
        elif spec.name == "attention_mask":
            made[spec.name] = (np.arange(spec.shape[1]) < spec.shape[1] * 3 // 4).astype(np.int32)[None]
        else:
            made[spec.name] = random.integers(0, 2, spec.shape).astype(np.int32)
    return made


def shapes(function: Function, operator: str) -> list[tuple[tuple[int | None, ...], ...]]:
    """For each use of an operator the shapes of what it multiplies, and of its result."""
    known = {v.name: v.shape for each in function.operations for v in each.outputs}
    return [
        (*(known[each.name] for each in values if isinstance(each, Reference)), operation.outputs[0].shape)
        for operation in function.operations
        if operation.type == operator and isinstance(values := operation.inputs["values"], tuple)
    ]


@pytest.mark.parametrize("family", HEADS)
@pytest.mark.parametrize(("kernel", "precision"), [("split_heads", "fp32"), ("split_heads", "fp16"), ("fused", "fp32")])
def test_a_kernel_says_what_torch_says(family: str, kernel: str, precision: str, tmp_path: Path) -> None:
    program = program_of(family, kernel, tmp_path)
    package = tmp_path / "package"
    package.mkdir()
    unused = Lowered(package, (), {}, {}, None)
    lowered = CoreMLConverter().lower_precision((program,), unused, PRECISIONS[precision], package)
    inputs = inputs_of(program)
    with torch.no_grad():
        tensors = [torch.from_numpy(inputs[spec.name]).to(getattr(torch, spec.dtype)) for spec in program.inputs]
        expected = program.module(*tensors)
    file, entry = lowered.entries[program.name]
    got = run(package / file, inputs, entry)
    for spec, wanted in zip(program.outputs, expected, strict=True):
        limit = {"fp32": 1e-4, "fp16": 1e-2}[precision] * float(wanted.abs().max())
        assert np.abs(got[spec.name] - wanted.numpy()).max() < limit
    counts = Counter(each.type for each in read_program(package / file)[entry].operations)
    if kernel == "fused":
        assert counts["scaled_dot_product_attention"] > 0
        assert counts["einsum"] == 0
        return
    # Two products per head, and the sequence on the last axis of all they take and give.
    assert counts["scaled_dot_product_attention"] == 0
    found = shapes(read_program(package / file)[entry], "einsum")
    assert len(found) == counts["einsum"] == 2 * HEADS[family]
    for left, right, result in found:
        assert left[2] == right[2] == result[2] == 1
