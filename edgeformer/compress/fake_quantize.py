"""Fake quantization: a module that computes in float32 with the values that its layers have in a plan's formats."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from edgeformer.convert.layer_plan import LayerPlan, is_product, quantizable_layers, quantized
from edgeformer.convert.target import ROW, TARGETS


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
            if arithmetic.activations is not None and formats[name].startswith("int") and is_product(layer):
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
