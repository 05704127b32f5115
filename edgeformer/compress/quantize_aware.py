"""Training that knows of quantization: layers compute with the values that their formats hold, gradients pass through.

Rounding has no useful gradient; the straight-through estimator takes it for the identity (Bengio et al. 2013,
"Estimating or Propagating Gradients Through Stochastic Neurons"). By the method lsq, scales are trained as well (Esser
et al. 2020, "Learned Step Size Quantization"), as logarithms, so that a step of Adam changes them by a share and not by
an amount that a small scale does not survive (Jain et al. 2020, "Trained Quantization Thresholds").
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgeformer.compress.recipe import QuantizeAware
from edgeformer.convert.layer_plan import BITS, LayerPlan, is_matmul, quantizable_layers, quantized
from edgeformer.convert.target import ROW, TARGETS


class PlainWeight(nn.Module):
    """A parametrization: the weight (O, ...) rounded to nearest, its scales taken from its largest values."""

    def __init__(self, format: str, block: int | None) -> None:
        super().__init__()
        self.format, self.block = format, block

    def forward(self, weight: Tensor) -> Tensor:
        """(O, ...) to the same."""
        return weight + (quantized(weight.detach(), self.format, self.block) - weight.detach())


class LearnedScaleWeight(nn.Module):
    """A parametrization: the weight (O, ...) rounded to multiples of trained scales, one per row or block.

    A scale never exceeds the largest weight / the largest step: so the row's largest weight is the largest step, and
    every converter, which takes the scale from that weight, finds the same steps.
    """

    def __init__(self, weight: Tensor, format: str, block: int | None) -> None:
        super().__init__()
        self.largest = 2 ** (BITS[format] - 1) - 1
        self.width = block or weight[0].numel()
        blocks = self._blocks(weight.detach())
        self._shape = blocks.shape[:2]
        self.log_scale = nn.Parameter(self._most(blocks).flatten().log())  # one axis: it does not decay

    def forward(self, weight: Tensor) -> Tensor:
        """(O, ...) to the same."""
        blocks = self._blocks(weight)
        scale = torch.minimum(self.log_scale.exp().reshape(*self._shape, 1), self._most(blocks.detach()))
        steps = (blocks / scale).clamp(-self.largest, self.largest)
        steps = steps + (torch.round(steps) - steps).detach()
        rows = (steps * scale).reshape(len(weight), -1)
        return rows[:, : weight[0].numel()].reshape(weight.shape)

    def _blocks(self, weight: Tensor) -> Tensor:
        """(O, ...) as (O, blocks, width), the last block filled up with zeros."""
        rows = weight.reshape(len(weight), -1)
        return nn.functional.pad(rows, (0, -rows.shape[1] % self.width)).reshape(len(rows), -1, self.width)

    def _most(self, blocks: Tensor) -> Tensor:
        """(O, blocks, 1): the largest scale of each block; 1 where all is zero."""
        largest = blocks.abs().amax(2, keepdim=True)
        return torch.where(largest == 0, torch.ones_like(largest), largest / self.largest)


class KeptZeros(nn.Module):
    """A parametrization in front of another: weights that are zero now stay zero."""

    mask: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", (weight.detach() != 0).to(weight.dtype))

    def forward(self, weight: Tensor) -> Tensor:
        """Any shape to the same."""
        return weight * self.mask


class FakeQuantizer:
    """Makes a module compute as in a plan's formats while it is trained; `finish` leaves the rounded weights."""

    def __init__(self, module: nn.Module, step: QuantizeAware) -> None:
        """Raises InputError where the step names layers that the module does not have."""
        plan = LayerPlan(step.layers, step.format)
        plan.check(module)
        formats = plan.formats(module)
        self.plan = plan
        self._layers = {
            name: layer for name, layer in quantizable_layers(module).items() if formats[name].startswith("int")
        }
        self._hooks = []
        for name, layer in self._layers.items():
            block = (step.block or None) if formats[name] == "int4" else None
            if step.training.keep_zeros and bool((layer.weight == 0).any()):
                parametrize.register_parametrization(layer, "weight", KeptZeros(layer.weight))
            made = (
                LearnedScaleWeight(layer.weight, formats[name], block)
                if step.method == "lsq"
                else PlainWeight(formats[name], block)
            )
            parametrize.register_parametrization(layer, "weight", made)
            if step.activations != "float" and is_matmul(layer):
                rows = step.activations == "row" and isinstance(layer, nn.Linear)
                self._hooks.append(layer.register_forward_pre_hook(partial(_quantize_trained_input, rows=rows)))

    def finish(self) -> None:
        """Make the rounded values the weights, and let activations be."""
        for hook in self._hooks:
            hook.remove()
        for layer in self._layers.values():
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def _quantize_trained_input(layer: nn.Module, inputs: tuple[Tensor, ...], rows: bool) -> tuple[Tensor, ...]:  # noqa: ARG001
    x = inputs[0]
    return (x + (quantized_activations(x.detach(), rows) - x.detach()), *inputs[1:])


# Fake quantization: a module that computes in float32 with the values that its layers have in a plan's formats.


@contextmanager
def fake_quantized(module: nn.Module, plan: LayerPlan, target: str) -> Iterator[None]:
    """Inside the block, the module computes as a target would in a plan's formats; behind it, it is what it was.

    Args:
        module: of `quantizable_layers`; its weights are replaced for the time of the block.
        plan: formats by the module's names.
        target: one of `TARGETS`.

    Raises:
        InputError: the plan is for another module.
    """
    plan.check(module)
    arithmetic = TARGETS[target]
    layers = quantizable_layers(module)
    formats = {name: plan.format_of(name) for name in layers}
    kept = {name: layer.weight.data for name, layer in layers.items() if formats[name] != "fp32"}
    hooks = []
    try:
        for name, weight in kept.items():
            layer = layers[name]
            # Under the layer's own parameter, so that an output layer that is tied to a table changes with it.
            block = arithmetic.int4.block if formats[name] == "int4" else None
            layer.weight.data = quantized(weight, formats[name], block)
            if arithmetic.activations is not None and formats[name].startswith("int") and is_matmul(layer):
                rows = arithmetic.activations == ROW and isinstance(layer, nn.Linear)
                hooks.append(layer.register_forward_pre_hook(partial(_quantize_input, rows=rows)))
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for name, weight in kept.items():
            layers[name].weight.data = weight


def _quantize_input(layer: nn.Module, inputs: tuple[Tensor, ...], rows: bool) -> tuple[Tensor, ...]:  # noqa: ARG001
    return (quantized_activations(inputs[0], rows), *inputs[1:])


def quantized_activations(x: Tensor, rows: bool) -> Tensor:
    """The values of x in 256 levels from its smallest to its largest, among which zero is one.

    Args:
        x: (B, ..., C) float32.
        rows: a scale for each row of C values; otherwise for each of the B examples.
    """
    axes = (-1,) if rows else tuple(range(1, x.dim()))
    low = x.amin(axes, keepdim=True).clamp(max=0)
    scale = (x.amax(axes, keepdim=True).clamp(min=0) - low) / 255
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = torch.round(-low / scale)
    return (torch.clamp(torch.round(x / scale) + zero, 0, 255) - zero) * scale
