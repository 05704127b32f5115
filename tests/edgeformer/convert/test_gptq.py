"""Rounding to int8 with inputs at hand: on the grid, nearer to the float model than rounding weight by weight."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from edgeformer.convert.calibration import Grid, round_rows, round_weights
from edgeformer.convert.layer_plan import LARGEST_INT4, LARGEST_INT8, quantized
from edgeformer.models.family import Program
from edgeformer_runtime.bundle.manifest import TensorSpec

CHANNELS = 160  # more than one block of columns


class Model(nn.Module):
    """A pointwise convolution, a spatial one, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(CHANNELS, 24, 1)
        self.spatial = nn.Conv2d(24, 24, 3)
        self.linear = nn.Linear(24, 8)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """(1, C, 4, 4) to (1, 8)."""
        return (self.linear(self.spatial(torch.relu(self.pointwise(x))).mean((2, 3))),)


def inputs(count: int, seed: int) -> tuple[tuple[Tensor, ...], ...]:
    """Channels that go together, as those of images do."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(CHANNELS, 12, generator=torch.Generator().manual_seed(0))
    few = torch.randn(count, 1, 12, 4, 4, generator=generator)
    noise = 0.05 * torch.randn(count, 1, CHANNELS, 4, 4, generator=generator)
    return tuple((x,) for x in torch.einsum("ck,nbkhw->nbchw", mixing, few) + noise)


@pytest.fixture(scope="module")
def program() -> Program:
    torch.manual_seed(0)
    pixels, logits = TensorSpec("x", "float32", (1, CHANNELS, 4, 4)), TensorSpec("y", "float32", (1, 8))
    return Program("main", Model().eval(), (pixels,), (logits,), inputs(32, seed=1))


def steps(weight: Tensor) -> Tensor:
    """The weights as int8 would hold them, per row."""
    rows = weight.flatten(1)
    return rows / rows.abs().amax(1, keepdim=True) * LARGEST_INT8


def to_nearest(weight: Tensor) -> Tensor:
    rows = weight.flatten(1)
    scale = (rows.abs().amax(1, keepdim=True) / LARGEST_INT8).clamp(min=1e-9)
    return (torch.round(rows / scale) * scale).reshape(weight.shape)


def test_products_are_on_the_grid_of_int8_with_their_old_scale(program: Program) -> None:
    (rounded,) = round_weights([program])
    for name in ("pointwise", "linear"):
        before = program.module.get_parameter(f"{name}.weight").detach()
        after = rounded.module.get_parameter(f"{name}.weight").detach()
        torch.testing.assert_close(after.flatten(1).abs().amax(1), before.flatten(1).abs().amax(1))
        torch.testing.assert_close(steps(after), torch.round(steps(after)), rtol=0, atol=1e-3)
        assert not torch.equal(after, before)
    assert torch.equal(rounded.module.get_parameter("spatial.weight"), program.module.get_parameter("spatial.weight"))


def test_new_inputs_come_out_nearer_than_with_weights_rounded_one_by_one(program: Program) -> None:
    weight = program.module.get_parameter("pointwise.weight").detach().flatten(1)
    rounded = round_weights([program])[0].module.get_parameter("pointwise.weight").detach().flatten(1)
    x = torch.cat([value for (value,) in inputs(16, seed=2)]).movedim(1, -1).reshape(-1, CHANNELS)

    def error(candidate: Tensor) -> float:
        return float((x @ (candidate - weight).T).norm())

    # The channels have 12 directions: nearly all of the error can go to the other 148.
    assert error(rounded) < 0.3 * error(to_nearest(weight))


def test_independent_inputs_leave_nothing_to_pass_on() -> None:
    weight = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(round_rows(weight, 5 * torch.eye(32).double()), to_nearest(weight))


def test_rows_of_zeros_and_inputs_that_never_come_are_harmless() -> None:
    weight = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    weight[1] = 0
    products = torch.eye(32).double()
    products[3] = products[:, 3] = 0
    rounded = round_rows(weight, products)
    assert torch.equal(rounded[1], torch.zeros(32))
    torch.testing.assert_close(rounded, to_nearest(weight))
    torch.testing.assert_close(round_rows(weight, torch.zeros(32, 32).double()), to_nearest(weight))


def test_the_source_stays_as_it_is_and_shared_layers_stay_shared(program: Program) -> None:
    before = {name: value.clone() for name, value in program.module.state_dict().items()}
    first, second = round_weights([program, replace(program, name="other")])
    assert first.module is second.module
    for name, value in program.module.state_dict().items():
        assert torch.equal(value, before[name])


def test_without_inputs_nothing_changes(program: Program) -> None:
    uncalibrated = replace(program, calibration=())
    (same,) = round_weights([uncalibrated])
    assert same is uncalibrated


@pytest.mark.parametrize("block", [None, 32])
def test_four_bits_are_on_the_grid_of_their_blocks_and_nearer_than_to_nearest(
    program: Program, block: int | None
) -> None:
    planned = replace(program, layer_formats={"pointwise": "int4", "linear": "fp32"})
    (rounded,) = round_weights([planned], Grid(LARGEST_INT4, block))
    before = program.module.get_parameter("pointwise.weight").detach()
    after = rounded.module.get_parameter("pointwise.weight").detach()
    torch.testing.assert_close(quantized(after, "int4", block), after, rtol=0, atol=1e-6)
    assert torch.equal(rounded.module.get_parameter("linear.weight"), program.module.get_parameter("linear.weight"))
    x = torch.cat([value for (value,) in inputs(16, seed=2)]).movedim(1, -1).reshape(-1, CHANNELS)

    def error(candidate: Tensor) -> float:
        return float((x @ (candidate - before).flatten(1).T).norm())

    assert error(after) < 0.5 * error(quantized(before, "int4", block))


def test_layers_of_four_bits_stay_where_the_target_has_a_grid_of_its_own(program: Program) -> None:
    (same,) = round_weights([replace(program, layer_formats={"pointwise": "int4", "linear": "fp16"})])
    for name, value in program.module.state_dict().items():
        assert torch.equal(same.module.state_dict()[name], value)
