"""What a conversion is judged on besides its few recorded samples: built-in inputs, calibration, labelled data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from edgeformer.checkpoints.checkpoint import Checkpoint
from edgeformer.convert.agreement import Reference
from edgeformer.convert.reference import TorchEngine
from edgeformer.data.labelled import open_data
from edgeformer.models.program import Program
from edgeformer.tasks.task import TASKS
from edgeformer.tasks.text import MAX_CALIBRATION_SAMPLES
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import Classification
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.bundle.vectors import Case
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.pipelines import open_program_pipeline

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


def recorded_references(cases: Iterable[Case]) -> Iterator[Reference]:
    """The recorded samples."""
    return (Reference(case.program, case.inputs, case.outputs, shorten(case.raw)) for case in cases)


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
    return Reference(prepared.program, prepared.inputs, outputs, sample, label)
