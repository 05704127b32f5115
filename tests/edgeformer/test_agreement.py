"""Agreement over calibration inputs: counted against the source in torch, the worst cosine kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from edgeformer.agreement import Agreement, agreement, calibration_references
from edgeformer.programs import Program
from edgeformer.torch_engine import TorchEngine
from edgeformer_runtime.manifest import TensorSpec

INPUTS = ((4.0, 3.0), (3.0, 4.0), (1.0, 0.0), (0.0, 2.0))


class Weighted(nn.Module):
    """(1, 2) times a weight per component."""

    def __init__(self, first: float, second: float) -> None:
        super().__init__()
        self.weights = torch.tensor([first, second])

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (x * self.weights,)


@pytest.fixture
def source() -> Program:
    calibration = tuple((torch.tensor([values]),) for values in INPUTS)
    return Program(
        "main",
        Weighted(1, 1),
        (TensorSpec("x", "float32", (1, 2)),),
        (TensorSpec("logits", "float32", (1, 2)),),
        calibration,
    )


def test_agreement_counts_best_labels_and_keeps_the_smallest_cosine(source: Program) -> None:
    other = TorchEngine([replace(source, module=Weighted(1, 2))])
    found = agreement(other, calibration_references([source]), classifies=True)
    # (4, 3) becomes (4, 6): another label, cosine 34 / (5 sqrt(52)); (3, 4) becomes (3, 8): 41 / (5 sqrt(73)).
    assert (found.n, found.top1) == (4, 0.75)
    assert found.cosine == pytest.approx(34 / (5 * 52**0.5))
    assert found.to_json() == {"n": 4, "top1": 0.75, "cosine": found.cosine}


def test_an_embedding_has_no_labels_to_agree_on(source: Program) -> None:
    same = TorchEngine([source])
    assert agreement(same, calibration_references([source]), classifies=False) == Agreement(4, None, 1.0)


def test_a_result_that_is_not_finite_has_no_cosine(source: Program) -> None:
    broken = TorchEngine([replace(source, module=Weighted(float("nan"), 1))])
    assert agreement(broken, calibration_references([source]), classifies=True).cosine is None


def test_without_calibration_there_are_no_further_references(source: Program) -> None:
    assert calibration_references([replace(source, calibration=())]) == ()
