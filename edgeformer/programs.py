"""A program: one exportable forward with static shapes. Families make programs, converters lower them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeformer_runtime.manifest import TensorSpec

TORCH_DTYPES = {"float32": torch.float32, "int32": torch.int32}


@dataclass(frozen=True)
class Program:
    """An exportable forward and the names by which every target knows its inputs and outputs.

    `module(*inputs)` takes tensors in the order of `inputs` and returns a tuple in the order of `outputs`.
    Its parameters and buffers are contiguous float32 (a converter may export other strides wrongly).
    `calibration` holds inputs as the model will meet them, a tuple each, for static quantization; empty: none given.
    """

    name: str
    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    calibration: tuple[tuple[Tensor, ...], ...] = ()

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Inputs of the right dtypes and shapes, all ones: enough to trace the program."""
        return tuple(torch.ones(spec.shape, dtype=TORCH_DTYPES[spec.dtype]) for spec in self.inputs)
