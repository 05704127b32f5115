"""`eval`: how often a bundle's answers are right, and how often they are its source model's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from edgeformer.evaluate_speech import SpeechEvaluation, evaluate_speech, speech_table
from edgeformer.evaluation_data import EvaluationData, open_data
from edgeformer.source_index import known_source
from edgeformer.source_programs import source_programs
from edgeformer.targets import verification_engine
from edgeformer.torch_engine import TorchEngine
from edgeformer_runtime.bundle import Bundle
from edgeformer_runtime.engines import open_engine
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.isolation.limits import Limits
from edgeformer_runtime.isolation.pipeline import IsolatedEngine
from edgeformer_runtime.manifest import Classification, Manifest
from edgeformer_runtime.pipelines import open_program_pipeline
from edgeformer_runtime.pipelines.program import Prepared, ProgramPipeline
from edgeformer_runtime.speech_spec import Transcription
from edgeformer_runtime.strict_json import shorten

TOP = 5

Progress = Callable[[int, int], None]
"""Called with the number of finished examples and of all examples."""


@dataclass(frozen=True)
class Accuracy:
    """Fractions of the examples whose label is the best, or among the best five."""

    top1: float
    top5: float


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    Attributes:
        executed_by: what ran the bundle's programs.
        n: the number of examples.
        bundle: of the bundle.
        source: of the source model in fp32, None where it was not at hand.
        agreement: the fraction of examples to which both give the same best label, None without a source.
        truncated: how many inputs were too long for the bundle and lost their end.
        notes: what a user may want to know, a line each.
    """

    executed_by: str
    n: int
    bundle: Accuracy
    source: Accuracy | None
    agreement: float | None
    truncated: int
    notes: tuple[str, ...]

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
            "truncated": self.truncated,
            "executed_by": self.executed_by,
        }


def evaluate(
    bundle: Bundle,
    data: str,
    source: str | None = None,
    limit: int | None = None,
    threads: int = 1,
    progress: Progress | None = None,
    isolated: bool = False,
) -> Evaluation | SpeechEvaluation:
    """Ask a bundle and its source model about labelled data.

    Args:
        bundle: an open classifier, or a speech recogniser, which `evaluate_speech` evaluates.
        data: see `open_data`, and `read_speech_data` for speech.
        source: the checkpoint; None: where it is found, and without it there is no agreement.
        limit: use so many examples, spread evenly; None: all.
        threads: for the engine and for torch.
        progress: called after each example.
        isolated: run the model in a process of its own; not for speech.

    Raises:
        InputError: the bundle is neither, the data cannot be used, or `source` is not the bundle's.
    """
    manifest = bundle.manifest
    head = manifest.postprocessing
    if isinstance(head, Transcription):
        if isolated:
            raise InputError("--isolated: speech is evaluated in this process alone, expected texts or images")
        return evaluate_speech(bundle, data, source, limit, threads, progress)
    if not isinstance(head, Classification):
        raise InputError(
            f"{manifest.name} does {manifest.task}: expected a classifier or a speech recogniser to evaluate"
        )
    with open_data(data, manifest.preprocessing.kind, head.labels) as opened:
        chosen = opened if limit is None else opened.limited(limit)
        notes = list(chosen.notes)
        reference = _source_engine(manifest, source, threads, notes)
        engine = (
            IsolatedEngine(bundle, threads, Limits())
            if isolated
            else verification_engine(bundle) or open_engine(bundle, threads)
        )
        try:
            pipelines = [open_program_pipeline(bundle, each) for each in (engine, *([reference] if reference else []))]
            answers, truncated = _answers(pipelines, chosen, progress)
        finally:
            engine.close()
    if truncated:
        notes.append(f"{truncated} of {len(chosen.examples)} inputs were too long for the bundle and lost their end")
    if engine.not_covered is not None:
        notes.append(engine.not_covered)
    truth = [head.labels[example.label] for example in chosen.examples]
    own, *others = answers
    return Evaluation(
        executed_by=engine.executed_by,
        n=len(truth),
        bundle=_accuracy(own, truth),
        source=_accuracy(others[0], truth) if others else None,
        agreement=_mean([mine[0] == theirs[0] for mine, theirs in zip(own, others[0], strict=True)])
        if others
        else None,
        truncated=truncated,
        notes=tuple(notes),
    )


def evaluation_table(bundle: Bundle, found: Evaluation | SpeechEvaluation) -> Table:
    """A row for the bundle and one for its source."""
    if isinstance(found, SpeechEvaluation):
        return speech_table(bundle, found)
    table = Table("model", "executed by", "top-1", f"top-{TOP}", "same answer", "n")
    manifest = bundle.manifest
    name = f"{manifest.name}.{manifest.target}.{manifest.precision}"
    same = "-" if found.agreement is None else f"{found.agreement:.2%}"
    table.add_row(name, found.executed_by, *_percents(found.bundle), same, str(found.n))
    if found.source is not None:
        table.add_row(manifest.source.id, "torch, fp32", *_percents(found.source), "", str(found.n))
    return table


def _percents(accuracy: Accuracy) -> tuple[str, str]:
    return f"{accuracy.top1:.2%}", f"{accuracy.top5:.2%}"


def _source_engine(manifest: Manifest, source: str | None, threads: int, notes: list[str]) -> TorchEngine | None:
    """The source model in torch; None with a note where nobody named it and it is not found."""
    checkpoint = known_source(manifest, source, notes)
    if checkpoint is None:
        return None
    import torch

    torch.set_num_threads(threads)
    return TorchEngine(source_programs(manifest, checkpoint))


def _answers(
    pipelines: Sequence[ProgramPipeline[Any, Any]], data: EvaluationData, progress: Progress | None
) -> tuple[list[list[tuple[str, ...]]], int]:
    """For each pipeline the best labels of each example; and how many examples were truncated."""
    answers: list[list[tuple[str, ...]]] = [[] for _ in pipelines]
    truncated = 0
    for number, example in enumerate(data.examples):
        try:
            prepared = pipelines[0].prepare(example.read())
        except InputError as error:
            raise InputError(f"{shorten(example.name)[1:-1]}: {error}") from None
        truncated += prepared.truncated
        for pipeline, best in zip(pipelines, answers, strict=True):
            best.append(_best(pipeline, prepared))
        if progress is not None:
            progress(number + 1, len(data.examples))
    return answers, truncated


def _best(pipeline: ProgramPipeline[Any, Any], prepared: Prepared) -> tuple[str, ...]:
    outputs = pipeline.engine.run(prepared.program, prepared.inputs)
    labels: tuple[str, ...] = pipeline.answer(outputs, prepared).top(TOP).labels
    return labels


def _accuracy(answers: Sequence[tuple[str, ...]], truth: Sequence[str]) -> Accuracy:
    pairs = list(zip(answers, truth, strict=True))
    return Accuracy(_mean([label == best[0] for best, label in pairs]), _mean([label in best for best, label in pairs]))


def _mean(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits)
