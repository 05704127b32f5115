"""The manifest of a bundle as frozen dataclasses. BUNDLE.md is normative; manifest.schema.json holds its structure."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

from edgeformer_runtime import __version__
from edgeformer_runtime.bundle import strict_json
from edgeformer_runtime.bundle.signature import SIGNATURE_NAME
from edgeformer_runtime.bundle.specs import Classification as Classification
from edgeformer_runtime.bundle.specs import Embedding as Embedding
from edgeformer_runtime.bundle.specs import Postprocessing as Postprocessing
from edgeformer_runtime.bundle.specs import Preprocessing as Preprocessing
from edgeformer_runtime.bundle.specs import ProgramSpec as ProgramSpec
from edgeformer_runtime.bundle.specs import Score as Score
from edgeformer_runtime.bundle.specs import TensorSpec as TensorSpec
from edgeformer_runtime.bundle.specs import TextPreprocessing as TextPreprocessing
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import BundleError
from edgeformer_runtime.tasks.task import TASKS, Task

_CONTROL_CHARACTER = "[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
"""C0, DEL, C1, and what turns the direction of the text behind it: a terminal obeys them."""

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
SCHEMA_FILE = "manifest.schema.json"
VECTORS_FOLDER = "vectors/"
CASES_FILE = VECTORS_FOLDER + "cases.json"
TENSORS_FILE = VECTORS_FOLDER + "tensors.safetensors"
REPORT_FILE = "report.json"
REFUSED_FILE = "refused.json"
"""Marks a bundle that its conversion's gates refused: nobody loads it who does not say so."""
MAX_MANIFEST_BYTES = 4 << 20
MAX_CASES_BYTES = 16 << 20
RESERVED_PROGRAM_NAMES = ("preprocess", "answer", "mel", "steps", "text")
"""The names of the other stages of a verification."""


@dataclass(frozen=True)
class Requirements:
    """The oldest versions that run the bundle. None: the target does not run there."""

    runtime: str
    ios: str | None = None
    macos: str | None = None
    android_api: int | None = None


@dataclass(frozen=True)
class Source:
    """The checkpoint that the bundle was made from; `weights_sha256` covers the weight files' bytes."""

    id: str
    revision: str | None
    weights_sha256: str


@dataclass(frozen=True)
class Recipe:
    """What was asked of the weights: `name` decodes as <activation range>_w<weight type>_a<activation type>."""

    name: str
    weights: str
    activations: str
    embeddings: str


@dataclass(frozen=True)
class FileEntry:
    """What a file of the bundle must be: the SHA-256 of its bytes in hexadecimal, and how many there are."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """Everything an app has to know to run the bundle; see BUNDLE.md for each field's meaning."""

    name: str
    family: str
    task: str
    target: str
    precision: str
    license: str | None
    requires: Requirements
    source: Source
    recipe: Recipe
    attention: str
    toolchain: dict[str, str]
    programs: tuple[ProgramSpec, ...]
    preprocessing: Preprocessing
    postprocessing: Postprocessing
    operators: dict[str, int]
    files: dict[str, FileEntry]
    format_version: int = FORMAT_VERSION
    packed: ProgramSpec | None = field(default=None, metadata=strict_json.OPTIONAL)

    @property
    def all_programs(self) -> tuple[ProgramSpec, ...]:
        """All that the model files hold: those that answer one input, and the one that answers several."""
        return self.programs if self.packed is None else (*self.programs, self.packed)

    def to_data(self) -> dict[str, Any]:
        """The manifest as JSON values."""
        return cast(dict[str, Any], strict_json.to_data(self))

    def to_json(self) -> str:
        """The manifest's canonical text: sorted keys, two spaces of indentation, a final newline.

        Raises:
            BundleError: `parse` would refuse it.
        """
        text = strict_json.dumps(self.to_data())
        parse(text)
        return text


def parse(text: str | bytes, known: bool = False) -> Manifest:
    """Read a manifest from an untrusted file.

    Args:
        text: of the file.
        known: this very file passed before (`bundle/folder.py`), and is not compared with the schema again.

    Raises:
        BundleError: the text does not follow BUNDLE.md, or asks for a newer runtime.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if known:
        data = json.loads(raw)
    else:
        data = strict_json.loads(raw, MANIFEST_NAME, MAX_MANIFEST_BYTES)
        _check_form(data)
    task = TASKS[data["task"]]
    _check_kinds(data, task)
    records = {Preprocessing: task.takes.record, Postprocessing: task.gives.record}
    manifest = strict_json.from_data(Manifest, data, MANIFEST_NAME, records)
    _check_files(manifest)
    for program in manifest.all_programs:
        _check_program(manifest, program)
    check_unique((program.name for program in manifest.all_programs), "program")
    _check_task(manifest, task)
    return manifest


def _check_form(data: Any) -> None:
    """The version, the keys and the values are such as the schema allows."""
    if isinstance(data, dict):
        _check_version(data)
    strict_json.check(data, _schema(data), MANIFEST_NAME)
    for _, value in strict_json.walk(data):
        # The pattern takes a millisecond to compile, as its characters reach far: most texts need none.
        if isinstance(value, str) and not value.isprintable() and re.search(_CONTROL_CHARACTER, value):
            raise BundleError(f"{MANIFEST_NAME}: {shorten(value)} holds a control character")


def _schema(data: Any) -> strict_json.Schema:
    """The schema of a manifest: our own, with what its task adds where that is another author's."""
    ours = strict_json.load_schema(SCHEMA_FILE)
    name = data.get("task") if isinstance(data, dict) else None
    if not isinstance(name, str) or name in ours["properties"]["task"]["enum"] or name not in TASKS:
        return ours
    task, schema = TASKS[name], copy.deepcopy(dict(ours))
    schema["properties"]["task"]["enum"].append(name)
    for key, part in (("preprocessing", task.takes), ("postprocessing", task.gives)):
        if part.schema is not None:
            record = schema["properties"][key]
            record["properties"]["kind"]["enum"].append(part.kind)
            record["allOf"].append({"if": {"properties": {"kind": {"const": part.kind}}}, "then": part.schema})
    return schema


def _check_version(data: dict[str, Any]) -> None:
    """Say that a bundle is newer before a schema that cannot know its keys says something less helpful."""
    found = data.get("format_version")
    if isinstance(found, int) and found > FORMAT_VERSION:
        raise BundleError(
            f"{MANIFEST_NAME}: made by a newer version ({shorten(found)}), this runtime reads {FORMAT_VERSION}:"
            " upgrade edgeformer-runtime"
        )
    requires = data.get("requires")
    needed = requires.get("runtime") if isinstance(requires, dict) else None
    if isinstance(needed, str) and _version(needed) > _version(__version__):
        raise BundleError(
            f"{MANIFEST_NAME}: needs edgeformer-runtime {shorten(needed)[1:-1]} or newer, this is {__version__}:"
            " upgrade edgeformer-runtime"
        )


def _version(text: str) -> tuple[int, ...]:
    """The numbers of a version, or of a text that the schema will refuse nothing."""
    parts = text.split(".")
    return tuple(int(part) for part in parts) if all(part.isdecimal() and len(part) < 9 for part in parts) else ()


def _check_files(manifest: Manifest) -> None:
    for name in manifest.files:
        strict_json.check_name(name)
    strict_json.check_distinct([*manifest.files, MANIFEST_NAME, SIGNATURE_NAME])
    if (CASES_FILE in manifest.files) != (TENSORS_FILE in manifest.files):
        raise BundleError(f"{MANIFEST_NAME}: files: {CASES_FILE} and {TENSORS_FILE} belong together, found one of them")


def _check_program(manifest: Manifest, program: ProgramSpec) -> None:
    where = f"{MANIFEST_NAME}: program {program.name}"
    if program.name in RESERVED_PROGRAM_NAMES:
        raise BundleError(f"{where}: this name is reserved, as are all of {', '.join(RESERVED_PROGRAM_NAMES)}")
    strict_json.check_name(program.file)
    in_folder = any(name.startswith(program.file + "/") for name in manifest.files)
    if program.file not in manifest.files and not in_folder:
        raise BundleError(f"{where}: its file {shorten(program.file)} is neither a file nor a folder of files")
    if in_folder != _files_of(manifest).in_folders:
        raise BundleError(f"{where}: {shorten(program.file)}: a Core ML model is a folder, any other a file")
    check_unique((tensor.name for tensor in program.inputs + program.outputs), f"input or output of {program.name}")


def _check_kinds(data: dict[str, Any], task: Task) -> None:
    """The pre- and postprocessing are those of the task."""
    for key, expected in (("preprocessing", task.takes.kind), ("postprocessing", task.gives.kind)):
        if data[key]["kind"] != expected:
            raise BundleError(f"{MANIFEST_NAME}: {key}.kind: expected {expected!r} for {data['task']}")


def _check_task(manifest: Manifest, task: Task) -> None:
    """The files that the records name are there, and the records fit the programs."""
    for file in task.files(manifest):
        if file.name not in manifest.files:
            raise BundleError(f"{MANIFEST_NAME}: {file.key}: {shorten(file.name)} is not among files")
    task.takes.check(manifest)
    task.gives.check(manifest)
    if manifest.packed is not None:
        task.takes.check_packed(manifest, manifest.packed)


def check_unique(found: Iterable[str], what: str) -> None:
    """Refuse names of which one occurs twice.

    Raises:
        BundleError: says what they are names of.
    """
    seen: set[str] = set()
    for name in found:
        if name in seen:
            raise BundleError(f"{MANIFEST_NAME}: the {what} {shorten(name)} occurs twice")
        seen.add(name)


# How large the files of a bundle may be, by what the manifest says that they are: known before any is read.

MAX_REPORT_BYTES = 64 << 20
MAX_RAW_INPUT_BYTES = 128 << 20
"""Of a file of raw input among the vectors."""
MAX_TENSORS_BYTES = 1 << 30
MAX_OTHER_BYTES = 256 << 20
"""Of a file that nothing refers to, as a licence."""
MAX_MODEL_BYTES = (2 << 30) - 1
"""Of a FlatBuffer, whose offsets are 31 bits, and of a Protocol Buffer, whose lengths are."""


@dataclass(frozen=True)
class ModelFiles:
    """What the files of a format are that programs name.

    Attributes:
        max_bytes: of each; None: its encoding sets no limit.
        in_folders: a program names a folder, and each file in it is a part of the model.
        weights_beside: files in the folder of a model's may be its weights, of any size.
    """

    max_bytes: int | None = None
    in_folders: bool = False
    weights_beside: bool = False


_FORMATS = {
    "litert": ModelFiles(MAX_MODEL_BYTES),
    "onnx": ModelFiles(MAX_MODEL_BYTES, weights_beside=True),
    "coreml": ModelFiles(in_folders=True),
}


def _files_of(manifest: Manifest) -> ModelFiles:
    return _FORMATS.get(manifest.target, ModelFiles())


def check_sizes(manifest: Manifest) -> None:
    """Refuse a size that a file of its kind cannot have, before it is read and hashed.

    Raises:
        BundleError: names the file and what was expected.
    """
    limits, files = _limits(manifest), _files_of(manifest)
    models = {program.file for program in manifest.all_programs}
    beside_models = {name.rpartition("/")[0] for name in models} if files.weights_beside else set()
    for name, entry in manifest.files.items():
        limit = limits.get(name)
        if limit is None and name.startswith(VECTORS_FOLDER):
            limit = MAX_RAW_INPUT_BYTES
        elif limit is None and name in models:
            limit = files.max_bytes
        elif limit is None and not files.in_folders and name.rpartition("/")[0] not in beside_models:
            limit = MAX_OTHER_BYTES
        if limit is not None and entry.size > limit:
            raise BundleError(f"{name}: expected at most {limit} bytes, found {entry.size}")


def _limits(manifest: Manifest) -> dict[str, int]:
    """The files that the manifest names."""
    limits = {CASES_FILE: MAX_CASES_BYTES, TENSORS_FILE: MAX_TENSORS_BYTES, REPORT_FILE: MAX_REPORT_BYTES}
    return limits | {file.name: file.max_bytes for file in TASKS[manifest.task].files(manifest)}
