"""What a conversion is judged on besides its few recorded samples: built-in inputs, calibration, labelled data."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeformer.checkpoints.checkpoint import Checkpoint
from edgeformer.convert.agreement import Reference
from edgeformer.convert.calibration import MAX_SAMPLES
from edgeformer.convert.gate_texts import gate_texts
from edgeformer.convert.reference import TorchEngine
from edgeformer.data.labelled import open_data
from edgeformer.models.program import Program
from edgeformer.tasks import samples
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import Classification, TextPreprocessing
from edgeformer_runtime.bundle.specs import Transcription
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.bundle.vectors import Case
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.pipelines import open_program_pipeline

MAX_LABELLED = 1000
"""Of labelled data so many at most, spread evenly: an accuracy is then known to 1.6 points or better."""
TOKEN_SEQUENCES = 96
"""Drawn for a model without a tokenizer."""
IMAGES = 32
"""Drawn for a model of images."""


@dataclass(frozen=True)
class Judged:
    """What bundles are judged on besides built-in inputs, and what becomes of refused ones: see `ConvertOptions`."""

    calibration: Path | None
    evaluation: str | None
    keep_refused: bool


def references_for(bundle: Bundle, programs: Sequence[Program], judged: Judged) -> tuple[Reference, ...]:
    """Inputs that all bundles of these programs are judged on, with the source's outputs; none of speech.

    Args:
        bundle: an open one of the programs.
        programs: of the source.
        judged: what was given; labelled data take the place of everything built in.
    """
    if isinstance(bundle.manifest.postprocessing, Transcription):
        return ()
    if judged.evaluation is not None:
        return labelled_references(bundle, programs, judged.evaluation)
    given = calibration_references(programs)
    if judged.calibration is not None:
        # Calibration needs no labels: without them there is no metric.
        with suppress(InputError):
            given = labelled_references(bundle, programs, str(judged.calibration), MAX_SAMPLES)
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
    """Ordinary texts, drawn token ids where there is no tokenizer, or drawn images, and the source's outputs in torch.

    Args:
        bundle: an open one of the programs, not of speech: how raw inputs become tensors.
        programs: of the source.
    """
    spec = bundle.manifest.preprocessing
    pipeline: Any = open_program_pipeline(bundle, TorchEngine(programs))
    if isinstance(spec, TextPreprocessing):
        lengths = sorted(program.inputs[0].shape[1] for program in programs)
        stored = gate_texts(lengths) if spec.tokenizer else _token_ids(lengths, spec.vocab_size or 1)
        raws = [(shorten(each), pipeline.raw_from_json(each)) for each in stored]
    else:
        raws = [(f"drawn image {index}", file) for index, file in enumerate(samples.varied_images(IMAGES))]
    return tuple(_reference(pipeline, sample, raw, None) for sample, raw in raws)


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
    head = bundle.manifest.postprocessing
    if not isinstance(head, Classification):
        raise InputError(f"{bundle.manifest.name} does {bundle.manifest.task}: labelled data are for classifiers")
    pipeline = open_program_pipeline(bundle, TorchEngine(programs))
    with open_data(data, bundle.manifest.preprocessing.kind, head.labels) as opened:
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
    kinds = {"text-classification": "text", "image-classification": "image"}
    if checkpoint.task not in kinds:
        raise InputError(
            f"--eval is for classifiers, and this does {checkpoint.task}: leave it out, and use eval after"
        )
    with open_data(data, kinds[checkpoint.task], checkpoint.labels):
        pass


def _reference(pipeline: Any, sample: str, raw: Any, label: int | None) -> Reference:
    prepared = pipeline.prepare(raw)
    outputs = pipeline.engine.run(prepared.program, prepared.inputs)
    return Reference(prepared.program, prepared.inputs, outputs, sample, label)


def _token_ids(lengths: Sequence[int], vocab_size: int) -> Iterator[dict[str, Any]]:
    """Sequences of drawn ids, from 2 to the largest bucket long."""
    generator = random.Random(1)
    for _ in range(TOKEN_SEQUENCES):
        count = generator.randint(2, lengths[-1])
        yield {"token_ids": [generator.randrange(vocab_size) for _ in range(count)]}
