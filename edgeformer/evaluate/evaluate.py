"""`eval`: how right a bundle's answers are, as its task measures it, and how often they are its source model's."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import fspath
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from rich.table import Table

from edgeformer.convert.target import verification_engine
from edgeformer.tasks.task import TASKS, Metric
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.cli.tables import refusals
from edgeformer_runtime.engines import Engine, open_engine
from edgeformer_runtime.errors import EdgeFormerError, InputError
from edgeformer_runtime.interface import CountProgress, Shown, StrPath
from edgeformer_runtime.isolation.pipeline import IsolatedEngine
from edgeformer_runtime.isolation.process import Limits
from edgeformer_runtime.pipelines import AT_A_TIME, open_program_pipeline
from edgeformer_runtime.registry import load_attribute

if TYPE_CHECKING:
    from edgeformer.checkpoints.checkpoint import Checkpoint
    from edgeformer.checkpoints.source_index import TorchEngine


def evaluate(
    bundle: Bundle,
    data: StrPath,
    source: StrPath | None = None,
    limit: int | None = None,
    threads: int = 1,
    progress: CountProgress | None = None,
    isolated: bool = False,
) -> EvaluationResult:
    """Ask a bundle and its source model about labelled data.

    Args:
        bundle: an open bundle.
        data: of classifiers see `open_data`, and `read_label_sets` where labels stand for themselves; of embedders
            `read_scored_pairs`, of speech recognisers `read_speech_data`.
        source: the checkpoint; None: where it is found, and without it there is no agreement.
        limit: use so many examples, spread evenly; None: all.
        threads: for the engine and for torch.
        progress: called after each example.
        isolated: run the model in a process of its own; of speech all that answers.

    Raises:
        InputError: the data cannot be used, or `source` is not the bundle's.
    """
    asker = Asker(bundle, None if source is None else fspath(source), threads, progress, isolated)
    manifest = bundle.manifest
    found: EvaluationResult = load_attribute(TASKS[manifest.task].evaluation)(asker, fspath(data), limit)
    name = f"{manifest.name}.{manifest.target}.{manifest.precision}"
    return replace(found, model=name, source_model=manifest.source.id)


def answers_of(
    bundle: Bundle,
    data: str,
    limit: int | None = None,
    progress: CountProgress | None = None,
    engine: Engine | None = None,
) -> Answers:
    """Ask a bundle alone about labelled data, with one thread, and keep each answer.

    Args:
        bundle: an open one of a task that has a metric.
        data: as `edgeformer eval` takes it.
        limit: use so many examples, spread evenly; None: all.
        progress: called after each example.
        engine: what runs its programs and is closed after; None: the target's own, or what stands in for it.

    Raises:
        InputError: the bundle is of another task, or the data cannot be used.
    """
    manifest = bundle.manifest
    metric = TASKS[manifest.task].metric
    if metric is None:
        expected = ", ".join(task.noun for task in TASKS.values() if task.metric is not None)
        raise InputError(f"{manifest.name} does {manifest.task}, which has no metric: expected one of {expected}")
    asker = Asker(bundle, progress=progress, engine=engine, alone=True)
    found: Answers = load_attribute(metric.answers)(asker, data, limit)
    return found


# A bundle and its source model asked the same inputs.


Answer = TypeVar("Answer")
Quality = TypeVar("Quality")


@dataclass(frozen=True, kw_only=True, repr=False)
class EvaluationResult(Shown):
    """What every evaluation of a bundle beside its source model knows.

    Attributes:
        notes: what a user may want to know, a line each.
        model: the bundle's name, with target and precision.
        source_model: the id of its source.
    """

    notes: tuple[str, ...]
    model: str = ""
    source_model: str = ""


@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison(EvaluationResult, Generic[Quality]):
    """How good the answers of a bundle are, and those of its source model to the same inputs.

    Attributes:
        executed_by: what ran the bundle's programs.
        n: the number of inputs.
        bundle: of the bundle.
        source: of the source model in fp32, None where it was not at hand.
    """

    executed_by: str
    n: int
    bundle: Quality
    source: Quality | None

    def values(self, metric: str, of: Callable[[Quality], float | None]) -> dict[str, Any]:
        """The first entries of `eval --json`: a metric of both."""
        source_value = None if self.source is None else of(self.source)
        return {"metric": metric, "value": of(self.bundle), "n": self.n, "source_value": source_value}

    def table(self, columns: Sequence[str], figures: Callable[[Quality], Sequence[str]], *shared: str) -> Table:
        """A row for the bundle and one for its source.

        Args:
            columns: what stands over the figures, over `shared` and over the number of inputs.
            figures: of either, as they are shown.
            shared: what concerns both, and stands in the bundle's row.
        """
        table = Table("model", "executed by", *columns)
        table.add_row(self.model, self.executed_by, *figures(self.bundle), *shared, str(self.n))
        if self.source is not None:
            empty = ("",) * len(shared)
            table.add_row(self.source_model, "torch, fp32", *figures(self.source), *empty, str(self.n))
        return table


class Question(Protocol):
    """An input: where it comes from, for messages, and what reads it."""

    @property
    def name(self) -> str:
        """Where it is."""

    @property
    def read(self) -> Callable[[], Any]:
        """Gives what the pipeline takes."""


@dataclass(frozen=True)
class Asker:
    """Whom to ask, and how.

    Attributes:
        bundle: an open bundle whose answer is one program's outputs.
        source: the checkpoint; None: where it is found, and without it there are no answers of it.
        threads: for the engine and for torch.
        progress: called after each input, or None.
        isolated: run the bundle's model in a process of its own.
        engine: what runs the bundle's programs, and is closed after; None: the target's own, or what stands in for it.
        alone: ask the bundle and not its source.
    """

    bundle: Bundle
    source: str | None = None
    threads: int = 1
    progress: CountProgress | None = None
    isolated: bool = False
    engine: Engine | None = None
    alone: bool = False

    def open_engine(self) -> Engine:
        """What runs the bundle's programs."""
        if self.engine is not None:
            return self.engine
        if self.isolated:
            return IsolatedEngine(self.bundle, self.threads, Limits())
        return verification_engine(self.bundle) or open_engine(self.bundle, self.threads)

    def open_source(self, notes: list[str]) -> Checkpoint | None:
        """The source model, torch having its threads; None where it is not asked, or with a note where it is not known.

        Raises:
            InputError: the named one cannot be used.
        """
        if self.alone:
            return None
        import torch

        from edgeformer.checkpoints.source_index import known_source

        checkpoint = known_source(self.bundle.manifest, self.source, notes)
        if checkpoint is not None:
            torch.set_num_threads(self.threads)
        return checkpoint


@dataclass(frozen=True)
class Answers:
    """A bundle's answers to labelled data, example by example, so that two bundles can be compared.

    Attributes:
        metric: the task's.
        value: of the metric.
        examples: their names in the data.
        truth: the right answers: labels or texts.
        given: the bundle's.
    """

    metric: Metric
    value: float
    examples: tuple[str, ...]
    truth: tuple[str, ...]
    given: tuple[str, ...]

    def same_as(self, other: Answers) -> tuple[bool, ...]:
        """For each example whether both answer the same."""
        same = operator.eq if self.metric.same is None else load_attribute(self.metric.same)
        return tuple(bool(same(one, another)) for one, another in zip(self.given, other.given, strict=True))

    def agreement_with(self, other: Answers) -> float:
        """How alike both are: the share of the same answers, or what the metric has in its place."""
        if self.metric.alike is not None:
            return float(load_attribute(self.metric.alike)(self, other))
        same = self.same_as(other)
        return sum(same) / len(same)


@dataclass(frozen=True)
class Asked(Generic[Answer]):
    """The answers to each input, in order.

    Attributes:
        own: the bundle's.
        theirs: the source model's, None where it was not at hand.
        truncated: how many inputs were too long for the bundle and lost their end.
        executed_by: what ran the bundle's programs.
        notes: what a user may want to know, a line each.
    """

    own: list[Answer]
    theirs: list[Answer] | None
    truncated: int
    executed_by: str
    notes: tuple[str, ...]


def ask(
    asker: Asker, questions: Sequence[Question], take: Callable[[Any], Answer], options: Any = None
) -> Asked[Answer]:
    """Ask both about every input.

    Args:
        asker: whom.
        questions: the inputs.
        take: what is kept of a pipeline's result.
        options: of each call, where the task's answers have some; None: the bundle's own.

    Raises:
        InputError: an input cannot be used, or `asker.source` is not the bundle's.
    """
    bundle = asker.bundle
    notes = [f"its conversion's gates refused this bundle: {why}" for why in refusals(bundle)]
    reference = _source_engine(asker, notes)
    engine = asker.open_engine()
    own: list[Answer] = []
    theirs: list[Answer] | None = None if reference is None else []
    truncated = 0
    try:
        pipeline = open_program_pipeline(bundle, engine)
        source = None if reference is None else open_program_pipeline(bundle, reference)
        for start in range(0, len(questions), AT_A_TIME):
            some = questions[start : start + AT_A_TIME]
            raws = [_read(question) for question in some]
            for question, raw, found in zip(some, raws, pipeline.answer_each(raws, options), strict=True):
                if isinstance(found, InputError):
                    raise _about(question, found) from None
                if isinstance(found, EdgeFormerError):
                    raise found
                truncated += found.truncated
                own.append(take(found))
                if source is not None and theirs is not None:
                    theirs.append(take(source.run(raw, options)))
                if asker.progress is not None:
                    asker.progress(len(own), len(questions))
    finally:
        engine.close()
    if truncated:
        notes.append(f"{truncated} of {len(questions)} inputs were too long for the bundle and lost their end")
    if engine.not_covered is not None:
        notes.append(engine.not_covered)
    return Asked(own, theirs, truncated, engine.executed_by, tuple(notes))


def _read(question: Question) -> Any:
    try:
        return question.read()
    except InputError as error:
        raise _about(question, error) from None


def _about(question: Question, error: InputError) -> InputError:
    return InputError(f"{shorten(question.name)[1:-1]}: {error}")


def _source_engine(asker: Asker, notes: list[str]) -> TorchEngine | None:
    """The source model in torch, which only this imports."""
    checkpoint = asker.open_source(notes)
    if checkpoint is None:
        return None
    from edgeformer.checkpoints.source_index import TorchEngine, source_programs

    return TorchEngine(source_programs(asker.bundle.manifest, checkpoint))


Z_95 = 1.96


def share_interval(share: float, n: int) -> tuple[float, float]:
    """What holds a share of n with 95 % (Wilson 1927)."""
    square = Z_95**2 / n
    middle = share + square / 2
    reach = Z_95 * math.sqrt(share * (1 - share) / n + square / (4 * n))
    return max(0.0, (middle - reach) / (1 + square)), min(1.0, (middle + reach) / (1 + square))
