"""`eval`: how often a bundle's answers are right, class by class, and how often they are its source model's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import fspath
from typing import Any, TypeAlias, cast

from rich.table import Table

from edgeformer.convert.target import verification_engine
from edgeformer.data.clips import read_speech_data
from edgeformer.data.labelled import open_data
from edgeformer.evaluate.embeddings import EmbeddingEvaluation, evaluate_embeddings
from edgeformer.evaluate.label_sets import LabelSetEvaluation, class_table, evaluate_label_sets
from edgeformer.evaluate.side_by_side import Asker, ClassReport, Compared, ask, class_report
from edgeformer.evaluate.speech import Listener, SpeechEvaluation, evaluate_speech, measure, simple_words
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import Classification, Embedding
from edgeformer_runtime.bundle.specs import Transcription
from edgeformer_runtime.engines import open_engine
from edgeformer_runtime.engines.base import Engine
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.path_field import StrPath
from edgeformer_runtime.pipelines import open_pipeline
from edgeformer_runtime.pipelines.results import ClassificationResult
from edgeformer_runtime.progress import Progress

TOP = 5
SHOWN_MISTAKES = 5


@dataclass(frozen=True)
class Accuracy:
    """Fractions of the examples whose label is the best, or among the best five."""

    top1: float
    top5: float


@dataclass(frozen=True, repr=False)
class Evaluation(Compared):
    """What was found.

    Attributes:
        executed_by: what ran the bundle's programs.
        n: the number of examples.
        bundle: of the bundle.
        source: of the source model in fp32, None where it was not at hand.
        agreement: the fraction of examples to which both give the same best label, None without a source.
        truncated: how many inputs were too long for the bundle and lost their end.
        notes: what a user may want to know, a line each.
        report: the bundle's answers class by class.
    """

    executed_by: str
    n: int
    bundle: Accuracy
    source: Accuracy | None
    agreement: float | None
    truncated: int
    notes: tuple[str, ...]
    report: ClassReport

    def to_json(self) -> dict[str, Any]:
        """The document that `eval --json` prints."""
        return {
            "metric": "top1",
            "value": self.bundle.top1,
            "n": self.n,
            "source_value": None if self.source is None else self.source.top1,
            "agreement": self.agreement,
            "top5": self.bundle.top5,
            "source_top5": None if self.source is None else self.source.top5,
            **self.report.to_json(),
            "truncated": self.truncated,
            "executed_by": self.executed_by,
        }

    def tables(self) -> list[Table]:
        """A row for the bundle and one for its source; then what was worst."""
        table = Table("model", "executed by", "top-1", f"top-{TOP}", "macro F1", "same answer", "n")
        same = "-" if self.agreement is None else f"{self.agreement:.2%}"
        row = (*_percents(self.bundle), f"{self.report.macro_f1:.2%}", same, str(self.n))
        table.add_row(self.model, self.executed_by, *row)
        if self.source is not None:
            table.add_row(self.source_model, "torch, fp32", *_percents(self.source), "", "", str(self.n))
        return [table, class_table(self.report.scores), *_mistakes(self.report)]


AnyEvaluation: TypeAlias = Evaluation | LabelSetEvaluation | EmbeddingEvaluation | SpeechEvaluation


def evaluate(
    bundle: Bundle,
    data: StrPath,
    source: StrPath | None = None,
    limit: int | None = None,
    threads: int = 1,
    progress: Progress | None = None,
    isolated: bool = False,
) -> AnyEvaluation:
    """Ask a bundle and its source model about labelled data.

    Args:
        bundle: an open bundle. `evaluate_speech` evaluates speech recognisers, `evaluate_embeddings` embedders, and
            `evaluate_label_sets` classifiers of texts whose labels stand for themselves.
        data: see `open_data`, and for the others `read_speech_data`, `read_scored_pairs` and `read_label_sets`.
        source: the checkpoint; None: where it is found, and without it there is no agreement.
        limit: use so many examples, spread evenly; None: all.
        threads: for the engine and for torch.
        progress: called after each example.
        isolated: run the model in a process of its own; of speech all that answers.

    Raises:
        InputError: the data cannot be used, or `source` is not the bundle's.
    """
    manifest = bundle.manifest
    asker = Asker(bundle, None if source is None else fspath(source), threads, progress, isolated)
    found = _evaluate(asker, fspath(data), limit)
    name = f"{manifest.name}.{manifest.target}.{manifest.precision}"
    return replace(found, model=name, source_model=manifest.source.id)


def _evaluate(asker: Asker, data: str, limit: int | None) -> AnyEvaluation:
    bundle = asker.bundle
    head = bundle.manifest.postprocessing
    if isinstance(head, Transcription):
        return evaluate_speech(bundle, data, asker.source, limit, asker.threads, asker.progress, asker.isolated)
    if isinstance(head, Embedding):
        return evaluate_embeddings(asker, data, limit)
    if not isinstance(head, Classification):
        raise InputError(f"{bundle.manifest.task}: expected a task that is evaluated on labels, references or pairs")
    if head.activation == "sigmoid" and bundle.manifest.preprocessing.kind == "text":
        return evaluate_label_sets(asker, data, limit)
    return _evaluate_classes(asker, head, data, limit)


def _evaluate_classes(asker: Asker, head: Classification, data: str, limit: int | None) -> Evaluation:
    """Of a classifier whose inputs have one label each."""
    with open_data(data, asker.bundle.manifest.preprocessing.kind, head.labels) as opened:
        chosen = opened if limit is None else opened.limited(limit)
        asked = ask(asker, chosen.examples, _best)
    truth = [example.label for example in chosen.examples]
    names = [head.labels[index] for index in truth]
    index = {label: number for number, label in enumerate(head.labels)}
    own, theirs = asked.own, asked.theirs
    return Evaluation(
        executed_by=asked.executed_by,
        n=len(truth),
        bundle=_accuracy(own, names),
        source=None if theirs is None else _accuracy(theirs, names),
        agreement=None
        if theirs is None
        else _mean([mine[0] == other[0] for mine, other in zip(own, theirs, strict=True)]),
        truncated=asked.truncated,
        notes=(*chosen.notes, *asked.notes),
        report=class_report(truth, [index[best[0]] for best in own], head.labels),
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


def _percents(accuracy: Accuracy) -> tuple[str, str]:
    return f"{accuracy.top1:.2%}", f"{accuracy.top5:.2%}"


def _best(result: ClassificationResult) -> tuple[str, ...]:
    return result.top(TOP).labels


def _accuracy(answers: Sequence[tuple[str, ...]], truth: Sequence[str]) -> Accuracy:
    pairs = list(zip(answers, truth, strict=True))
    return Accuracy(_mean([label == best[0] for best, label in pairs]), _mean([label in best for best, label in pairs]))


def _mean(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits)


# A bundle's answers to labelled data, example by example, so that two bundles can be compared.


@dataclass(frozen=True)
class Answers:
    """What a bundle says.

    Attributes:
        metric: "accuracy" or "wer".
        value: of the metric.
        examples: their names in the data.
        truth: the right answers: labels or texts.
        given: the bundle's.
    """

    metric: str
    value: float
    examples: tuple[str, ...]
    truth: tuple[str, ...]
    given: tuple[str, ...]

    def same_as(self, other: Answers) -> tuple[bool, ...]:
        """For each example whether both answer the same; texts are compared word by word, without punctuation."""
        pairs = zip(self.given, other.given, strict=True)
        if self.metric == "wer":
            return tuple(simple_words(one) == simple_words(another) for one, another in pairs)
        return tuple(one == another for one, another in pairs)


def answers_of(
    bundle: Bundle,
    data: str,
    limit: int | None = None,
    progress: Progress | None = None,
    engine: Engine | None = None,
) -> Answers:
    """Ask a bundle about labelled data, with one thread.

    Args:
        bundle: an open classifier or speech recogniser.
        data: as `edgeformer eval` takes it.
        limit: use so many examples, spread evenly; None: all.
        progress: called after each example.
        engine: what runs its programs and is closed after; None: the target's own, or what stands in for it.

    Raises:
        InputError: the bundle is neither, or the data cannot be used.
    """
    engine = engine or verification_engine(bundle) or open_engine(bundle, threads=1)
    try:
        if isinstance(bundle.manifest.postprocessing, Transcription):
            return _heard(bundle, engine, data, limit, progress)
        return _classified(bundle, engine, data, limit, progress)
    finally:
        engine.close()


def _classified(bundle: Bundle, engine: Engine, data: str, limit: int | None, progress: Progress | None) -> Answers:
    head = bundle.manifest.postprocessing
    if not isinstance(head, Classification):
        raise InputError(f"{bundle.manifest.name} does {bundle.manifest.task}: expected a classifier or a transcriber")
    pipeline = open_pipeline(bundle, engine)
    given = []
    with open_data(data, bundle.manifest.preprocessing.kind, head.labels) as opened:
        chosen = opened if limit is None else opened.limited(limit)
        for number, example in enumerate(chosen.examples, 1):
            given.append(str(pipeline.run(example.read()).top(1).labels[0]))
            if progress is not None:
                progress(number, len(chosen.examples))
    truth = tuple(head.labels[example.label] for example in chosen.examples)
    right = sum(one == other for one, other in zip(truth, given, strict=True))
    return Answers("accuracy", right / len(truth), tuple(each.name for each in chosen.examples), truth, tuple(given))


def _heard(bundle: Bundle, engine: Engine, data: str, limit: int | None, progress: Progress | None) -> Answers:
    opened = read_speech_data(data)
    chosen = opened if limit is None else opened.limited(limit)
    with open_pipeline(bundle, engine) as listener:
        found = measure(cast(Listener, listener), None, chosen, engine.executed_by, progress)
    return Answers(
        "wer",
        found.bundle.simple.rate,
        tuple(row.name for row in found.rows),
        tuple(row.said for row in found.rows),
        tuple(row.bundle.text for row in found.rows),
    )
