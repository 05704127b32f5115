"""Writes bundles: model files, assets, recorded vectors, report and, last, the manifest that seals them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgeformer.checkpoints.checkpoint import Checkpoint
from edgeformer.checkpoints.source_index import TorchEngine
from edgeformer.convert.target import Converter, Lowered, Precision
from edgeformer.models.family import Program
from edgeformer.tasks.task import TaskSpec
from edgeformer_runtime.bundle import archive
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.folder import LEFT_BEHIND
from edgeformer_runtime.bundle.manifest import (
    MANIFEST_NAME,
    REFUSED_FILE,
    REPORT_FILE,
    FileEntry,
    Manifest,
    ProgramSpec,
    Requirements,
    parse,
)
from edgeformer_runtime.bundle.signature import SIGNATURE_NAME, SignatureState
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.bundle.vectors import Case, write_vectors
from edgeformer_runtime.delivery import put
from edgeformer_runtime.errors import BundleError, EdgeFormerError, InputError
from edgeformer_runtime.preprocess.tokenizer_file import KNOWN_PATTERNS, steps

# What the apps' own tokenizers do not read; the runtime's is the library itself.
_NOT_ON_PHONES = {"normalizer": {"ByteLevel", "Nmt"}, "pre_tokenizer": {"CharDelimiterSplit", "UnicodeScripts"}}
_OTHER_PATTERN = re.compile(r"(^|\|)\^|\\[dDwWfv]|\\[pP]\{\^?(?!(?:L[ultmo]?|M|N)\})")
"""What a pattern may have, and the apps' matchers do not."""


def write_bundle(
    folder: Path,
    name: str,
    checkpoint: Checkpoint,
    converter: Converter,
    precision: Precision,
    attention: str,
    programs: tuple[Program, ...],
    lowered: Lowered,
    spec: TaskSpec,
    cases: Sequence[Case] | None = None,
    packed: tuple[Program, ...] = (),
) -> Bundle:
    """Write everything of a bundle but its report into the empty folder. `finish` seals it.

    Args:
        cases: the vectors that a sibling of another precision has; None: they are recorded from the source model now.
        packed: the program that takes several inputs in a row, or none.

    Returns:
        The bundle as it will be: this process may use it, others find no manifest yet.
    """
    for file in lowered.files:
        _copy(lowered.folder / file, folder / file)
    for file, content in spec.assets.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(content)
    manifest = Manifest(
        name=name,
        family=checkpoint.family.name,
        task=checkpoint.task,
        target=converter.target.format.name,
        precision=precision.name,
        license=checkpoint.license,
        requires=requirements(converter, spec)[0],
        source=checkpoint.source,
        recipe=converter.target.recipe_of(precision),
        attention=attention,
        toolchain={
            package: version(package) for package in sorted({"torch", *converter.packages, *checkpoint.family.packages})
        },
        programs=tuple(_program(each, lowered) for each in programs),
        packed=next((_program(each, lowered) for each in packed), None),
        preprocessing=spec.preprocessing,
        postprocessing=spec.postprocessing,
        operators=lowered.operators,
        files={},
    )
    draft = _draft(folder, manifest)
    recorded = record_cases(draft, programs, spec) if cases is None else cases
    tolerances = spec.tolerances(precision)
    rounding = converter.target.format.state_rounding * spec.state_roundings
    tolerances = replace(tolerances, output=max(tolerances.output, rounding))
    write_vectors(folder, recorded, tolerances, draft.manifest)
    return _draft(folder, draft.manifest)


def requirements(converter: Converter, spec: TaskSpec) -> tuple[Requirements, str | None]:
    """What runs a bundle, and a warning where an app could run the model but not do its task or read its tokenizer."""
    reads, phones = getattr(spec.preprocessing, "text", spec.preprocessing), ("android_api", "ios")
    file = getattr(reads, "tokenizer", None)
    unread = None if file is None else unread_by_phones(spec.assets[file].decode())
    without: dict[str, Any] = dict.fromkeys(phones)
    if not any(getattr(converter.requires, key) for key in phones):
        return converter.requires, None
    if not spec.task.on_phones:
        return replace(converter.requires, **without), f"no app does {spec.task.name} yet: requires says null"
    if unread is None:
        return converter.requires, None
    return replace(converter.requires, **without), f"no app can read this tokenizer ({unread}): requires says null"


def unread_by_phones(tokenizer: str) -> str | None:
    """What of a tokenizer the apps cannot read; None: nothing.

    >>> unread_by_phones('{"model": {"type": "WordLevel"}}')
    'model: WordLevel'
    """
    spec = json.loads(tokenizer)
    for part, types in _NOT_ON_PHONES.items():
        if other := types.intersection(step["type"] for step in steps(part, spec.get(part))):
            return f"{part}: {other.pop()}"
    for step in (*steps("normalizer", spec.get("normalizer")), *steps("pre_tokenizer", spec.get("pre_tokenizer"))):
        pattern = step.get("pattern", {}).get("Regex", "")
        if pattern not in KNOWN_PATTERNS and _OTHER_PATTERN.search(pattern):
            return f"pattern: {shorten(pattern)}"
    if spec["model"].get("type") == "WordLevel":
        return "model: WordLevel"
    if spec["model"].get("type") == "Unigram":
        if spec["model"].get("unk_id") is None:
            return "model: unk_id: null"
        if any(step.get("trim_offsets") for step in steps("post_processor", spec.get("post_processor"))):
            return "post_processor: trim_offsets"
    return None


def _program(program: Program, lowered: Lowered) -> ProgramSpec:
    return ProgramSpec(program.name, *lowered.entries[program.name], program.inputs, program.outputs)


def finish(draft: Bundle, report: Mapping[str, Any], refused: Sequence[str] = ()) -> Bundle:
    """Add the report of what was checked at conversion and seal the bundle.

    Args:
        draft: what `write_bundle` gave.
        report: holds only what a second run on the same input gives again: no times, no dates.
        refused: why a gate refused the bundle, which is marked with a file that readers know; empty: none did.
    """
    files = {REPORT_FILE: json.dumps(report, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)}
    if refused:
        files[REFUSED_FILE] = json.dumps({"problems": list(refused)}, indent=2, ensure_ascii=False)
    for name, text in files.items():
        (draft.folder / name).write_text(text + "\n", encoding="utf-8")
    return seal(draft.folder, draft.manifest)


def record_cases(draft: Bundle, programs: tuple[Program, ...], spec: TaskSpec) -> list[Case]:
    """Run the task's samples through the source model in torch and record each stage."""
    return spec.task.record(draft, TorchEngine(programs), spec.samples)


def seal(folder: Path, manifest: Manifest) -> Bundle:
    """Write the manifest over the files that are in the folder, and open the result as strictly as any reader would.

    A signature of the manifest that was there is removed with it.

    Args:
        folder: the bundle's.
        manifest: the files that it lists are as it says; the others are hashed now.

    Raises:
        BundleError: a file is not as the manifest lists it, or the bundle does not follow BUNDLE.md.
    """
    (folder / SIGNATURE_NAME).unlink(missing_ok=True)
    (folder / MANIFEST_NAME).write_text(_listing(folder, manifest).to_json(), encoding="utf-8")
    return Bundle.open(folder, allow_refused=True)


def _draft(folder: Path, manifest: Manifest) -> Bundle:
    """A bundle whose files this process has written and nobody else knows, with the manifest that a reader would see.

    Nothing is compared: `seal` does so once, when all is there.
    """
    return Bundle(folder, parse(_listing(folder, manifest).to_json().encode()), SignatureState(False, None))


def _listing(folder: Path, manifest: Manifest) -> Manifest:
    """The manifest with the size and hash of each file in the folder; those that it lists keep what it says."""
    present = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST_NAME and path.name not in LEFT_BEHIND
    }
    files = {
        name: manifest.files.get(name) or FileEntry(_sha256(path), path.stat().st_size)
        for name, path in present.items()
    }
    return replace(manifest, files=files)


def _copy(source: Path, destination: Path) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, destination)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Where a finished bundle goes: its folder and, if asked for, its zip, in place of those that were there.


def check_destination(path: Path, zipped: bool) -> None:
    """Refuse to replace what is no bundle.

    Args:
        path: of a bundle's folder to be.
        zipped: whether its zip is wanted, too.

    Raises:
        InputError: something else is there.
    """
    ours = path.is_dir() and ((path / MANIFEST_NAME).is_file() or not any(path.iterdir()))
    if path.exists() and not ours:
        raise InputError(f"{path} exists and is not a bundle: choose another --out or --name")
    archived = zip_beside(path)
    if zipped and archived.exists() and _zip_holds(archived) is None:
        raise InputError(f"{archived} exists and is not a bundle's zip: choose another --out or --name")


def deliver(made: Bundle, path: Path, zipped: bool) -> list[str]:
    """Put a finished bundle in its place.

    A zip of the bundle that it replaces does not stay beside it: it would go on as the same bundle.

    Args:
        made: a sealed bundle, open from its folder in a work folder.
        path: its place.
        zipped: whether to put a zip beside it, too.

    Returns:
        What somebody who replaces a bundle has to know, a sentence each.
    """
    archived = zip_beside(path)
    in_zip = _zip_holds(archived)
    signed = (path / SIGNATURE_NAME).is_file() or (in_zip is not None and SIGNATURE_NAME in in_zip)
    notes = []
    if zipped:
        packed = made.folder.with_name(archived.name)
        with packed.open("xb") as file:
            archive.write(file, made.members())
    put(made.folder, path)
    if zipped:
        put(packed, archived)
    elif in_zip is not None:
        archived.unlink()
        notes.append(f"{archived} was of the bundle that is replaced, and is removed: edgeformer pack makes one")
    elif archived.exists():
        notes.append(f"{archived} is no bundle's zip, and stays as it is")
    if signed:
        notes.append(f"the bundle that {path} replaces was signed: sign this one, too, with edgeformer sign")
    return notes


def discard(path: Path, work: Path) -> bool:
    """Remove a bundle in one step, as its folder moves into a work folder.

    Returns:
        Whether there was one.
    """
    if not (path / MANIFEST_NAME).is_file():
        return False
    path.rename(work / path.name)
    return True


def zip_beside(path: Path) -> Path:
    """Where the zip of a bundle's folder lies."""
    return path.with_name(f"{path.name}.zip")


def fresh_folder(parent: Path, name: str) -> Path:
    """A new folder in a work folder."""
    folder = parent / name
    folder.mkdir()
    return folder


def _zip_holds(path: Path) -> set[str] | None:
    """The names of the files in a bundle's zip; None: it is none."""
    if not path.is_file():
        return None
    try:
        with archive.Reader(path) as found:
            return set(found.sizes) if MANIFEST_NAME in found.sizes else None
    except (BundleError, OSError):
        return None


# Where export tools write what they need for a moment: beside the output, where there has to be room anyway.


_FULL_BYTES = 1 << 20
_SLACK_BYTES = 16 << 20
_TMPDIR = "TMPDIR"


@contextmanager
def scratch_in(folder: Path) -> Iterator[None]:
    """Have temporary files of this process go to a folder, those of tools in other languages, too.

    A full TMPDIR ends LiteRT's converter, and with it the process, without a word; and what tools leave there when they
    are killed stays for ever.

    Raises:
        InputError: something failed inside the block, and the folder's disk is full.
    """
    scratch = folder / "scratch"
    scratch.mkdir()
    before = tempfile.tempdir, os.environ.get(_TMPDIR)
    tempfile.tempdir = os.environ[_TMPDIR] = str(scratch.resolve())
    try:
        yield
    except EdgeFormerError:
        raise
    except Exception as error:
        if shutil.disk_usage(folder).free < _FULL_BYTES:
            raise InputError(f"no space left in {folder.parent.parent}: make room, or name another --out") from error
        raise
    finally:
        tempfile.tempdir = before[0]
        if before[1] is None:
            del os.environ[_TMPDIR]
        else:
            os.environ[_TMPDIR] = before[1]


def check_space(folder: Path, programs: Sequence[Program], copies: int) -> None:
    """Refuse a conversion for which a disk has no room, as tools that find it full end the process.

    Args:
        folder: where everything is written.
        programs: what is converted.
        copies: how often the weights are written at least.

    Raises:
        InputError: too little is free.
    """
    parameters = {id(each): each for program in programs for each in program.module.parameters()}
    weights = sum(each.numel() * each.element_size() for each in parameters.values())
    needed, free = copies * weights + _SLACK_BYTES, shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"not enough space in {folder.parent.parent}: {needed >> 20} MiB are needed, {free >> 20} MiB are free: "
            "make room, or name another --out"
        )
