"""Calibration: real inputs, preprocessed, by which weights are rounded and static quantization takes its ranges."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeformer.convert.layer_plan import LARGEST_INT8, is_matmul
from edgeformer.models.family import MIN_MAX, Program
from edgeformer.tasks.task import TaskSpec
from edgeformer_runtime.bundle.vectors import Case
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.interface import StrPath


def calibrated(
    programs: tuple[Program, ...], spec: TaskSpec, data: StrPath, method: str = MIN_MAX
) -> tuple[Program, ...]:
    """The programs with calibration inputs: images of a folder, subfolders included, or texts.

    Of more than `MAX_CALIBRATION_SAMPLES` that many are taken, spread evenly over the sorted names, or over the table.

    Args:
        programs: of the model.
        spec: how its inputs are made.
        data: a folder of images or audio; or a table of texts as `eval` takes it (labels are not looked at), or a .txt
            with a text on each line.
        method: one of `edgeformer.models.family.METHODS`.

    Raises:
        InputError: there are no inputs, one of them cannot be read, or the model takes another kind.
    """
    calibrate = spec.task.calibrate
    if calibrate is None:
        kind = spec.task.takes
        raise InputError(f"calibration takes images or texts, and this model takes {kind}: leave --calibration out")
    programs = tuple(replace(program, calibration_method=method) for program in programs)
    return calibrate(programs, spec, Path(data))


def or_samples(programs: tuple[Program, ...], spec: TaskSpec) -> tuple[Program, ...]:
    """The programs, where they have no calibration inputs with those that stand in for their task, if it has any."""
    if programs[0].calibration or spec.task.sample_inputs is None:
        return programs
    inputs = spec.task.sample_inputs(spec)
    return tuple(replace(program, calibration=inputs) for program in programs)


def or_recorded(programs: tuple[Program, ...], cases: Sequence[Case]) -> tuple[Program, ...]:
    """The programs, where they have no calibration inputs with those of the recorded cases as such.

    Enough to see which activations leave float16's range. Of long inputs only a part is recorded: none then.
    """
    shapes = {program.name: {spec.name: spec.shape for spec in program.inputs} for program in programs}
    whole = all({name: value.shape for name, value in case.inputs.items()} == shapes[case.program] for case in cases)
    if programs[0].calibration or not whole:
        return programs
    return tuple(
        replace(
            program,
            calibration=tuple(
                tuple(torch.from_numpy(case.inputs[spec.name]) for spec in program.inputs)
                for case in cases
                if case.program == program.name
            ),
        )
        for program in programs
    )


# Weights rounded to integers so that their errors cancel out on real inputs, before any converter sees them.
#
# Rounded one by one, the weights of TinyViT-5M's linear layers and pointwise convolutions cost it a cosine of .994 to
# its own logits; the activations, quantized per row while it runs, cost .0003. So each weight that is rounded passes
# its error on to those of its row that are not yet (Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for
# Generative Pre-trained Transformers", algorithm 1). Every target's quantizer then finds weights that its integers hold
# exactly.


DAMPING = 0.01
"""Added to the diagonal, of its mean: section 3.3 of the paper."""
BLOCK = 128
"""Columns that are rounded before the error of all of them goes to the rest at once."""


@dataclass(frozen=True)
class Grid:
    """The values that a format can hold: multiples, up to `largest`, of a scale per row, or per block of its columns.

    A scale is the largest absolute weight / `largest`, as every converter takes it.
    """

    largest: int = LARGEST_INT8
    block: int | None = None


INT8 = Grid()


@torch.no_grad()
def round_weights(programs: Sequence[Program], int4: Grid | None = None) -> tuple[Program, ...]:
    """Copies of the programs whose products' weights are on the grid of their format, int8 where there is no plan.

    Programs without calibration inputs come back as they are. Layers that programs share stay shared.

    Args:
        programs: their calibration inputs say how often and how strongly weights act together.
        int4: the target's grid of 4 bits; None: layers of that format stay as they are.
    """
    if not all(program.calibration for program in programs):
        return tuple(programs)
    modules = copy.deepcopy([program.module for program in programs])
    copies = tuple(replace(program, module=module) for program, module in zip(programs, modules, strict=True))
    grids: Mapping[str, Grid | None] = {"int8": INT8, "int4": int4}
    for layer, (grid, products) in _input_products(copies, grids).items():
        # Kernels of 1 x 1 become rows as well: (out, in).
        rounded = round_rows(layer.weight.flatten(1), products, grid)
        layer.weight.copy_(rounded.reshape(layer.weight.shape))
    return copies


def round_rows(weight: Tensor, products: Tensor, grid: Grid = INT8) -> Tensor:
    """Round each row to multiples of its scale, or its blocks' scales; what a scale is taken from keeps its value.

    Args:
        weight: (O, I) float32.
        products: (I, I) float64, the sum of x xᵀ over the inputs x.
        grid: what the format can hold.

    Returns:
        (O, I) float32.
    """
    order = torch.argsort(products.diagonal(), descending=True)
    factors = _error_factors(products[order][:, order])
    scales, ends = (each[:, order] for each in _scales_and_ends(weight.double(), grid))
    values = weight.double()[:, order]
    rounded = torch.empty_like(values)
    for start in range(0, values.shape[1], BLOCK):
        block = slice(start, min(start + BLOCK, values.shape[1]))
        errors = torch.zeros_like(values[:, block])
        for column in range(block.start, block.stop):
            steps = torch.round(values[:, column] / scales[:, column]).clamp(-grid.largest, grid.largest)
            # Quantizers take the scale from the largest weight: it has to stay what it is.
            steps = torch.where(ends[:, column] == 0, steps, ends[:, column])
            rounded[:, column] = steps * scales[:, column]
            error = (values[:, column] - rounded[:, column]) / factors[column, column]
            values[:, column : block.stop] -= error[:, None] * factors[column, column : block.stop]
            errors[:, column - start] = error
        values[:, block.stop :] -= errors @ factors[block, block.stop :]
    result = torch.empty_like(rounded)
    result[:, order] = rounded
    return result.float()


def _scales_and_ends(weight: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """For each weight (O, I) its scale; and its number of steps where a scale is taken from it, elsewhere 0."""
    rows, columns = weight.shape
    width = columns if grid.block is None else grid.block
    blocks = nn.functional.pad(weight, (0, -columns % width)).reshape(rows, -1, width)
    largest = blocks.abs().amax(2, keepdim=True)
    scales = torch.where(largest == 0, torch.ones_like(largest), largest / grid.largest)
    place = blocks.abs().argmax(2, keepdim=True)
    ends = torch.zeros_like(blocks).scatter(2, place, torch.sign(blocks.gather(2, place)) * grid.largest)
    spread = scales.expand_as(blocks)
    return spread.reshape(rows, -1)[:, :columns], ends.reshape(rows, -1)[:, :columns]


def _error_factors(products: Tensor) -> Tensor:
    """(I, I) upper triangular: row i tells how the error of weight i is shared out among the weights after it."""
    damped = products.clone()
    diagonal = damped.diagonal()
    diagonal += DAMPING * diagonal.mean()
    diagonal[diagonal == 0] = 1  # an input that is always zero, in a layer that gets nothing but zeros
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factors: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factors


def _input_products(
    programs: Sequence[Program], grids: Mapping[str, Grid | None]
) -> dict[nn.Linear | nn.Conv2d, tuple[Grid, Tensor]]:
    """For each product of channels that has a grid, that grid and the sum of x xᵀ over its inputs: (I, I) float64."""
    chosen: dict[nn.Linear | nn.Conv2d, Grid] = {}
    for program in programs:
        for name, layer in program.module.named_modules():
            grid = grids.get(program.layer_formats.get(name, "int8"))
            if grid is not None and is_matmul(layer):
                assert isinstance(layer, nn.Linear | nn.Conv2d)
                chosen[layer] = grid
    found: dict[nn.Linear | nn.Conv2d, Tensor] = {}

    def observe(layer: nn.Linear | nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].movedim(1, -1) if isinstance(layer, nn.Conv2d) else inputs[0]
        rows = x.reshape(-1, x.shape[-1])
        products = (rows.T @ rows).double()
        found[layer] = found[layer] + products if layer in found else products

    handles = [layer.register_forward_pre_hook(observe) for layer in chosen]
    for program in programs:
        for inputs in program.calibration:
            program.module(*inputs)
    for handle in handles:
        handle.remove()
    return {layer: (chosen[layer], products) for layer, products in found.items()}
