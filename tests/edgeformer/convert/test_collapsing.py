"""The collapsing model answers in float as its source does, falls apart in int8, and a plan saves it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer.compress.quantize_aware import fake_quantized
from edgeformer.convert.layer_plan import LayerPlan
from tests.edgeformer.convert.collapsing import save_collapsing

SOURCE = "clinc150-mobilebert"
LENGTH = 24


def module_of(source: str) -> nn.Module:
    return load_module(open_checkpoint(source), KERNELS["dense"])[0]


@pytest.fixture(scope="module")
def inputs() -> Mapping[str, Tensor]:
    ids = torch.randint(5, 7000, (128, LENGTH), generator=torch.Generator().manual_seed(0))
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "token_type_ids": torch.zeros_like(ids),
    }


@torch.no_grad()
def answers(module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    (logits,) = module(*inputs.values())
    return torch.as_tensor(logits)


def test_float_stays_int8_falls_and_a_plan_saves(inputs: Mapping[str, Tensor], tmp_path: Path) -> None:
    plan = save_collapsing(SOURCE, tmp_path / "model")
    module = module_of(str(tmp_path / "model"))
    expected = answers(module_of(SOURCE), inputs)
    torch.testing.assert_close(answers(module, inputs), expected, rtol=0, atol=1e-4)

    def agreement(plan: LayerPlan) -> float:
        with fake_quantized(module, plan, "litert"):
            return float((answers(module, inputs).argmax(1) == expected.argmax(1)).float().mean())

    assert agreement(LayerPlan(default="int8")) < 0.5
    assert agreement(plan) > 0.9
    # What is saved is worth it: most weights are still in int8.
    assert plan.weight_bytes(module) < 0.6 * LayerPlan(default="fp32").weight_bytes(module)
