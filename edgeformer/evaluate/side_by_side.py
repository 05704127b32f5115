"""A bundle and its source model asked the same inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from edgeformer.checkpoints.source_index import known_source
from edgeformer.convert.reference import TorchEngine, source_programs
from edgeformer.convert.target import verification_engine
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import Manifest
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.cli.tables import refusals
from edgeformer_runtime.engines import open_engine
from edgeformer_runtime.engines.base import Engine
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.isolation.pipeline import IsolatedEngine
from edgeformer_runtime.isolation.process import Limits
from edgeformer_runtime.pipelines import open_program_pipeline

Answer = TypeVar("Answer")

Progress = Callable[[int, int], None]
"""Called with the number of finished examples and of all examples."""


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
    """

    bundle: Bundle
    source: str | None = None
    threads: int = 1
    progress: Progress | None = None
    isolated: bool = False

    def open_engine(self) -> Engine:
        """What runs the bundle's programs."""
        if self.isolated:
            return IsolatedEngine(self.bundle, self.threads, Limits())
        return verification_engine(self.bundle) or open_engine(self.bundle, self.threads)


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


def ask(asker: Asker, questions: Sequence[Question], take: Callable[[Any], Answer]) -> Asked[Answer]:
    """Ask both about every input.

    Args:
        asker: whom.
        questions: the inputs.
        take: what is kept of a pipeline's result.

    Raises:
        InputError: an input cannot be used, or `asker.source` is not the bundle's.
    """
    bundle = asker.bundle
    notes = [f"its conversion's gates refused this bundle: {why}" for why in refusals(bundle)]
    reference = _source_engine(bundle.manifest, asker.source, asker.threads, notes)
    engine = asker.open_engine()
    try:
        pipelines = [open_program_pipeline(bundle, each) for each in (engine, *([reference] if reference else []))]
        answers: list[list[Answer]] = [[] for _ in pipelines]
        truncated = 0
        for number, question in enumerate(questions, 1):
            try:
                prepared = pipelines[0].prepare(question.read())
            except InputError as error:
                raise InputError(f"{shorten(question.name)[1:-1]}: {error}") from None
            truncated += prepared.truncated
            for pipeline, taken in zip(pipelines, answers, strict=True):
                outputs = pipeline.engine.run(prepared.program, prepared.inputs)
                taken.append(take(pipeline.answer(outputs, prepared)))
            if asker.progress is not None:
                asker.progress(number, len(questions))
    finally:
        engine.close()
    if truncated:
        notes.append(f"{truncated} of {len(questions)} inputs were too long for the bundle and lost their end")
    if engine.not_covered is not None:
        notes.append(engine.not_covered)
    theirs = answers[1] if reference else None
    return Asked(answers[0], theirs, truncated, engine.executed_by, tuple(notes))


def _source_engine(manifest: Manifest, source: str | None, threads: int, notes: list[str]) -> TorchEngine | None:
    """The source model in torch; None with a note where nobody named it and it is not found."""
    checkpoint = known_source(manifest, source, notes)
    if checkpoint is None:
        return None
    import torch

    torch.set_num_threads(threads)
    return TorchEngine(source_programs(manifest, checkpoint))
