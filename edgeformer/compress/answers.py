"""A bundle's answers to labelled data, example by example, so that two bundles can be compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from edgeformer.convert.target import verification_engine
from edgeformer.data.clips import read_speech_data
from edgeformer.data.labelled import open_data
from edgeformer.evaluate.speech import Listener, measure
from edgeformer.evaluate.word_errors import simple_words
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import Classification
from edgeformer_runtime.bundle.specs import Transcription
from edgeformer_runtime.engines import open_engine
from edgeformer_runtime.engines.base import Engine
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.pipelines import open_pipeline

Progress = Callable[[int, int], None]


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
