"""What a student is trained for: its loss on a batch, from the data's labels and from a teacher.

All terms of one batch are sums over its examples, so that several processes that share a batch can add theirs up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeformer.compress.corpus import NO_LABEL, Inputs
from edgeformer.compress.model import hooked_outputs, map_layers, record_maps, stacks
from edgeformer.compress.recipe import Loss
from edgeformer.models.text import compute_all_tokens
from edgeformer_runtime.errors import InputError

_FLOOR = 1e-9


class Counts(NamedTuple):
    """By what the sums of a batch are divided.

    Attributes:
        labelled: answers that the data states: examples, or tokens of speech.
        answers: answers at all.
        examples: in the batch.
    """

    labelled: Tensor
    answers: Tensor
    examples: Tensor


def answer(module: nn.Module, inputs: Inputs) -> Tensor:
    """A model's logits, (B, L), or (B, N, V) of speech."""
    out: Any = module(*inputs)
    logits: Tensor = out[0] if isinstance(out, tuple) else out
    return logits


def counts_of(targets: Tensor) -> Tensor:
    """`Counts` of a batch's targets as one tensor (3,) float32, to be summed over processes."""
    labelled = (targets != NO_LABEL).sum()
    # Of speech, a position without a target is padding or prompt, and nobody learns from it.
    answers = labelled if targets.dim() > 1 else torch.tensor(targets.numel(), device=targets.device)
    return torch.stack([labelled, answers, torch.tensor(len(targets), device=targets.device)]).float()


class Objective(nn.Module):
    """The loss of a student. The teacher is not part of the module: it is neither trained nor saved."""

    def __init__(self, student: nn.Module, teacher: nn.Module | None, loss: Loss) -> None:
        """Both modules are changed where the loss looks inside: all tokens are computed and attention is recorded.

        Raises:
            InputError: the loss needs a teacher and there is none, or layers that cannot be matched.
        """
        super().__init__()
        if loss.needs_teacher and teacher is None:
            raise InputError("this loss has a term with a teacher: name one with --teacher")
        self.student = student
        self.loss = loss
        # In a tuple, so that torch does not register it.
        self._teacher = (teacher,) if teacher is not None and loss.needs_teacher else ()
        self._inside = _Inside(student, teacher, loss) if teacher is not None and loss.looks_inside else None
        self.bridges = nn.ModuleList()

    @property
    def teacher(self) -> nn.Module | None:
        """The teacher, where the loss has a use for it."""
        return self._teacher[0] if self._teacher else None

    def build_bridges(self, student: Inputs, teacher: Inputs) -> None:
        """Make the maps between hidden states of different widths, which one example of the inputs tells."""
        if self._inside is None or not self.loss.hidden:
            return
        with torch.no_grad(), self._inside.watching() as seen:
            self.student(*(each[:1] for each in student))
            assert self.teacher is not None
            self.teacher(*(each[:1] for each in teacher))
            for own, theirs in seen():
                if own.shape[:-1] != theirs.shape[:-1]:
                    raise InputError(
                        f"hidden: the student's layer has {tuple(own.shape[1:-1])} positions and the teacher's "
                        f"{tuple(theirs.shape[1:-1])}: both need the same tokens, or leave hidden and attention out"
                    )
                same = own.shape[-1] == theirs.shape[-1]
                self.bridges.append(nn.Identity() if same else nn.Linear(own.shape[-1], theirs.shape[-1]))

    def forward(self, student: Inputs, teacher: Inputs, targets: Tensor, said: Tensor | None, counts: Counts) -> Tensor:
        """The loss of a batch: the weighted terms, each divided by its count.

        Args:
            student: the student's inputs.
            teacher: the teacher's; unused where `said` has its answers.
            targets: see `Batch`.
            said: the teacher's logits, as the student gives them, or None.
            counts: of the whole batch, of which this may be a part.
        """
        if self._inside is None:
            logits = answer(self.student, student)
            return self._of_answers(logits, self._teacher_says(teacher, said), targets, counts)
        with self._inside.watching() as seen:
            logits = answer(self.student, student)
            theirs = self._teacher_says(teacher, None)
            loss = self._of_answers(logits, theirs, targets, counts)
            mask = student[1] if len(student) == 3 else None  # texts: (ids, mask, token types)
            if self.loss.hidden:
                total = sum_of(
                    _hidden(bridge(own), other, mask) for bridge, (own, other) in zip(self.bridges, seen(), strict=True)
                )
                loss = loss + self.loss.hidden / len(self.bridges) * total / counts.examples
            if self.loss.attention:
                maps = self._inside.maps()
                total = sum_of(_attention(own, other, mask, len(targets)) for own, other in maps)
                loss = loss + self.loss.attention / len(maps) * total / counts.examples
        return loss

    def _teacher_says(self, inputs: Inputs, said: Tensor | None) -> Tensor | None:
        if said is not None or self.teacher is None:
            return said
        with torch.no_grad():
            return answer(self.teacher, inputs)

    def _of_answers(self, logits: Tensor, theirs: Tensor | None, targets: Tensor, counts: Counts) -> Tensor:
        flat, wanted = logits.flatten(0, -2), targets.flatten()
        loss = flat.sum() * 0.0
        if self.loss.labels:
            entropy = F.cross_entropy(
                flat, wanted, ignore_index=NO_LABEL, reduction="sum", label_smoothing=self.loss.label_smoothing
            )
            loss = loss + self.loss.labels * entropy / counts.labelled.clamp(min=1)
        if self.loss.logits:
            assert theirs is not None
            if theirs.shape != logits.shape:
                raise InputError(f"the teacher gives {theirs.shape[-1]} logits and the student {logits.shape[-1]}")
            other = theirs.flatten(0, -2)
            if targets.dim() > 1:
                said = wanted != NO_LABEL
                flat, other = flat[said], other[said]
            loss = loss + self.loss.logits * divergence(flat, other, self.loss.temperature) / counts.answers.clamp(
                min=1
            )
        return loss


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of (B, L) logits at a temperature, times its square (Hinton et al. 2015, section 2).

    The square keeps the gradient's size independent of the temperature. A sum over B.
    """
    return temperature**2 * F.kl_div(
        F.log_softmax(student / temperature, dim=-1),
        F.log_softmax(teacher / temperature, dim=-1),
        reduction="sum",
        log_target=True,
    )


def sum_of(terms: Iterable[Tensor]) -> Tensor:
    """The sum of at least one tensor."""
    return torch.stack(list(terms)).sum()


def _hidden(own: Tensor, theirs: Tensor, mask: Tensor | None) -> Tensor:
    """(B, ..., C) each: squared error of the normalised states, a mean over positions and channels, a sum over B."""
    width = (own.shape[-1],)
    error = (F.layer_norm(own, width) - F.layer_norm(theirs, width)).square().mean(dim=-1).flatten(1)  # (B, N)
    return _mean_over(error, mask)


def _attention(own: Tensor, theirs: Tensor, mask: Tensor | None, examples: int) -> Tensor:
    """(M, H, T, S) scores each, M a multiple of the examples: divergence, a mean over all but the examples."""
    if own.shape[1] == theirs.shape[1]:
        log_own, log_theirs = F.log_softmax(own, dim=-1), F.log_softmax(theirs, dim=-1)
    else:
        log_own, log_theirs = _log_mean(own), _log_mean(theirs)
    if log_own.shape != log_theirs.shape:
        raise InputError(
            f"attention: the student's maps are {tuple(own.shape[2:])} and the teacher's {tuple(theirs.shape[2:])}: "
            "both need the same tokens, or leave attention out"
        )
    rows = F.kl_div(log_own, log_theirs, reduction="none", log_target=True).sum(dim=-1)  # (M, H, T)
    if mask is not None and mask.shape[0] == rows.shape[0]:
        return _mean_over(rows.mean(dim=1), mask)
    return rows.reshape(examples, -1).mean(dim=1).sum()


def _log_mean(scores: Tensor) -> Tensor:
    """The logarithm of the mean over the heads of the distributions: (M, 1, T, S)."""
    return torch.logsumexp(F.log_softmax(scores, dim=-1), dim=1, keepdim=True) - math.log(scores.shape[1])


def _mean_over(values: Tensor, mask: Tensor | None) -> Tensor:
    """(B, N): mean over the positions that count, sum over B."""
    if mask is None:
        return values.mean(dim=1).sum()
    weights = mask.to(values.dtype)
    return ((values * weights).sum(dim=1) / (weights.sum(dim=1) + _FLOOR)).sum()


class _Inside:
    """The layers of student and teacher in pairs, and what each computes in a forward."""

    def __init__(self, student: nn.Module, teacher: nn.Module, loss: Loss) -> None:
        for module in (student, teacher):
            compute_all_tokens(module)
        self._pairs = map_layers(stacks(student), stacks(teacher), loss.layer_map)
        self._recorders = [
            pair
            for own, theirs in (self._pairs if loss.attention else ())
            for pair in zip(record_maps(own), record_maps(theirs), strict=False)
        ]

    @contextmanager
    def watching(self) -> Iterator[Callable[[], list[tuple[Tensor, Tensor]]]]:
        """A block that gives a function: what the layers of both sides last gave, pair by pair."""
        own, theirs = ([pair[side] for pair in self._pairs] for side in (0, 1))
        with hooked_outputs(own) as seen, hooked_outputs(theirs) as shown:
            yield lambda: [(mine, other.detach()) for mine, other in zip(seen, shown, strict=True)]

    def maps(self) -> list[tuple[Tensor, Tensor]]:
        """The attention's scores of the last forward of both, pair by pair."""
        found = []
        for own, theirs in self._recorders:
            assert own.scores is not None and theirs.scores is not None
            found.append((own.scores, theirs.scores.detach()))
        return found
