"""How much a bundle agrees with its source model at fp32, over far more inputs than its vectors hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edgeformer.checkpoints.checkpoint import Checkpoint
from edgeformer.checkpoints.source_index import TorchEngine
from edgeformer.data.labelled import open_data
from edgeformer.models.family import Program
from edgeformer.tasks.task import TASKS
from edgeformer.tasks.text import ACCURACY, MAX_CALIBRATION_SAMPLES
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import Classification, Score
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.bundle.vectors import Case
from edgeformer_runtime.engines import Engine, Tensor
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.pipelines import open_program_pipeline
from edgeformer_runtime.pipelines.program import ProgramPipeline
from edgeformer_runtime.pipelines.results import ACTIVATIONS, sigmoid
from edgeformer_runtime.pipelines.vision import object_scores
from edgeformer_runtime.preprocess.text import PAIR, SPECIAL, Places
from edgeformer_runtime.tasks.tokens import SPAN_ENDS, MaskedToken, SpanExtraction, TokenLabels
from edgeformer_runtime.tasks.vision import BOX, ObjectDetection, SemanticSegmentation

BOUNDARY_MARGIN = math.log(2)
BOUNDARY_SHARE = 0.25
"""An answer lies near a boundary where its margin is at most both of these: the runner-up is at least half as probable
as the best label (a label of sigmoid less than twice as probable as its absence), and the margin is at most this share
of what the model's clear answers have, the 90th percentile. There a small difference makes another answer of it. The
share is for models whose probabilities are never large: they are sure in their own way."""
CLEAR_PERCENTILE = 90
PLACES = 64
"""Of an image whose every pixel is labelled, so many are compared."""


@dataclass(frozen=True)
class Reference:
    """One input of a program and what the source model gives for it, both by name.

    Attributes:
        sample: the raw input, shortened, for messages.
        label: the index of the right label, None where it is not known.
        places: where the tokens stand in the raw input, of tasks that answer with places.
    """

    program: str
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    sample: str
    label: int | None = None
    places: Places | None = None


@dataclass(frozen=True)
class AccuracyChange:
    """Accuracy before and after, over the labelled inputs.

    Attributes:
        n: how many there are.
        before: the share of right answers of the source.
        after: of the bundle.
        changed: how many answers are right in one of them alone: the drop's own uncertainty.
    """

    n: int
    before: float
    after: float
    changed: int

    def to_json(self) -> dict[str, Any]:
        """The object in `convert --json` and in report.json."""
        return {"metric": ACCURACY.name, **vars(self)}


@dataclass(frozen=True)
class Agreement:
    """What was found over `n` inputs.

    Attributes:
        n: their number.
        top1: the share of them that get the source's answer: its best label, or of sigmoid its labels above one half.
            None for what is no classifier, like the next three.
        divergence: the mean total variation from the source's probabilities, of sigmoid that of the label that moved
            most: 0 is the same, 1 is certain of something else.
        near: how many of the source's answers lie near a boundary (`BOUNDARY_MARGIN`).
        lost: how many answers are others although the source's lies near none.
        cosine: of a classifier's outputs, all inputs together, to the source's, so that inputs with outputs near 0 do
            not decide it; of embeddings the smallest. None where an output of a classifier is not finite.
        broken: for how many inputs an output holds NaN or an infinity.
        mean_cosine: of embeddings; else None.
        sample: the input that moved most, shortened.
        metric: where labels are known; else None.
    """

    n: int
    top1: float | None = None
    divergence: float | None = None
    near: int | None = None
    lost: int | None = None
    cosine: float | None = None
    mean_cosine: float | None = None
    broken: int = 0
    sample: str | None = None
    metric: AccuracyChange | None = None

    def to_json(self) -> dict[str, Any]:
        """The object in `convert --json` and in report.json."""
        return {**vars(self), "metric": None if self.metric is None else self.metric.to_json()}


@dataclass(frozen=True)
class _Answer:
    """One input's comparison: see `Agreement`; `hits` says whether source and bundle are right, where that is known."""

    sample: str
    moved: float
    same: bool
    near: bool
    lost: bool
    hits: tuple[bool, bool] | None


_Values = NDArray[np.float64]
ComparedOutput = tuple[Reference, _Values, _Values]
"""A reference, the bundle's outputs for it, and the source's, both flat and one behind the other."""
Compare = Callable[[Sequence[ComparedOutput], int, Any], Agreement]
"""From what was compared, the number of broken outputs among it and the manifest's postprocessing."""


def agreement(engine: Engine, references: Iterable[Reference], head: Any, compare: Compare) -> Agreement:
    """Run each reference's inputs in the bundle's engine and compare.

    Args:
        engine: the bundle's.
        references: inputs.
        head: the manifest's postprocessing.
        compare: the task's, as `compare_labels`.

    Raises:
        EngineError: the engine failed.
    """
    found: list[ComparedOutput] = []
    for reference in references:
        outputs = engine.run(reference.program, reference.inputs)
        pairs = [(outputs[name], expected) for name, expected in reference.outputs.items()]
        own, given = (np.concatenate([each.ravel() for each in side]) for side in zip(*pairs, strict=True))
        found.append((reference, own.astype(np.float64), given.astype(np.float64)))
    return compare(found, sum(not np.isfinite(own).all() for _, own, _ in found), head)


def compare_labels(found: Sequence[ComparedOutput], broken: int, head: Classification) -> Agreement:
    """Of outputs that are logits."""
    limit = _boundary([_margins(given, head.activation) for _, _, given in found])
    answers = [_answer(*each, head.activation, limit) for each in found]
    return Agreement(
        n=len(answers),
        top1=_mean([answer.same for answer in answers]),
        divergence=_mean([answer.moved for answer in answers]),
        near=sum(answer.near for answer in answers),
        lost=sum(answer.lost for answer in answers),
        cosine=None if broken else _cosine([(own, given) for _, own, given in found]),
        broken=broken,
        sample=max(answers, key=lambda answer: (answer.lost, answer.moved)).sample,
        metric=_metric([answer.hits for answer in answers if answer.hits is not None]),
    )


def compare_embeddings(found: Sequence[ComparedOutput], broken: int, head: Any) -> Agreement:  # noqa: ARG001
    """Of outputs that are vectors. One that is not finite has no direction: 0, as has one that is all 0 in place of
    another.
    """
    cosines = [_cosine([(own, given)]) if np.isfinite(own).all() else 0.0 for _, own, given in found]
    worst = found[int(np.argmin(cosines))][0].sample
    return Agreement(len(found), cosine=min(cosines), mean_cosine=_mean(cosines), broken=broken, sample=worst)


def compare_scores(found: Sequence[ComparedOutput], broken: int, head: Score) -> Agreement:
    """Of outputs that are one number: by how much scores move, of those that are not from 0 to 1 as a share of what the
    source's range over.
    """
    scores = np.array([(own[0], given[0]) for _, own, given in found])
    if head.activation == "sigmoid":
        scores = sigmoid(scores)
    reach = 1.0 if head.activation == "sigmoid" else float(np.ptp(scores[:, 1])) or 1.0
    moved = np.abs(scores[:, 0] - scores[:, 1]) / reach
    moved[~np.isfinite(moved)] = 1.0
    return Agreement(
        len(found), divergence=float(moved.mean()), broken=broken, sample=found[int(moved.argmax())][0].sample
    )


def compare_spans(found: Sequence[ComparedOutput], broken: int, head: SpanExtraction) -> Agreement:
    """Of outputs that are logits of starts and ends: each span that could be an answer is what a label is elsewhere."""

    def spans(values: _Values, places: Places) -> _Values:
        rows = values.reshape(-1, SPAN_ENDS)[: len(places.texts)][places.texts == PAIR]
        longest = min(head.max_answer_tokens, len(rows))
        pairs = [rows[: len(rows) - more, 0] + rows[more:, 1] for more in range(longest)]
        return np.concatenate(pairs)

    return compare_labels(
        [
            (reference, spans(own, reference.places), spans(given, reference.places))
            for reference, own, given in found
            if reference.places is not None and (reference.places.texts == PAIR).any()
        ],
        broken,
        _SOFTMAX,
    )


def compare_tokens(found: Sequence[ComparedOutput], broken: int, head: TokenLabels) -> Agreement:
    """Of outputs that are logits of each token's labels, over the tokens that either model takes for an entity's: most
    others are of none, and would hide what is lost. Where there are none of those, over all.
    """
    outside = [index for index, label in enumerate(head.labels) if label in head.outside]
    tokens: list[ComparedOutput] = []
    for reference, own, given in found:
        if reference.places is None:
            continue
        rows = np.flatnonzero(reference.places.texts != SPECIAL)
        pairs = (values.reshape(-1, len(head.labels))[rows] for values in (own, given))
        tokens += [(reference, *pair) for pair in zip(*pairs, strict=True)]
    entities = [each for each in tokens if any(int(values.argmax()) not in outside for values in each[1:])]
    return compare_labels(entities or tokens, broken, _SOFTMAX)


def compare_objects(found: Sequence[ComparedOutput], broken: int, head: ObjectDetection) -> Agreement:
    """Of logits and boxes of places: over those where either sees an object, or all; the cosine is of all outputs."""
    places: list[ComparedOutput] = []
    for reference, own, given in found:
        count = len(own) // (head.width + BOX)
        pairs = (values[: count * head.width].reshape(count, -1) for values in (own, given))
        places += [(reference, *pair) for pair in zip(*pairs, strict=True)]
    activation = Classification((), head.activation)
    seen = [each for each in places if max(object_scores(np.stack(each[1:]), head).flat) > head.threshold]
    judged = compare_labels(seen or places, broken, activation)
    return replace(judged, cosine=None if broken else _cosine([(own, given) for _, own, given in found]))


def compare_pixels(found: Sequence[ComparedOutput], broken: int, head: SemanticSegmentation) -> Agreement:
    """Of outputs that are logits of each label on a grid: some places of it, spread evenly, are what inputs are."""
    places: list[ComparedOutput] = []
    for reference, own, given in found:
        grids = [values.reshape(len(head.labels), -1) for values in (own, given)]
        chosen = np.linspace(0, grids[0].shape[1] - 1, PLACES).astype(int)
        places += [(reference, grids[0][:, place], grids[1][:, place]) for place in np.unique(chosen)]
    return compare_labels(places, broken, _SOFTMAX)


def compare_fills(found: Sequence[ComparedOutput], broken: int, head: MaskedToken) -> Agreement:  # noqa: ARG001
    """Of outputs that are logits of a masked token: each token of the vocabulary is what a label is elsewhere."""
    return compare_labels(found, broken, _SOFTMAX)


_SOFTMAX = Classification((), "softmax")
"""Of answers one of which holds."""


def _answer(reference: Reference, own: _Values, given: _Values, activation: str, limit: float) -> _Answer:
    """One input's logits against the source's; what is not finite is certain of something else."""
    before = ACTIVATIONS[activation](given)
    undecided = _margins(given, activation) <= limit
    label = reference.label
    right = bool(given.argmax() == label)
    if not np.isfinite(own).all():
        return _Answer(
            reference.sample, 1.0, False, bool(undecided.any()), True, None if label is None else (right, False)
        )
    after = ACTIVATIONS[activation](own)
    differences = np.abs(after - before)
    if activation == "softmax":
        changed = np.array([after.argmax() != before.argmax()])
        moved = float(differences.sum() / 2)
    else:
        changed = (after >= 0.5) != (before >= 0.5)
        moved = float(differences.max())
    return _Answer(
        sample=reference.sample,
        moved=moved,
        same=not changed.any(),
        near=bool(undecided.any()),
        lost=bool((changed & ~undecided).any()),
        hits=None if label is None else (right, bool(own.argmax() == label)),
    )


def _margins(logits: _Values, activation: str) -> _Values:
    """How far the answer, or of sigmoid each label, is from another, in logits."""
    if activation == "sigmoid":
        return np.abs(logits)
    best = np.sort(logits)[::-1][:2]
    return np.array([best[0] - best[1] if len(best) == 2 else math.inf])


def _boundary(margins: Sequence[_Values]) -> float:
    """The margin up to which answers lie near a boundary, of a model with these."""
    clear = float(np.percentile(np.concatenate(margins), CLEAR_PERCENTILE, method="higher"))
    return min(BOUNDARY_MARGIN, BOUNDARY_SHARE * clear)


def _metric(hits: Sequence[tuple[bool, bool]]) -> AccuracyChange | None:
    if not hits:
        return None
    before, after = zip(*hits, strict=True)
    return AccuracyChange(len(hits), _mean(before), _mean(after), sum(one != other for one, other in hits))


def _cosine(pairs: Sequence[tuple[_Values, _Values]]) -> float:
    """Of all values together, which are finite."""
    dot = sum(float(own @ given) for own, given in pairs)
    norms = math.sqrt(sum(float(own @ own) for own, _ in pairs) * sum(float(given @ given) for _, given in pairs))
    if not norms:
        return float(all((own == given).all() for own, given in pairs))
    return min(1.0, max(-1.0, dot / norms))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# What is compared besides a bundle's few recorded samples: built-in inputs, calibration, labelled data.


MAX_LABELLED = 1000
"""Of labelled data so many at most, spread evenly: an accuracy is then known to 1.6 points or better."""


@dataclass(frozen=True)
class Judged:
    """What bundles are judged on besides built-in inputs, and what becomes of refused ones: see `ConvertOptions`."""

    calibration: Path | None
    evaluation: str | None
    keep_refused: bool


def references_for(bundle: Bundle, programs: Sequence[Program], judged: Judged) -> tuple[Reference, ...]:
    """Inputs that all bundles of these programs are judged on, with the source's outputs; none where its
    recorded vectors alone judge one.

    Args:
        bundle: an open one of the programs.
        programs: of the source.
        judged: what was given; labelled data take the place of everything built in.
    """
    if TASKS[bundle.manifest.task].gate_inputs is None:
        return ()
    if judged.evaluation is not None:
        return labelled_references(bundle, programs, judged.evaluation)
    given = calibration_references(programs)
    if judged.calibration is not None:
        # Calibration needs no labels: without them there is no metric.
        with suppress(InputError):
            given = labelled_references(bundle, programs, str(judged.calibration), MAX_CALIBRATION_SAMPLES)
    return (*built_in_references(bundle, programs), *given)


def recorded_references(cases: Iterable[Case], pipeline: ProgramPipeline[Any, Any]) -> Iterator[Reference]:
    """The recorded samples, of which a pipeline of the bundle tells where the tokens stand."""
    for case in cases:
        places = pipeline.prepare(pipeline.raw_from_json(case.raw)).places
        yield Reference(case.program, case.inputs, case.outputs, shorten(case.raw), places=places)


def calibration_references(programs: Sequence[Program]) -> tuple[Reference, ...]:
    """The programs' calibration inputs with the source's outputs in torch; empty where none were given."""
    source = TorchEngine(programs)
    found = []
    for program in programs:
        for index, values in enumerate(program.calibration):
            inputs = {spec.name: value.numpy() for spec, value in zip(program.inputs, values, strict=True)}
            outputs = source.run(program.name, inputs)
            found.append(Reference(program.name, inputs, outputs, f"calibration input {index} of {program.name}"))
    return tuple(found)


def built_in_references(bundle: Bundle, programs: Sequence[Program]) -> tuple[Reference, ...]:
    """The inputs that the task has for every bundle, and the source's outputs in torch.

    Args:
        bundle: an open one of the programs, of a task that has such inputs: how raw inputs become tensors.
        programs: of the source.
    """
    gate_inputs = TASKS[bundle.manifest.task].gate_inputs
    assert gate_inputs is not None
    pipeline = open_program_pipeline(bundle, TorchEngine(programs))
    return tuple(_reference(pipeline, sample, raw, None) for sample, raw in gate_inputs(pipeline))


def labelled_references(
    bundle: Bundle, programs: Sequence[Program], data: str, limit: int = MAX_LABELLED
) -> tuple[Reference, ...]:
    """Labelled data with the source's outputs in torch.

    Args:
        bundle: an open one of the programs.
        programs: of the source.
        data: as `edgeformer eval` takes it.
        limit: use so many examples at most, spread evenly.

    Raises:
        InputError: the bundle is no classifier, or the data cannot be used.
    """
    if not TASKS[bundle.manifest.task].judged_by_labels:
        raise InputError(f"{bundle.manifest.name} does {bundle.manifest.task}: labelled data are for classifiers")
    labels = cast(Classification, bundle.manifest.postprocessing).labels
    pipeline = open_program_pipeline(bundle, TorchEngine(programs))
    with open_data(data, bundle.manifest.preprocessing.kind, labels) as opened:
        found = []
        for example in opened.limited(limit).examples:
            raw = example.read()
            sample = shorten(raw) if isinstance(raw, str) else shorten(example.name)
            try:
                found.append(_reference(pipeline, sample, raw, example.label))
            except InputError as error:
                raise InputError(f"{shorten(example.name)[1:-1]}: {error}") from None
        return tuple(found)


def check_labelled(data: str, checkpoint: Checkpoint) -> None:
    """Refuse labelled data that no bundle of the checkpoint could be judged on, before anything is lowered.

    Raises:
        InputError: it is no classifier, or the data cannot be used.
    """
    task = TASKS[checkpoint.task]
    if not task.judged_by_labels:
        raise InputError(
            f"--eval is for classifiers, and this does {checkpoint.task}: leave it out, and use eval after"
        )
    with open_data(data, task.takes, checkpoint.labels):
        pass


def _reference(pipeline: Any, sample: str, raw: Any, label: int | None) -> Reference:
    prepared = pipeline.prepare(raw)
    outputs = pipeline.engine.run(prepared.program, prepared.inputs)
    return Reference(prepared.program, prepared.inputs, outputs, sample, label, prepared.places)
