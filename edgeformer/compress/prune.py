"""Structured pruning: heads, feed-forward neurons and layers are measured, chosen and really removed.

Importance is the change of the loss, to first order, if a unit's output became zero: the mean over examples of
|sum of output times gradient| (Michel et al. 2019, "Are Sixteen Heads Really Better than One?", equation 2, for heads;
Molchanov et al. 2017, "Pruning Convolutional Neural Networks for Resource Efficient Inference", for neurons). Scores
are divided by their L2 norm within a layer, as Michel et al. found better.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgeformer.checkpoints.checkpoint import Checkpoint
from edgeformer.compress.corpus import NO_LABEL, Batch, Corpus
from edgeformer.compress.model import Model, Stack, build_model, skip, stacks, unit_groups
from edgeformer.compress.objective import Counts, Objective
from edgeformer.compress.recipe import Loss, Prune, Sparsify
from edgeformer.models.config import LAYER_WIDTH_KEYS, LayerWidths, to_json
from edgeformer.models.units import StackedLayer, UnitGroup
from edgeformer_runtime.errors import InputError

_BATCH = 32


@dataclass(frozen=True)
class Pruned:
    """A smaller model and what was removed: counts, and the numbers of the layers."""

    model: Model
    heads: int
    neurons: int
    layers: tuple[int, ...]


def prune(model: Model, corpus: Corpus, step: Prune, rng: torch.Generator) -> Pruned:
    """Remove what a step asks for: first layers, then heads and neurons of those that are left.

    Args:
        model: what to prune; it stays as it is.
        corpus: labelled data to measure importance on.
        step: how much.
        rng: chooses the examples.

    Raises:
        InputError: there is not so much to remove.
    """
    batches = _batches(corpus, step.examples, rng)
    removed = _layers_to_remove(model.module, batches, step.layers)
    model = without_layers(model, removed) if removed else model
    kept = choose_units(importance(model.module, batches), step)
    before = {kind: sum(group.count for group in kept if group.kind == kind) for kind in ("heads", "neurons")}
    after = {kind: sum(len(rows) for group, rows in kept.items() if group.kind == kind) for kind in before}
    return Pruned(
        without_units(model, kept) if before != after else model,
        before["heads"] - after["heads"],
        before["neurons"] - after["neurons"],
        removed,
    )


def _batches(corpus: Corpus, count: int, rng: torch.Generator) -> list[Batch]:
    """Examples that have an answer, a random few."""
    rows = torch.randperm(len(corpus.lengths), generator=rng)[:count]
    batches = [corpus.batch(part, rng) for part in torch.split(rows, _BATCH)]
    if not any((batch.targets != NO_LABEL).any() for batch in batches):
        raise InputError("pruning measures the loss, and the data has no labels")
    return batches


_ONE = torch.ones(())
_SUMS = Counts(_ONE, _ONE, _ONE)


def importance(module: nn.Module, batches: Iterable[Batch]) -> dict[UnitGroup, Tensor]:
    """How much each unit matters: (count,) float32 per group, as the head of this file says, not yet normalised."""
    groups = unit_groups(module)
    scores = {group: torch.zeros(group.count) for group in groups}
    objective = Objective(module.eval(), None, Loss())
    examples = 0
    seen: dict[UnitGroup, Tensor] = {}

    def watch(group: UnitGroup) -> Any:
        def keep(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            # A tensor that depends on a parameter, so its gradient can be asked for even if nothing else needs one.
            seen[group] = inputs[0]
            inputs[0].retain_grad()
            return inputs

        return keep

    readers = [module.get_submodule(f"{group.layer}.{group.reader}") for group in groups]
    handles = [reader.register_forward_pre_hook(watch(group)) for reader, group in zip(readers, groups, strict=True)]
    try:
        for batch in batches:
            # A sum over the examples, so that the gradient at an example's outputs is that of its own loss.
            loss = objective(batch.student, (), batch.targets, None, _SUMS)
            module.zero_grad()
            torch.autograd.backward(loss)
            count = len(batch.rows)
            examples += count
            for group, outputs in seen.items():
                assert outputs.grad is not None
                # Windows of one image are rows of their own, and there are as many of each image.
                size = outputs.shape[-1] // group.count
                change = (outputs.detach() * outputs.grad).reshape(count, -1, group.count, size)
                scores[group] += change.sum(dim=(1, 3)).abs().sum(dim=0)
    finally:
        for handle in handles:
            handle.remove()
        module.zero_grad()
    return {group: score / examples for group, score in scores.items()}


def choose_units(scores: Mapping[UnitGroup, Tensor], step: Prune) -> dict[UnitGroup, Tensor]:
    """The units that stay, rising, by group: the most important ones of the whole model, at least one of each group."""
    kept: dict[UnitGroup, Tensor] = {}
    for kind, share, multiple in (("heads", step.heads, 1), ("neurons", step.neurons, step.round_to)):
        of_kind = {group: _normalised(score) for group, score in scores.items() if group.kind == kind}
        if share and not of_kind:
            raise InputError(f"this model has no {kind} that can be removed")
        total = sum(group.count for group in of_kind)
        threshold = 0.0
        if share:
            ranked = torch.cat(list(of_kind.values())).sort().values
            threshold = float(ranked[min(total - 1, round(share * total))])
        for group, score in of_kind.items():
            count = _rounded(int((score >= threshold).sum()), multiple, group.count) if share else group.count
            kept[group] = score.argsort(descending=True, stable=True)[:count].sort().values
    return kept


def _normalised(score: Tensor) -> Tensor:
    """(count,) divided by its L2 norm."""
    normalised: Tensor = score / score.norm().clamp(min=torch.finfo(score.dtype).tiny)
    return normalised


def _rounded(count: int, multiple: int, most: int) -> int:
    """To the nearest multiple, at least one of them and at most what there is."""
    return min(most, max(multiple, round(count / multiple) * multiple))


@torch.no_grad()
def without_units(model: Model, kept: Mapping[UnitGroup, Tensor]) -> Model:
    """A model with only the given units."""
    state = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    for group, units in kept.items():
        for part in group.slices:
            name = f"{group.layer}.{part.name}"
            if name in state:  # keys of Whisper have no bias
                entries = (units[:, None] * part.size + torch.arange(part.size)).flatten()
                state[name] = state[name].index_select(part.axis, entries)
    return _rebuilt(model.checkpoint, state, _widths(model, kept))


def without_layers(model: Model, removed: Sequence[int]) -> Model:
    """A model without the layers of these numbers, counted through all of its stacks.

    Raises:
        InputError: a number beyond the layers, or a stack would be left empty.
    """
    found = stacks(model.module)
    numbered = [(stack, number) for stack in found for number in range(len(stack.layers))]
    beyond = [number for number in removed if not 0 <= number < len(numbered)]
    if beyond:
        raise InputError(f"layers: there is no layer {beyond[0]}: the model has {len(numbered)}, counted from 0")
    gone = {numbered[number][0].layer_name(numbered[number][1]) for number in removed}
    left = {
        stack.name: [number for number in range(len(stack.layers)) if stack.layer_name(number) not in gone]
        for stack in found
    }
    for name, numbers in left.items():
        if not numbers:
            raise InputError(f"layers: nothing would be left of {name}: remove fewer")
    state = {}
    for name, tensor in model.module.state_dict().items():
        renamed = _renumbered(name, left)
        if renamed is not None:
            state[renamed] = tensor.clone()
    whole = {group: torch.arange(group.count) for group in unit_groups(model.module) if group.layer not in gone}
    raw, config = model.family.with_layers(model.checkpoint.raw, model.checkpoint.config, left)
    return _rebuilt(replace(model.checkpoint, raw=raw, config=config), state, _widths(model, whole))


def _renumbered(name: str, left: Mapping[str, Sequence[int]]) -> str | None:
    """A tensor's name after layers were removed; None: it went with its layer."""
    for stack, numbers in left.items():
        match = re.match(rf"{re.escape(stack)}\.(\d+)\.(.+)", name)
        if match is not None:
            number = int(match[1])
            return f"{stack}.{numbers.index(number)}.{match[2]}" if number in numbers else None
    return name


def _rebuilt(checkpoint: Checkpoint, state: Mapping[str, Tensor], widths: Mapping[str, list[dict[str, Any]]]) -> Model:
    """The model of a smaller state: its config states the layers' widths, unless all are whole."""
    plain = {key: value for key, value in checkpoint.raw.items() if key not in LAYER_WIDTH_KEYS}
    stated = {**plain, **widths}
    whole = checkpoint.family.parse_config(plain) == checkpoint.family.parse_config(stated)
    model = build_model(replace(checkpoint, raw=plain if whole else stated))
    model.module.load_state_dict(state)
    return model


def _widths(model: Model, kept: Mapping[UnitGroup, Tensor]) -> dict[str, list[dict[str, Any]]]:
    """The widths' lists of config.json, by key: of the layers that have groups in `kept`."""
    by_key: dict[str, dict[str, LayerWidths]] = {}
    for group, units in kept.items():
        layers = by_key.setdefault(model.family.width_key(group.layer), {})
        whole = cast(StackedLayer, model.module.get_submodule(group.layer)).num_heads
        layer = layers.get(group.layer, LayerWidths(whole, ()))
        if group.kind == "heads":
            layers[group.layer] = replace(layer, heads=len(units))
        else:
            layers[group.layer] = replace(layer, neurons=(*layer.neurons, len(units)))
    return {key: to_json(tuple(layers.values())) for key, layers in by_key.items()}


@torch.no_grad()
def _layers_to_remove(module: nn.Module, batches: Sequence[Batch], wanted: int | tuple[int, ...]) -> tuple[int, ...]:
    """The layers without which the loss rises least, one after the other; or those that were named."""
    if not isinstance(wanted, int):
        return tuple(sorted(set(wanted)))
    found = stacks(module)
    layers = [(stack, layer) for stack in found for layer in stack.layers]
    if wanted > len(layers) - len(found):
        raise InputError(
            f"layers: cannot remove {wanted} of {len(layers)}: one must be left of each of {len(found)} stacks"
        )
    removed: list[int] = []
    undo = []
    for _ in range(wanted):
        losses = {number: _loss_without(module, layers[number][1], batches) for number in _removable(layers, removed)}
        least = min(losses, key=losses.__getitem__)
        removed.append(least)
        undo.append(skip(layers[least][1]))
    for each in undo:
        each()
    return tuple(sorted(removed))


def _removable(layers: Sequence[tuple[Stack, nn.Module]], removed: Sequence[int]) -> list[int]:
    """Layers that are not the last of their stack."""
    left = [number for number in range(len(layers)) if number not in removed]
    count = {id(stack): sum(layers[number][0] is stack for number in left) for stack, _ in layers}
    return [number for number in left if count[id(layers[number][0])] > 1]


def _loss_without(module: nn.Module, layer: nn.Module, batches: Sequence[Batch]) -> float:
    undo = skip(layer)
    try:
        objective = Objective(module.eval(), None, Loss())
        return sum(float(objective(batch.student, (), batch.targets, None, _SUMS)) for batch in batches)
    finally:
        undo()


# Zeros among the weights: which are set, how their share rises, and that they stay.
#
# Magnitude pruning on a cubic schedule (Zhu and Gupta 2017, "To prune, or not to prune"), movement pruning (Sanh et al.
# 2020, "Movement Pruning: Adaptive Sparsity by Fine-Tuning", with its scores per weight), both on single weights or on
# blocks.


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

    def after_update(self, update: int, updates: int) -> None:
        """Nothing: the weights are masked where they are read."""

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
