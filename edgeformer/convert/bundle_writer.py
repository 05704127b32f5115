"""Writes bundles: model files, assets, recorded vectors, report and, last, the manifest that seals them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgeformer.checkpoints.checkpoint import Checkpoint
from edgeformer.convert.reference import TorchEngine
from edgeformer.convert.target import Converter, Lowered, Precision
from edgeformer.models.program import Program
from edgeformer.tasks.interface import Interface
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.folder import LEFT_BEHIND
from edgeformer_runtime.bundle.manifest import MANIFEST_NAME, REFUSED_FILE, FileEntry, Manifest, ProgramSpec
from edgeformer_runtime.bundle.signature import SIGNATURE_NAME
from edgeformer_runtime.bundle.specs import PROGRAM_STATE, ImagePreprocessing, Transcription
from edgeformer_runtime.bundle.vectors import Case, write_vectors
from edgeformer_runtime.pipelines import open_program_pipeline
from edgeformer_runtime.pipelines.speech import Transcriber
from edgeformer_runtime.verify.speech_replay import record

REPORT_FILE = "report.json"


def write_bundle(
    folder: Path,
    name: str,
    checkpoint: Checkpoint,
    converter: Converter,
    precision: Precision,
    attention: str,
    programs: tuple[Program, ...],
    lowered: Lowered,
    interface: Interface,
    cases: Sequence[Case] | None = None,
) -> Bundle:
    """Write a complete, sealed bundle into the empty folder.

    Args:
        cases: the vectors that a sibling of another precision has; None: they are recorded from the source model now.
    """
    for file in lowered.files:
        _copy(lowered.folder / file, folder / file)
    for file, content in interface.assets.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(content)
    manifest = Manifest(
        name=name,
        family=checkpoint.family.name,
        task=checkpoint.task,
        target=converter.target.format.name,
        precision=precision.name,
        license=checkpoint.license,
        requires=converter.requires,
        source=checkpoint.source,
        recipe=converter.target.recipe_of(precision),
        attention=attention,
        toolchain={package: version(package) for package in sorted({"torch", *converter.packages})},
        programs=tuple(
            ProgramSpec(program.name, *lowered.entries[program.name], program.inputs, program.outputs)
            for program in programs
        ),
        preprocessing=interface.preprocessing,
        postprocessing=interface.postprocessing,
        operators=lowered.operators,
        files={},
    )
    seal(folder, manifest)
    recorded = record_cases(folder, programs, interface) if cases is None else cases
    head = interface.postprocessing
    has_states = isinstance(head, Transcription) and head.state == PROGRAM_STATE
    tolerances = interface.tolerances(precision)
    if has_states:
        rounding = converter.target.format.state_rounding
        tolerances = replace(tolerances, output=max(tolerances.output, rounding))
    spec = interface.preprocessing
    write_vectors(folder, recorded, tolerances, images=spec if isinstance(spec, ImagePreprocessing) else None)
    return seal(folder, manifest)


def write_report(bundle: Bundle, folder: Path, report: Mapping[str, Any]) -> Bundle:
    """Add the report of what was checked at conversion and seal the bundle again.

    The report holds only what a second run on the same input gives again: no times, no dates.
    """
    text = json.dumps(report, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (folder / REPORT_FILE).write_text(text + "\n", encoding="utf-8")
    return seal(folder, bundle.manifest)


def write_refusal(bundle: Bundle, folder: Path, problems: Sequence[str]) -> Bundle:
    """Mark a bundle that a gate refused with a file that readers know, and seal it again."""
    text = json.dumps({"problems": list(problems)}, indent=2, ensure_ascii=False)
    (folder / REFUSED_FILE).write_text(text + "\n", encoding="utf-8")
    return seal(folder, bundle.manifest)


def record_cases(folder: Path, programs: tuple[Program, ...], interface: Interface) -> list[Case]:
    """Run the interface's samples through the source model in torch and record each stage."""
    with Bundle.open(folder) as bundle:
        engine = TorchEngine(programs)
        head = bundle.manifest.postprocessing
        if isinstance(head, Transcription):
            transcriber = Transcriber(bundle, engine)
            return [record(transcriber, *pair) for pair in zip(interface.samples, head.buckets, strict=True)]
        pipeline = open_program_pipeline(bundle, engine)
        return [pipeline.record(sample) for sample in interface.samples]


def seal(folder: Path, manifest: Manifest) -> Bundle:
    """Write the manifest over the files that are in the folder, and open the result as strictly as any reader would.

    A signature of the manifest that was there is removed with it.
    """
    (folder / SIGNATURE_NAME).unlink(missing_ok=True)
    files = {
        path.relative_to(folder).as_posix(): FileEntry(_sha256(path), path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST_NAME and path.name not in LEFT_BEHIND
    }
    (folder / MANIFEST_NAME).write_text(replace(manifest, files=files).to_json(), encoding="utf-8")
    return Bundle.open(folder, allow_refused=True)


def _copy(source: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, destination)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
