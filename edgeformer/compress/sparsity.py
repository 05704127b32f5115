"""Zeros among the weights: which are set, how their share rises, and that they stay.

Magnitude pruning on a cubic schedule (Zhu and Gupta 2017, "To prune, or not to prune"), movement pruning (Sanh et al.
2020, "Movement Pruning: Adaptive Sparsity by Fine-Tuning", with its scores per weight), both on single weights or on
blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgeformer.compress.recipe import Sparsify

SCORES_LEARNING_RATE = 1e-2
"""Of movement's scores (Sanh et al. 2020, appendix A.1)."""


class _TopBlocks(torch.autograd.Function):
    """1 for the largest scores and 0 for the others; the gradient goes straight through to the scores."""

    @staticmethod
    def forward(context: Any, scores: Tensor, kept: int) -> Tensor:  # noqa: ARG004
        mask = torch.zeros(scores.numel(), dtype=scores.dtype, device=scores.device)
        # A stable sort, so that ties are the same ones each time.
        mask[scores.flatten().argsort(descending=True, stable=True)[:kept]] = 1.0
        return mask.reshape(scores.shape)

    @staticmethod
    def backward(context: Any, *gradients: Any) -> Any:  # noqa: ARG004
        return gradients[0], None


class SparseWeight(nn.Module):
    """A parametrization: the weight (rows, columns) with its least blocks set to zero.

    The matrix is cut into blocks of `block` entries; what is left over at its edges makes smaller blocks.
    """

    sparsity: Tensor

    def __init__(self, weight: Tensor, block: tuple[int, int], movement: bool) -> None:
        super().__init__()
        self.block = block
        shape = [-(-size // step) for size, step in zip(weight.shape, block, strict=True)]
        self.scores = nn.Parameter(torch.zeros(shape)) if movement else None
        self.register_buffer("sparsity", torch.zeros(()))

    def forward(self, weight: Tensor) -> Tensor:
        """(rows, columns) to the same."""
        return weight * self._spread(self._mask(weight), weight)

    def _mask(self, weight: Tensor) -> Tensor:
        """One entry per block."""
        scores = self._magnitudes(weight.detach()) if self.scores is None else self.scores
        kept = scores.numel() - round(float(self.sparsity) * scores.numel())
        mask: Tensor = _TopBlocks.apply(scores, kept)  # type: ignore[no-untyped-call]
        return mask

    def _magnitudes(self, weight: Tensor) -> Tensor:
        """The mean absolute value of each block."""
        rows, columns = self.block
        if self.block == (1, 1):
            return weight.abs()
        return torch.nn.functional.avg_pool2d(weight.abs()[None], (rows, columns), ceil_mode=True)[0]

    def _spread(self, mask: Tensor, weight: Tensor) -> Tensor:
        """From blocks to entries."""
        if self.block == (1, 1):
            return mask
        rows, columns = self.block
        return mask.repeat_interleave(rows, 0).repeat_interleave(columns, 1)[: weight.shape[0], : weight.shape[1]]


class Sparsifier:
    """Makes a module's linear layers sparser, update by update."""

    def __init__(self, module: nn.Module, step: Sparsify) -> None:
        self._step = step
        self._module = module
        self._parametrizations = []
        for layer in linear_layers(module):
            sparse = SparseWeight(layer.weight, step.block, step.method == "movement")
            parametrize.register_parametrization(layer, "weight", sparse)
            self._parametrizations.append(sparse)

    def before_update(self, update: int, updates: int) -> None:
        """Set the sparsity of an update, counted from 0."""
        share = cubic(update / max(1, updates - 1), self._step)
        for sparse in self._parametrizations:
            sparse.sparsity.fill_(share)

    def finish(self) -> None:
        """Make the zeros part of the weights."""
        self.before_update(1, 2)
        for layer in linear_layers(self._module):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def cubic(done: float, step: Sparsify) -> float:
    """The sparsity after a share of the updates: s (1 - (1 - t)^3), t from 0 at `begin` to 1 at `end`."""
    t = min(1.0, max(0.0, (done - step.begin) / (step.end - step.begin)))
    return step.sparsity * (1 - (1 - t) ** 3)


def linear_layers(module: nn.Module) -> Iterator[nn.Linear]:
    """Layers whose weights may become sparse."""
    return (part for part in module.modules() if isinstance(part, nn.Linear))


class ZeroKeeper:
    """Holds the weights at zero that are zero now: of linear layers, and rows of embeddings."""

    def __init__(self, module: nn.Module) -> None:
        self._masks = [
            (part, mask)
            for part in module.modules()
            if isinstance(part, nn.Linear | nn.Embedding) and not parametrize.is_parametrized(part)
            if (mask := _nonzero(part)) is not None
        ]

    @torch.no_grad()
    def restore(self) -> None:
        """Set them back to zero."""
        for part, mask in self._masks:
            part.weight.mul_(mask.to(part.weight.device))


def _nonzero(part: nn.Linear | nn.Embedding) -> Tensor | None:
    """1 where a weight may change; None where all may. Of an embedding only whole rows are held."""
    weight = part.weight.detach()
    mask = (weight != 0) if isinstance(part, nn.Linear) else (weight != 0).any(dim=1, keepdim=True)
    return None if bool(mask.all()) else mask.float()
