"""What a `.tflite` keeps once, and what it must keep twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeformer.convert.target import PRECISIONS
from edgeformer.models.family import Program
from edgeformer_runtime.bundle.manifest import TensorSpec

pytestmark = pytest.mark.litert
SIZE = 64


class Scaled(nn.Module):
    """A linear layer whose weights are a power of two times those of another: equal integers, other scales."""

    def __init__(self, weight: Tensor, factor: float) -> None:
        super().__init__()
        self.linear = nn.Linear(SIZE, SIZE, bias=False)
        self.linear.weight = nn.Parameter(weight * factor, requires_grad=False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """x (1, SIZE) to the same."""
        return (self.linear(x),)


def test_weights_of_equal_integers_keep_their_scales_in_a_shared_weight_cache(tmp_path: Path) -> None:
    from edgeformer_converters.litert.converter import MODEL_FILE, LiteRTConverter
    from edgeformer_runtime.engines.litert import open_model

    torch.manual_seed(0)
    weight = torch.randn(SIZE, SIZE)
    spec = (TensorSpec("x", "float32", (1, SIZE)),)
    answer = (TensorSpec("y", "float32", (1, SIZE)),)
    programs = tuple(
        Program(name, Scaled(weight, factor).eval(), spec, answer)
        for name, factor in (("whole", 1.0), ("eighth", 0.125))
    )
    for folder in ("fp32", "int8"):
        (tmp_path / folder).mkdir()
    fp32 = LiteRTConverter().lower_fp32(programs, tmp_path / "fp32")
    LiteRTConverter().lower_precision(programs, fp32, PRECISIONS["dynamic-int8"], tmp_path / "int8")
    model = open_model(tmp_path / "int8" / MODEL_FILE, threads=1)
    x = torch.randn(1, SIZE)
    for program in programs:
        given = model.create_input_buffer_by_name(program.name, "x")
        taken = model.create_output_buffer_by_name(program.name, "y")
        given.write(x.numpy())
        model.run_by_name(program.name, {"x": given}, {"y": taken})
        (expected,) = program.module(x)
        largest = float(expected.abs().max())
        assert np.abs(taken.read(SIZE, np.float32) - expected[0].numpy()).max() < 0.03 * largest
