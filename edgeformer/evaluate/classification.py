"""`eval` of classifiers: right answers class by class, sets of labels where they stand for themselves, and labels of
nearest neighbours, which is how embedders of images classify.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from edgeformer.data.labelled import TEXT_COLUMNS, TableColumns, data_labels, locate, open_data, read_table, spread
from edgeformer.evaluate.embeddings import cosines_of, vector_of
from edgeformer.evaluate.evaluate import Answers, Asker, Comparison, ask
from edgeformer.evaluate.metrics import ClassReport, LabelSetReport, class_report, label_set_report
from edgeformer.tasks.image import NEIGHBOURS
from edgeformer.tasks.text import ACCURACY
from edgeformer_runtime.bundle.manifest import Classification
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.pipelines.results import ClassificationResult
from edgeformer_runtime.registry import did_you_mean
from edgeformer_runtime.tasks.image_text import ImageTextOptions, Similarity

TOP = 5
LEAST_IMAGES = 2
SHOWN_MISTAKES = 5


@dataclass(frozen=True)
class Accuracy:
    """Fractions of the examples whose label is the best, or among the best five."""

    top1: float
    top5: float


@dataclass(frozen=True, repr=False)
class Evaluation(Comparison[Accuracy]):
    """What was found in so many examples.

    Attributes:
        agreement: the fraction of examples to which both give the same best label, None without a source.
        truncated: how many inputs were too long for the bundle and lost their end.
        report: the bundle's answers class by class.
        answers: the bundle's, example by example.
    """

    agreement: float | None
    truncated: int
    report: ClassReport
    answers: Answers

    def to_json(self) -> dict[str, Any]:
        """The document that `eval --json` prints."""
        return {
            **self.values("top1", lambda quality: quality.top1),
            "agreement": self.agreement,
            "top5": self.bundle.top5,
            "source_top5": None if self.source is None else self.source.top5,
            **self.report.to_json(),
            "truncated": self.truncated,
            "executed_by": self.executed_by,
        }

    def tables(self) -> list[Table]:
        """A row for the bundle and one for its source; then the classes with the lowest F1, and the mistakes."""
        columns = ("top-1", f"top-{TOP}", "macro F1", "same answer", "n")
        table = self.table(columns, _percents, f"{self.report.macro_f1:.2%}", _same(self.agreement))
        return [table, class_table(self.report.scores), *_mistakes(self.report)]


def evaluate_classification(asker: Asker, data: str, limit: int | None) -> Evaluation | LabelSetEvaluation:
    """Ask a classifier; of texts whose labels stand for themselves see `evaluate_label_sets`."""
    manifest = asker.bundle.manifest
    head = cast("Classification | Similarity", manifest.postprocessing)
    if head.activation == "sigmoid" and manifest.preprocessing.kind == "text":
        return evaluate_label_sets(asker, data, limit)
    return evaluate_classes(asker, data, limit)


def best_labels(asker: Asker, data: str, limit: int | None) -> Answers:
    """The best label of each example; see `evaluate_classes`."""
    return evaluate_classes(asker, data, limit).answers


def evaluate_classes(asker: Asker, data: str, limit: int | None) -> Evaluation:
    """Ask a classifier about inputs that have one label each; see `open_data`.

    One without labels of its own is asked to choose among those of the data.
    """
    manifest = asker.bundle.manifest
    kind = manifest.preprocessing.kind
    own_labels: tuple[str, ...] | None = getattr(manifest.postprocessing, "labels", None)
    labels = data_labels(data, kind) if own_labels is None else own_labels
    with open_data(data, kind, labels) as opened:
        chosen = opened if limit is None else opened.limited(limit)
        asked = ask(asker, chosen.examples, _best, ImageTextOptions(labels) if own_labels is None else None)
    truth = [example.label for example in chosen.examples]
    names = [labels[index] for index in truth]
    index = {label: number for number, label in enumerate(labels)}
    own, theirs = asked.own, asked.theirs
    accuracy = _accuracy(own, names)
    return Evaluation(
        executed_by=asked.executed_by,
        n=len(truth),
        bundle=accuracy,
        source=None if theirs is None else _accuracy(theirs, names),
        agreement=None
        if theirs is None
        else _mean([mine[0] == other[0] for mine, other in zip(own, theirs, strict=True)]),
        truncated=asked.truncated,
        notes=(*chosen.notes, *asked.notes),
        report=class_report(truth, [index[best[0]] for best in own], labels),
        answers=Answers(
            metric=ACCURACY,
            value=accuracy.top1,
            examples=tuple(example.name for example in chosen.examples),
            truth=tuple(names),
            given=tuple(best[0] for best in own),
        ),
    )


def _mistakes(report: ClassReport) -> list[Table]:
    """The most frequent confusions, where there are any."""
    mistakes = report.most_confused(SHOWN_MISTAKES)
    if not mistakes:
        return []
    table = Table("label", "taken for", "n", title="most frequent mistakes")
    for label, other, count in mistakes:
        table.add_row(label, other, str(count))
    return [table]


def _same(agreement: float | None) -> str:
    return "-" if agreement is None else f"{agreement:.2%}"


def _percents(accuracy: Accuracy) -> tuple[str, str]:
    return f"{accuracy.top1:.2%}", f"{accuracy.top5:.2%}"


def _best(result: ClassificationResult) -> tuple[str, ...]:
    return result.top(TOP).labels


def _accuracy(answers: Sequence[tuple[str, ...]], truth: Sequence[str]) -> Accuracy:
    pairs = list(zip(answers, truth, strict=True))
    return Accuracy(_mean([label == best[0] for best, label in pairs]), _mean([label in best for best, label in pairs]))


def _mean(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits)


# Classifiers whose labels stand for themselves: an input has any number of them.


THRESHOLD = 0.5
"""A label with at least this score is given."""
SEPARATORS = ("|", ";", ",")
SHOWN_CLASSES = 10

COLUMNS = TableColumns("texts", (TEXT_COLUMNS.inputs, ("labels", *TEXT_COLUMNS.answers)), several=True)


@dataclass(frozen=True)
class LabelSetExample:
    """A text and the indices of its labels."""

    name: str
    labels: frozenset[int]
    read: Callable[[], str]


@dataclass(frozen=True, repr=False)
class LabelSetEvaluation(Comparison[LabelSetReport]):
    """What was found in so many examples.

    Attributes:
        agreement: the fraction of examples to which both give the same labels, None without a source.
        truncated: how many inputs were too long for the bundle and lost their end.
    """

    agreement: float | None
    truncated: int

    def to_json(self) -> dict[str, Any]:
        """The document that `eval --json` prints."""
        return {
            **self.values("micro_f1", lambda quality: quality.micro_f1),
            "agreement": self.agreement,
            "threshold": THRESHOLD,
            **self.bundle.to_json(),
            "truncated": self.truncated,
            "executed_by": self.executed_by,
        }

    def tables(self) -> list[Table]:
        """A row for the bundle and one for its source; then the classes with the lowest F1."""
        columns = ("micro F1", "macro F1", "all labels right", "same answer", "n")
        return [self.table(columns, _figures, _same(self.agreement)), class_table(self.bundle.scores)]


def evaluate_label_sets(asker: Asker, data: str, limit: int | None) -> LabelSetEvaluation:
    """Ask a text classifier with independent labels about texts and their sets of labels; see `read_label_sets`."""
    head = cast(Classification, asker.bundle.manifest.postprocessing)
    opened = read_label_sets(data, head.labels)
    examples = opened if limit is None else spread(opened, limit)
    index = {label: number for number, label in enumerate(head.labels)}

    def given(result: ClassificationResult) -> NDArray[np.bool_]:
        row = np.zeros(len(index), np.bool_)
        row[[index[label] for label, score in zip(result.labels, result.scores, strict=True) if score >= THRESHOLD]] = 1
        return row

    asked = ask(asker, examples, given)
    truth = np.array([[number in example.labels for number in range(len(index))] for example in examples])
    own, theirs = np.array(asked.own), None if asked.theirs is None else np.array(asked.theirs)
    return LabelSetEvaluation(
        executed_by=asked.executed_by,
        n=len(examples),
        bundle=label_set_report(truth, own, head.labels),
        source=None if theirs is None else label_set_report(truth, theirs, head.labels),
        agreement=None if theirs is None else float((own == theirs).all(axis=1).mean()),
        truncated=asked.truncated,
        notes=asked.notes,
    )


def read_label_sets(data: str, labels: Sequence[str]) -> tuple[LabelSetExample, ...]:
    """Texts with their labels: a list in JSON, or names with |, ; or commas between them; none: an empty cell or list.

    Raises:
        InputError: data that cannot be read, is empty, or has labels that the classifier does not know.
    """
    index = {label: number for number, label in enumerate(labels)}
    path, key = locate(data)
    examples = []
    for row in read_table(path, key, COLUMNS):
        text, answer = row.cells
        names = _names(answer, index)
        unknown = next((name for name in names if name not in index), None)
        if unknown is not None:
            raise InputError(
                f"{data}: {row.name}: the bundle does not know the label {shorten(unknown)}: "
                f"{did_you_mean(unknown, labels)}expected names of its "
                f"own, as {shorten(labels[0])}, with | between them, or a list in JSON"
            )
        examples.append(LabelSetExample(row.name, frozenset(index[name] for name in names), partial(str, text)))
    if not examples:
        raise InputError(f"{data} holds no examples: expected texts with labels")
    return tuple(examples)


def _names(answer: str, known: dict[str, int]) -> list[str]:
    """The labels in a cell. A label may hold a separator, so what is a label as it stands is not taken apart."""
    if answer.startswith("[") and answer not in known:
        try:
            value = json.loads(answer)
        except ValueError:
            value = None
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            return value
    if answer in known:
        return [answer]
    separator = next((each for each in SEPARATORS if each in answer), None)
    return [name.strip() for name in answer.split(separator) if name.strip()] if separator else [answer] * bool(answer)


def class_table(scores: Sequence[Any]) -> Table:
    """The classes with the lowest F1, the lowest first, of those that occur in the data."""
    worst = sorted((score for score in scores if score.support), key=lambda score: (score.f1, -score.support))
    title = f"the {SHOWN_CLASSES} lowest of {len(scores)} classes" if len(worst) > SHOWN_CLASSES else "classes"
    table = Table("label", "precision", "recall", "F1", "n", title=title)
    for score in worst[:SHOWN_CLASSES]:
        table.add_row(
            score.label, f"{score.precision:.2%}", f"{score.recall:.2%}", f"{score.f1:.2%}", str(score.support)
        )
    return table


def _figures(report: LabelSetReport) -> tuple[str, str, str]:
    return f"{report.micro_f1:.2%}", f"{report.macro_f1:.2%}", f"{report.subset_accuracy:.2%}"


@dataclass(frozen=True, repr=False)
class NeighbourEvaluation(Comparison[float]):
    """What share of so many images has its label in the nearest other image, by the cosine of embeddings.

    Attributes:
        agreement: the mean cosine of the bundle's embeddings to the source's, None without a source.
        least: the smallest of these cosines.
        answers: the label of each image's nearest other image.
    """

    agreement: float | None
    least: float | None
    answers: Answers

    def to_json(self) -> dict[str, Any]:
        """The document that `eval --json` prints."""
        return {
            **self.values(NEIGHBOURS.name, lambda share: share),
            "agreement": self.agreement,
            "least_cosine": self.least,
            "executed_by": self.executed_by,
        }

    def tables(self) -> list[Table]:
        """A row for the bundle and one for its source."""
        same = "-" if self.agreement is None else f"{self.agreement:.5f} (least {self.least:.5f})"
        columns = ("nearest has its label", "cosine to the source", "images")
        return [self.table(columns, lambda share: (f"{share:.2%}",), same)]


def evaluate_neighbours(asker: Asker, data: str, limit: int | None) -> NeighbourEvaluation:
    """Ask an embedder of images about labelled ones: leave-one-out classification by the nearest neighbour."""
    kind = asker.bundle.manifest.preprocessing.kind
    labels = data_labels(data, kind)
    with open_data(data, kind, labels) as opened:
        chosen = opened if limit is None else opened.limited(limit)
        if len(chosen.examples) < LEAST_IMAGES:
            raise InputError(f"{data}: a neighbour needs at least {LEAST_IMAGES} images, found {len(chosen.examples)}")
        asked = ask(asker, chosen.examples, vector_of)
    truth = np.array([example.label for example in chosen.examples])

    def nearest(vectors: Sequence[NDArray[np.float64]]) -> NDArray[np.int64]:
        rows = np.array(vectors)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        cosines = rows @ rows.T
        np.fill_diagonal(cosines, -np.inf)
        found: NDArray[np.int64] = truth[cosines.argmax(axis=1)]
        return found

    own, theirs = nearest(asked.own), None if asked.theirs is None else nearest(asked.theirs)
    alike = None if asked.theirs is None else cosines_of(np.array(asked.own), np.array(asked.theirs))
    return NeighbourEvaluation(
        executed_by=asked.executed_by,
        n=len(truth),
        bundle=float((own == truth).mean()),
        source=None if theirs is None else float((theirs == truth).mean()),
        agreement=None if alike is None else float(alike.mean()),
        least=None if alike is None else float(alike.min()),
        notes=(*chosen.notes, *asked.notes),
        answers=Answers(
            metric=NEIGHBOURS,
            value=float((own == truth).mean()),
            examples=tuple(example.name for example in chosen.examples),
            truth=tuple(labels[index] for index in truth),
            given=tuple(labels[index] for index in own),
        ),
    )


def nearest_labels(asker: Asker, data: str, limit: int | None) -> Answers:
    """The label of each image's nearest other image; see `evaluate_neighbours`."""
    return evaluate_neighbours(asker, data, limit).answers
