"""Which weights become zero, when, and that they stay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgeformer.compress.prune import SparseWeight, Sparsifier, ZeroKeeper, cubic
from edgeformer.compress.recipe import Sparsify


def test_the_share_of_zeros_rises_as_a_cubic() -> None:
    step = Sparsify(0.8, begin=0.2, end=0.7)
    assert cubic(0.0, step) == cubic(0.2, step) == 0.0
    assert cubic(0.45, step) == pytest.approx(0.8 * (1 - 0.5**3))  # half the way
    assert cubic(0.7, step) == cubic(1.0, step) == pytest.approx(0.8)


def test_magnitude_removes_the_smallest_weights() -> None:
    weight = torch.tensor([[1.0, -0.1, 3.0], [0.2, -5.0, 0.3]])
    sparse = SparseWeight(weight, (1, 1), movement=False)
    sparse.sparsity.fill_(0.5)
    assert sparse(weight).tolist() == [[1.0, 0.0, 3.0], [0.0, -5.0, 0.0]]


def test_blocks_are_removed_together_and_may_be_cut_at_the_edge() -> None:
    weight = torch.tensor([[1.0, 1.0, 9.0], [1.0, 1.0, 9.0], [0.1, 0.1, 0.1]])
    sparse = SparseWeight(weight, (2, 2), movement=False)
    sparse.sparsity.fill_(0.75)
    assert sparse(weight).tolist() == [[0.0, 0.0, 9.0], [0.0, 0.0, 9.0], [0.0, 0.0, 0.0]]


def test_movement_learns_scores_from_weight_times_gradient() -> None:
    """Sanh et al. 2020, equation 2: the gradient of a score is that of the output times the weight."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(3, 4))
    sparse = SparseWeight(weight, (1, 1), movement=True)
    inputs, wanted = torch.randn(5, 4), torch.randn(5, 3)
    sparse.sparsity.fill_(0.5)
    masked = sparse(weight)
    masked.retain_grad()
    torch.autograd.backward((inputs @ masked.T - wanted).square().sum())
    assert sparse.scores is not None and sparse.scores.grad is not None
    torch.testing.assert_close(sparse.scores.grad, masked.grad * weight.detach())


@pytest.mark.parametrize("method", ["magnitude", "movement"])
def test_a_module_ends_at_its_sparsity(method: str) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
    before = [parameter.clone() for parameter in module.parameters()]
    sparsifier = Sparsifier(module, Sparsify(0.75, method=method, block=(1, 4)))
    sparsifier.before_update(0, 10)
    torch.testing.assert_close(module[0].weight, before[0])  # nothing yet
    sparsifier.finish()
    for layer in (module[0], module[2]):
        assert int((layer.weight == 0).sum()) == layer.weight.numel() * 3 // 4
        rows = layer.weight.reshape(-1, 4) == 0
        assert bool((rows.all(dim=1) | ~rows.any(dim=1)).all())
    assert {name for name, _ in module.named_parameters()} == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_zeros_are_kept() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 3))
    with torch.no_grad():
        module[0].weight[1] = 0.0
        module[0].weight[2, 0] = 0.0
        module[1].weight[0, 1] = 0.0
    keeper = ZeroKeeper(module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1.0)
    keeper.restore()
    assert module[0].weight[1].tolist() == [0.0, 0.0, 0.0]
    assert module[0].weight[2, 0] == 1.0  # of an embedding only whole rows are held
    assert (module[1].weight == 0).nonzero().tolist() == [[0, 1]]
