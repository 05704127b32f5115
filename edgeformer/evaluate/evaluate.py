"""`eval`: how right a bundle's answers are, as its task measures it, and how often they are its source model's."""

from __future__ import annotations

from dataclasses import replace
from os import fspath

from edgeformer.evaluate.side_by_side import Answers, Asker, EvaluationResult
from edgeformer.tasks.task import TASKS
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.engines.base import Engine
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.path_field import StrPath
from edgeformer_runtime.progress import Progress
from edgeformer_runtime.registry import load_attribute


def evaluate(
    bundle: Bundle,
    data: StrPath,
    source: StrPath | None = None,
    limit: int | None = None,
    threads: int = 1,
    progress: Progress | None = None,
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
    progress: Progress | None = None,
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
        raise InputError(f"{manifest.name} does {manifest.task}: expected a classifier or a transcriber")
    asker = Asker(bundle, progress=progress, engine=engine, alone=True)
    found: Answers = load_attribute(metric.answers)(asker, data, limit)
    return found
