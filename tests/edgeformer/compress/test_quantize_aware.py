"""Training with rounded weights: gradients pass, scales are learned, what is left is on the format's grid."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer.compress.quantize_aware import FakeQuantizer, LearnedScaleWeight, PlainWeight
from edgeformer.compress.recipe import QuantizeAware, Training
from edgeformer.convert.layer_plan import LayerPlan, quantizable_layers, quantized
from edgeformer_runtime.errors import InputError
from tests.edgeformer.compress import tiny

pytestmark = pytest.mark.slow


def weight(rows: int = 6, columns: int = 40) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


def test_plain_rounds_forwards_and_passes_gradients_backwards() -> None:
    value = weight().requires_grad_()
    rounded = PlainWeight("int4", None)(value)
    torch.testing.assert_close(rounded, quantized(value.detach(), "int4"), rtol=0, atol=1e-6)
    (rounded * 3).sum().backward()
    assert torch.equal(value.grad, torch.full_like(value, 3.0))  # type: ignore[arg-type]


@pytest.mark.parametrize("block", [None, 16])
def test_learned_scales_begin_at_the_largest_weights_and_never_exceed_them(block: int | None) -> None:
    value = weight()
    learned = LearnedScaleWeight(value, "int4", block)
    torch.testing.assert_close(learned(value), quantized(value, "int4", block))
    with torch.no_grad():
        learned.log_scale += 5
    torch.testing.assert_close(learned(value), quantized(value, "int4", block))


def test_learned_scales_clip_and_stay_a_grid_that_converters_find() -> None:
    value = weight()
    learned = LearnedScaleWeight(value, "int4", None)
    with torch.no_grad():
        learned.log_scale -= math.log(2)
    clipped = learned(value)
    assert bool((clipped.abs().amax(1) < 0.6 * value.abs().amax(1)).all())
    torch.testing.assert_close(quantized(clipped.detach(), "int4"), clipped)


def test_the_gradient_of_a_scale_is_that_of_the_paper() -> None:
    """Esser et al. 2020, equation 3: round(v) - v inside, the largest step outside; times the scale for its log."""
    value = torch.tensor([[0.30, -2.0, 0.9, 7.0]])
    learned = LearnedScaleWeight(value, "int4", None)
    with torch.no_grad():
        learned.log_scale.fill_(math.log(0.5))
    learned(value).sum().backward()
    steps = value / 0.5
    expected = torch.where(steps.abs() < 7, torch.round(steps) - steps, 7 * torch.sign(steps)).sum()
    torch.testing.assert_close(learned.log_scale.grad, 0.5 * expected[None])


@pytest.mark.parametrize("method", ["plain", "lsq"])
def test_a_small_net_learns_in_four_bits_and_keeps_its_zeros(method: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    with torch.no_grad():
        net[0].weight[:, :4] = 0
    x = torch.randn(256, 16)
    target = torch.tanh(x[:, 4:] @ torch.randn(12, 4) / 3)

    def loss() -> torch.Tensor:
        return (net(x) - target).square().mean()

    before = loss().item()
    quantizer = FakeQuantizer(net, QuantizeAware(format="int4", layers={"2": "int8"}, method=method))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        torch.autograd.backward(loss())
        optimizer.step()
    trained = loss().item()
    quantizer.finish()
    after = loss().item()
    assert after < 0.2 * before
    # Only the rounding of activations is gone.
    assert after == pytest.approx(trained, rel=0.2)
    assert not net[0].weight[:, :4].any()
    torch.testing.assert_close(quantized(net[0].weight.detach(), "int4"), net[0].weight.detach())
    torch.testing.assert_close(quantized(net[2].weight.detach(), "int8"), net[2].weight.detach())
    assert {name for name, _ in net.named_parameters()} == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_unknown_layers_are_refused() -> None:
    step = QuantizeAware(layers={"3": "fp32"}, training=Training())
    with pytest.raises(InputError, match="no quantizable layer 3"):
        FakeQuantizer(nn.Sequential(nn.Linear(2, 2)), step)
    with pytest.raises(InputError, match="format must be one of int8, int4"):
        QuantizeAware(format="fp32")


RECIPE = """
seq_len = 16
[[step]]
kind = "quantize_aware"
format = "int4"
layers = { classifier = "fp32" }
method = "lsq"
training = { epochs = 2, batch_size = 4, learning_rate = 1e-3 }
"""


def test_a_recipe_leaves_weights_that_convert_finds_on_the_grid(tmp_path: Path) -> None:
    data = tiny.save_texts(tmp_path / "texts.json")
    found = tiny.run(tiny.save_classifier(tmp_path / "source"), RECIPE, data, tmp_path / "out")
    module, _ = load_module(open_checkpoint(str(found.path)), KERNELS["dense"])
    plan = LayerPlan.from_json(found.report["steps"][0]["results"]["plan"])
    formats = plan.formats(module)
    assert formats["classifier"] == "fp32"
    for name, layer in quantizable_layers(module).items():
        torch.testing.assert_close(quantized(layer.weight.detach(), formats[name]), layer.weight.detach())
