"""Sensitivity: what each layer alone costs in each weight format.

Every quantizable layer in turn is given a format by fake quantization, all others staying at fp32, and the task's
metric and the divergence from fp32 are measured. Errors of several layers add up to first order (Dong et al. 2019,
HAWQ), so that the divergences rank whole plans.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from os import fspath
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from edgeformer.compress.corpus import NO_LABEL, Batch, Data, make_corpus, read_data
from edgeformer.compress.model import Model, open_model
from edgeformer.compress.objective import answer
from edgeformer.compress.quantize_aware import fake_quantized
from edgeformer.compress.recipe import Finetune, Recipe
from edgeformer.convert.layer_plan import LayerPlan, check_formats, quantizable_layers, weight_bytes
from edgeformer.convert.target import check_target
from edgeformer.tasks.task import TASKS, Metric, task_metrics
from edgeformer_runtime.delivery import cache_folder
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.interface import CountProgress, Shown, StrPath
from edgeformer_runtime.registry import load_attribute

VERSION = 1
DEFAULT_FORMATS = ("int8", "int4")
EXACT = "fp32"
SHOWN_COSTS = 20


@dataclass(frozen=True)
class LayerCost:
    """One layer in one format.

    Attributes:
        layer: its name in our module.
        format: one of `FORMATS`.
        weight_bytes: what its weight then takes, scales included.
        fp32_bytes: what it takes as it is.
        reading: of the whole model, this layer alone being in that format.
    """

    layer: str
    format: str
    weight_bytes: int
    fp32_bytes: int
    reading: Reading


@dataclass(frozen=True, repr=False)
class Sensitivity(Shown):
    """The costs of all layers in all formats.

    Attributes:
        target: whose arithmetic was imitated.
        metric: what the readings' value is.
        examples: that were asked.
        reference: the reading at fp32.
        costs: the costliest first, by divergence; layers of equal divergence by name.
    """

    target: str
    metric: str
    examples: int
    reference: Reading
    costs: tuple[LayerCost, ...]

    def loss(self, cost: LayerCost) -> float:
        """By how much the metric is worse than at fp32; negative where it is better."""
        found, exact = cost.reading.value, self.reference.value
        return task_metrics()[self.metric].loss(found, exact)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads, and `sensitivity --json` prints."""
        return {"version": VERSION, **asdict(self)}

    def tables(self) -> list[Table]:
        """The costliest layers, a row each."""
        title = f"fp32: {self.metric} {self.reference.value:.2%} on {self.examples} examples"
        table = Table("layer", "format", "divergence", "agreement", f"{self.metric} lost", "saves", title=title)
        for cost in self.costs[:SHOWN_COSTS]:
            table.add_row(*cost_cells(self, cost))
        left = len(self.costs) - SHOWN_COSTS
        if left > 0:
            table.caption = f"{left} that cost less are in --json"
        return [table]

    @classmethod
    def from_json(cls, value: Any, where: str) -> Sensitivity:
        """From parsed JSON; InputError where it is something else."""
        try:
            if value["version"] != VERSION:
                raise InputError(f"{where}: expected version {VERSION}, found {value['version']!r}")
            if value["metric"] not in task_metrics():
                raise KeyError(value["metric"])
            costs = tuple(LayerCost(**(each | {"reading": Reading(**each["reading"])})) for each in value["costs"])
            head = {name: value[name] for name in ("target", "metric", "examples")}
            return cls(**head, reference=Reading(**value["reference"]), costs=costs)
        except (KeyError, TypeError):
            raise InputError(f"{where}: expected what `edgeformer sensitivity --json` prints") from None


def measure_sensitivity(
    model: Model,
    probe: Probe,
    target: str,
    formats: Sequence[str] = DEFAULT_FORMATS,
    progress: CountProgress | None = None,
) -> Sensitivity:
    """Give each layer each format in turn.

    Args:
        model: whose module is changed and restored.
        probe: of the same model.
        target: whose arithmetic is imitated, one of `TARGETS`.
        formats: of `FORMATS`, fp32 left out.
        progress: called after each measurement.

    Raises:
        InputError: an unknown target or format, or a model without layers that could be quantized.
    """
    check_formats(formats)
    check_target(target)
    layers = quantizable_layers(model.module)
    if not layers:
        raise InputError(f"{model.checkpoint.source.id} has no layer that could be quantized")
    # Few targets have 4 bits for anything but linear layers.
    pairs = [(n, each) for n, layer in layers.items() for each in formats if each != "int4" or type(layer) is nn.Linear]
    costs = []
    for number, (name, format_) in enumerate(pairs, 1):
        weight = layers[name].weight
        with fake_quantized(model.module, LayerPlan({name: format_}, default=EXACT), target):
            reading = probe.measure(name)
        costs.append(LayerCost(name, format_, weight_bytes(weight, format_), weight_bytes(weight, EXACT), reading))
        if progress is not None:
            progress(number, len(pairs))
    costs.sort(key=lambda cost: (-cost.reading.divergence, cost.layer, cost.format))
    examples = sum(len(batch.rows) for batch in probe.batches)
    return Sensitivity(target, probe.metric.name, examples, probe.reference, tuple(costs))


def cached_sensitivity(
    model: Model,
    probe: Callable[[], Probe],
    data_sha256: str,
    target: str,
    formats: Sequence[str] = DEFAULT_FORMATS,
    progress: CountProgress | None = None,
) -> Sensitivity:
    """`measure_sensitivity`, or what it gave for the same weights, data, target and formats on this machine.

    Args:
        model: a checkpoint as it is on disk.
        probe: makes the probe, where something is to be measured.
        data_sha256: of the probe's examples.
        target, formats, progress: see `measure_sensitivity`.
    """
    check_formats(formats)
    check_target(target)
    key = repr((VERSION, model.checkpoint.source.weights_sha256, data_sha256, target, *sorted(formats)))
    file = cache_folder() / "sensitivity" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    if file.is_file():
        try:
            return Sensitivity.from_json(json.loads(file.read_text(encoding="utf-8")), file.name)
        except (InputError, ValueError, RecursionError, OSError):
            pass  # of another version, or damaged: it is measured again, and replaced
    found = measure_sensitivity(model, probe(), target, formats, progress)
    _keep(file, found)
    return found


def sensitivity_of(
    source: StrPath,
    data: StrPath,
    target: str,
    formats: Sequence[str],
    examples: int,
    progress: CountProgress | None = None,
) -> Sensitivity:
    """The sensitivity of a checkpoint's layers; see `cached_sensitivity`.

    Args:
        source: as `open_checkpoint` takes it.
        data: as `edgeformer eval` takes it.
        target, formats, progress: see `measure_sensitivity`.
        examples: of the data, spread evenly.

    Raises:
        InputError: something that cannot be used.
    """
    model = open_model(fspath(source))
    chosen = read_data(fspath(data), model.checkpoint)[0].limited(examples)
    return cached_sensitivity(model, lambda: make_probe(model, chosen), chosen.sha256(), target, formats, progress)


def cost_cells(found: Sensitivity, cost: LayerCost) -> tuple[str, ...]:
    """A row of a table: layer, format, divergence, agreement, what of the metric is lost, what is saved."""
    return (
        cost.layer,
        cost.format,
        f"{cost.reading.divergence:.2e}",
        f"{cost.reading.agreement:.2%}",
        f"{found.loss(cost):+.2%}",
        f"{(cost.fp32_bytes - cost.weight_bytes) / 1e3:,.1f} KB",
    )


def _keep(file: Path, found: Sensitivity) -> None:
    """A cache that cannot be written is none."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_suffix(".fresh")
        fresh.write_text(json.dumps(found.to_json()), encoding="utf-8")
        fresh.replace(file)
    except OSError:
        return


# Probes: what a change of a model's weights costs, measured in torch on some examples.
#
# Besides the task's own metric, which moves in steps of one example, a probe measures the mean Kullback-Leibler
# divergence from what the model says at fp32. It moves smoothly, so that a few dozen examples rank layers.


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
