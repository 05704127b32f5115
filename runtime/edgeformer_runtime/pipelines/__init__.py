"""Pipelines: raw input to a typed answer, one class per task."""

from __future__ import annotations

from typing import Any, cast

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.engines.base import Engine
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.pipelines.base import Pipeline
from edgeformer_runtime.pipelines.program import ProgramPipeline
from edgeformer_runtime.registry import load_optional
from edgeformer_runtime.tasks.task import TASKS


def open_pipeline(bundle: Bundle, engine: Engine, owned: bool = False) -> Pipeline[Any, Any]:
    """The pipeline of the bundle's task.

    Args:
        bundle: an open bundle, which has to stay open.
        engine: what runs its programs.
        owned: whether the pipeline's `close` closes both.

    Raises:
        InputError: the task needs a package that is not installed.
    """
    task = TASKS[bundle.manifest.task]
    make = load_optional(task.pipeline, task.name, task.takes.extra)
    return cast(Pipeline[Any, Any], make(bundle, engine, owned))


def open_program_pipeline(bundle: Bundle, engine: Engine, owned: bool = False) -> ProgramPipeline[Any, Any]:
    """`open_pipeline` for those whose answer is one program's outputs.

    Raises:
        InputError: the bundle's task takes several programs to answer.
    """
    pipeline = open_pipeline(bundle, engine, owned)
    if not isinstance(pipeline, ProgramPipeline):
        raise InputError(f"{bundle.manifest.task} runs several programs for an answer: expected a task that runs one")
    return pipeline
