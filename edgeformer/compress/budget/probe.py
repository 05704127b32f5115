"""Probes: what a change of a model's weights costs, measured in torch on some examples.

Besides the task's own metric, which moves in steps of one example, a probe measures the mean Kullback-Leibler
divergence from what the model says at fp32. It moves smoothly, so that a few dozen examples rank layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeformer.compress.corpus import NO_LABEL, Batch, Data, make_corpus
from edgeformer.compress.model import Model
from edgeformer.compress.objective import answer
from edgeformer.compress.recipe import Finetune, Recipe
from edgeformer.tasks.task import TASKS, Metric
from edgeformer_runtime.registry import load_attribute

BATCH = 64


@dataclass(frozen=True)
class Reading:
    """What a probe found.

    Attributes:
        value: of the task's metric.
        agreement: share of answers (of texts that are written: tokens, each given those before it) that are fp32's.
        divergence: mean KL(fp32 || this) of the answers' distributions, in nats.
    """

    value: float
    agreement: float
    divergence: float


class Probe:
    """Examples with a classifier's answers at fp32, to compare those of the changed classifier with.

    Attributes:
        metric: what `Reading.value` is.
        reference: the reading at fp32.
        predicts_agreement: whether `Reading.agreement` is of whole answers, as bundles' is.
    """

    batch_size = BATCH
    predicts_agreement = True

    def __init__(self, model: Model, data: Data, seq_len: int = 128) -> None:
        """Answer every example once.

        Args:
            model: its module is what later changes in place.
            data: examples of its task, some dozens to some hundreds.
            seq_len: of texts: the longest, in tokens.
        """
        self.model = model
        metric = TASKS[model.checkpoint.task].metric
        assert metric is not None  # as there is a probe
        self.metric: Metric = metric
        corpus = make_corpus(data, model.checkpoint, None, Recipe("probe", (Finetune(),), seq_len=seq_len))
        rows = torch.split(corpus.lengths.argsort(stable=True), self.batch_size)
        self.batches: tuple[Batch, ...] = tuple(corpus.batch(each, torch.Generator()) for each in rows)
        self._expected = [F.log_softmax(logits, dim=-1) for logits in self.logits(None)]
        self.reference = self.measure()

    def measure(self, layer: str | None = None) -> Reading:
        """Answer every example with the module as it is now.

        Args:
            layer: the only one that differs from fp32, where that is known: it may spare some work.
        """
        right = known = same = answers = 0
        divergence = 0.0
        for batch, logits, expected in zip(self.batches, self.logits(layer), self._expected, strict=True):
            labelled = batch.targets != NO_LABEL
            # Of token by token, a position without a target is padding or prompt, and says nothing.
            counted = labelled if batch.targets.dim() > 1 else torch.ones_like(labelled)
            best = logits.argmax(-1)
            right += int((best == batch.targets)[labelled].sum())
            known += int(labelled.sum())
            same += int((best == expected.argmax(-1))[counted].sum())
            answers += int(counted.sum())
            found = F.log_softmax(logits, dim=-1)
            divergence += float((expected.exp() * (expected - found)).sum(-1)[counted].double().sum())
        value = self.value(right / max(1, known), layer)
        # Rounding may put the divergence of equal distributions a little below zero.
        return Reading(value, same / max(1, answers), max(0.0, divergence / max(1, answers)))

    @torch.inference_mode()
    def logits(self, layer: str | None) -> list[Tensor]:  # noqa: ARG002
        """Of each batch: (B, L)."""
        return [answer(self.model.module, batch.student) for batch in self.batches]

    def value(self, right: float, layer: str | None) -> float:  # noqa: ARG002
        """The metric, from the share of answers that are right."""
        return right


def make_probe(model: Model, data: Data, seq_len: int = 128) -> Probe:
    """The probe of a model's task; see `Probe`."""
    training = TASKS[model.checkpoint.task].training
    assert training is not None  # `model.open_model` refuses other tasks
    probe: Probe = load_attribute(training.probe)(model, data, seq_len)
    return probe
