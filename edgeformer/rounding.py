"""Weights rounded to int8 so that their errors cancel out on real inputs, before any converter sees them.

Rounded one by one, the weights of TinyViT-5M's linear layers and pointwise convolutions cost it a cosine of .994 to its
own logits; the activations, quantized per row while it runs, cost .0003. So each weight that is rounded passes its
error on to those of its row that are not yet (Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for
Generative Pre-trained Transformers", algorithm 1). Every target's quantizer then finds weights that int8 holds exactly.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from edgeformer.programs import Program

LARGEST_INT8 = 127
DAMPING = 0.01
"""Added to the diagonal, of its mean: section 3.3 of the paper."""
BLOCK = 128
"""Columns that are rounded before the error of all of them goes to the rest at once."""


@torch.no_grad()
def rounded_to_int8(programs: Sequence[Program]) -> tuple[Program, ...]:
    """Copies of the programs whose products' weights are multiples of their channel's int8 scale.

    Programs without calibration inputs come back as they are. Layers that programs share stay shared.

    Args:
        programs: their calibration inputs say how often and how strongly weights act together.
    """
    if not all(program.calibration for program in programs):
        return tuple(programs)
    modules = copy.deepcopy([program.module for program in programs])
    copies = tuple(replace(program, module=module) for program, module in zip(programs, modules, strict=True))
    for layer, products in _input_products(copies).items():
        # Kernels of 1 x 1 become rows as well: (out, in).
        rounded = round_rows(layer.weight.flatten(1), products)
        layer.weight.copy_(rounded.reshape(layer.weight.shape))
    return copies


def round_rows(weight: Tensor, products: Tensor) -> Tensor:
    """Round each row to multiples of its largest absolute value / 127, which keeps its value.

    Args:
        weight: (O, I) float32.
        products: (I, I) float64, the sum of x xᵀ over the inputs x.

    Returns:
        (O, I) float32.
    """
    order = torch.argsort(products.diagonal(), descending=True)
    factors = _error_factors(products[order][:, order])
    values = weight.double()[:, order]
    scale = weight.double().abs().amax(1) / LARGEST_INT8  # (O,)
    scale[scale == 0] = 1
    largest = values.abs().argmax(1)
    ends = torch.sign(values.gather(1, largest[:, None]))[:, 0] * LARGEST_INT8
    rounded = torch.empty_like(values)
    for start in range(0, values.shape[1], BLOCK):
        block = slice(start, min(start + BLOCK, values.shape[1]))
        errors = torch.zeros_like(values[:, block])
        for column in range(block.start, block.stop):
            steps = torch.round(values[:, column] / scale).clamp(-LARGEST_INT8, LARGEST_INT8)
            # Quantizers take the scale from the largest weight: it has to stay what it is.
            steps = torch.where(largest == column, ends, steps)
            rounded[:, column] = steps * scale
            error = (values[:, column] - rounded[:, column]) / factors[column, column]
            values[:, column : block.stop] -= error[:, None] * factors[column, column : block.stop]
            errors[:, column - start] = error
        values[:, block.stop :] -= errors @ factors[block, block.stop :]
    result = torch.empty_like(rounded)
    result[:, order] = rounded
    return result.float()


def _error_factors(products: Tensor) -> Tensor:
    """(I, I) upper triangular: row i tells how the error of weight i is shared out among the weights after it."""
    damped = products.clone()
    diagonal = damped.diagonal()
    diagonal += DAMPING * diagonal.mean()
    diagonal[diagonal == 0] = 1  # an input that is always zero, in a layer that gets nothing but zeros
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factors: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factors


def _input_products(programs: Sequence[Program]) -> dict[nn.Linear | nn.Conv2d, Tensor]:
    """For each layer that is a matrix product of channels, the sum of x xᵀ over its inputs: (I, I) float64."""
    found: dict[nn.Linear | nn.Conv2d, Tensor] = {}

    def observe(layer: nn.Linear | nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].movedim(1, -1) if isinstance(layer, nn.Conv2d) else inputs[0]
        rows = x.reshape(-1, x.shape[-1])
        products = (rows.T @ rows).double()
        found[layer] = found[layer] + products if layer in found else products

    layers = {layer for program in programs for layer in program.module.modules() if _is_product(layer)}
    handles = [layer.register_forward_pre_hook(observe) for layer in layers]
    for program in programs:
        for inputs in program.calibration:
            program.module(*inputs)
    for handle in handles:
        handle.remove()
    return found


def _is_product(layer: nn.Module) -> bool:
    """Whether a layer multiplies the channels of each position by one matrix."""
    if isinstance(layer, nn.Conv2d):
        return layer.kernel_size == (1, 1) and layer.groups == 1
    return isinstance(layer, nn.Linear)
