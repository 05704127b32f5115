"""The manifest of a bundle as frozen dataclasses. BUNDLE.md is normative; manifest.schema.json holds its structure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from edgeformer_runtime.bundle import strict_json
from edgeformer_runtime.bundle.signature import SIGNATURE_NAME
from edgeformer_runtime.bundle.specs import AudioPreprocessing, ImagePreprocessing, Transcription, bucket_layout
from edgeformer_runtime.bundle.specs import TensorSpec as TensorSpec
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import BundleError
from edgeformer_runtime.version import __version__

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
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
TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
IMAGE_PROGRAM = "image"
IMAGE_INPUT = "pixels"

# What each task takes and gives: the kinds of its preprocessing and of its postprocessing.
TASKS: dict[str, tuple[str, str]] = {
    "text-classification": ("text", "classification"),
    "text-embedding": ("text", "embedding"),
    "image-classification": ("image", "classification"),
    "speech-recognition": ("audio", "transcription"),
}


@dataclass(frozen=True)
class ProgramSpec:
    """One callable of a model file: `entry` is the signature, function or method that runs it inside `file`."""

    name: str
    file: str
    entry: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class TextPreprocessing:
    """Text to token ids. Every program of the bundle is a bucket whose length is dimension 1 of `input_ids`.

    `tokenizer` names a tokenizers JSON file, or is None when the checkpoint had none and callers bring token ids.
    `vocab_size` is the number of rows of the model's embedding table: token ids must be below it. None: unknown.
    """

    tokenizer: str | None
    pad_token_id: int
    vocab_size: int | None = None
    kind: str = "text"


@dataclass(frozen=True)
class Classification:
    """Scores from logits: `activation` is "softmax" (one label holds) or "sigmoid" (any number of them)."""

    labels: tuple[str, ...]
    activation: str
    kind: str = "classification"


@dataclass(frozen=True)
class Embedding:
    """The program's output is the embedding itself, pooled and, where `normalized`, of L2 norm 1."""

    dim: int
    normalized: bool
    kind: str = "embedding"


Preprocessing = TextPreprocessing | ImagePreprocessing | AudioPreprocessing
Postprocessing = Classification | Embedding | Transcription


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

    def to_json(self) -> str:
        """The manifest's canonical text: sorted keys, two spaces of indentation, a final newline.

        Raises:
            BundleError: `parse` would refuse it.
        """
        text = strict_json.dumps(strict_json.to_data(self))
        parse(text)
        return text


def parse(text: str | bytes) -> Manifest:
    """Read a manifest from an untrusted file.

    Raises:
        BundleError: the text does not follow BUNDLE.md, or asks for a newer runtime.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    data = strict_json.loads(raw, MANIFEST_NAME, MAX_MANIFEST_BYTES)
    if isinstance(data, dict):
        _check_version(data)
    strict_json.check(data, "manifest.schema.json", MANIFEST_NAME)
    for _, value in strict_json.walk(data):
        if isinstance(value, str) and strict_json.CONTROL_CHARACTER.search(value):
            raise BundleError(f"{MANIFEST_NAME}: {shorten(value)} holds a control character")
    manifest = strict_json.from_data(Manifest, data, MANIFEST_NAME)
    _check_files(manifest)
    for program in manifest.programs:
        _check_program(manifest, program)
    _check_unique((program.name for program in manifest.programs), "program")
    _check_task(manifest)
    return manifest


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
    if in_folder != (manifest.target == "coreml"):
        raise BundleError(f"{where}: {shorten(program.file)}: a model is a folder for coreml and a file for others")
    _check_unique((tensor.name for tensor in program.inputs + program.outputs), f"input or output of {program.name}")


def _check_task(manifest: Manifest) -> None:
    """The task, its pre- and post-processing and the programs belong together."""
    before, head = manifest.preprocessing, manifest.postprocessing
    found = {"preprocessing": before.kind, "postprocessing": head.kind}
    for (key, kind), expected in zip(found.items(), TASKS[manifest.task], strict=True):
        if kind != expected:
            raise BundleError(f"{MANIFEST_NAME}: {key}.kind: expected {expected!r} for {manifest.task}")
    if isinstance(before, TextPreprocessing):
        _check_text(before, manifest)
    elif isinstance(before, ImagePreprocessing):
        _check_image(before, manifest.programs)
    if isinstance(head, Transcription):
        _check_speech(cast(AudioPreprocessing, before), head, manifest)
    else:
        _check_head(head, manifest.programs)


def _check_head(head: Classification | Embedding, programs: tuple[ProgramSpec, ...]) -> None:
    """Every program's only output is as wide as the answer."""
    if isinstance(head, Classification):
        _check_unique(head.labels, "label")
    width = len(head.labels) if isinstance(head, Classification) else head.dim
    for program in programs:
        shapes = [tensor.shape for tensor in program.outputs]
        if shapes != [(1, width)] or program.outputs[0].dtype != "float32":
            raise BundleError(
                f"{MANIFEST_NAME}: program {program.name}: expected one float32 output of shape (1, {width})"
            )


def _check_text(spec: TextPreprocessing, manifest: Manifest) -> None:
    """The tokenizer is there, and the programs are buckets of different lengths."""
    if spec.tokenizer is not None and spec.tokenizer not in manifest.files:
        raise BundleError(f"{MANIFEST_NAME}: preprocessing.tokenizer: {shorten(spec.tokenizer)} is not among files")
    if spec.pad_token_id >= (spec.vocab_size or 1 << 31):
        raise BundleError(f"{MANIFEST_NAME}: preprocessing.pad_token_id is not below vocab_size")
    for program in manifest.programs:
        _check_text_inputs(program, f"{MANIFEST_NAME}: program {program.name}")
    lengths = [program.inputs[0].shape[1] for program in manifest.programs]
    _check_unique((str(length) for length in lengths), "sequence length")


def _check_text_inputs(program: ProgramSpec, where: str) -> None:
    shapes = {tensor.name: tensor.shape for tensor in program.inputs}
    length = shapes.get("input_ids", ())
    for tensor in program.inputs:
        if tensor.name not in TEXT_INPUTS:
            raise BundleError(f"{where}: unknown input {tensor.name!r}: text has {', '.join(TEXT_INPUTS)}")
        if tensor.dtype != "int32" or len(tensor.shape) != 2 or tensor.shape[0] != 1 or tensor.shape != length:
            raise BundleError(f"{where}: expected input_ids and other inputs of one shape (1, S) in int32")


def _check_image(spec: ImagePreprocessing, programs: tuple[ProgramSpec, ...]) -> None:
    """There is one program, and its input is what the preprocessing gives."""
    expected = TensorSpec(IMAGE_INPUT, "float32", (1, 3, spec.height, spec.width))
    if [program.name for program in programs] != [IMAGE_PROGRAM] or programs[0].inputs != (expected,):
        raise BundleError(
            f"{MANIFEST_NAME}: programs: images have one program {IMAGE_PROGRAM!r} with one input {IMAGE_INPUT!r}, "
            f"float32 of shape {expected.shape}"
        )


def _check_speech(sound: AudioPreprocessing, head: Transcription, manifest: Manifest) -> None:
    """The files are there, and the programs are those of the buckets, tensor by tensor."""
    for key, name in (
        ("preprocessing.mel_filters", sound.mel_filters),
        ("postprocessing.tokenizer", head.tokenizer),
    ):
        if name not in manifest.files:
            raise BundleError(f"{MANIFEST_NAME}: {key}: {shorten(name)} is not among files")
    window = sound.window_seconds * sound.sample_rate
    if head.buckets[-1].positions * sound.samples_per_position != window:
        raise BundleError(f"{MANIFEST_NAME}: postprocessing.buckets: the last one must take {window} samples")
    layouts = [layout for bucket in head.buckets for layout in bucket_layout(head, bucket, sound.n_mels)]
    programs = {program.name: program for program in manifest.programs}
    if len(layouts) != len(programs) or {layout.name for layout in layouts} != programs.keys():
        raise BundleError(f"{MANIFEST_NAME}: programs: expected exactly those of postprocessing.buckets, each once")
    for layout in layouts:
        program = programs[layout.name]
        for key, expected, found in (
            ("inputs", layout.inputs, program.inputs),
            ("outputs", layout.outputs, program.outputs),
        ):
            if found != expected:
                wrong = next((a for a, b in zip(expected, found, strict=False) if a != b), None)
                hint = f"{len(expected)} of them" if wrong is None else f"{wrong.name} as {wrong.dtype} {wrong.shape}"
                raise BundleError(f"{MANIFEST_NAME}: program {program.name}: {key}: its bucket asks for {hint}")
    _check_ids(head)


def _check_ids(head: Transcription) -> None:
    """No token id is beyond the logits."""
    tokens = vars(head.tokens).copy()
    ids = [*tokens.pop("languages").values(), *tokens.values(), *head.suppress, *head.suppress_at_start]
    largest = max(token for token in ids if token is not None)
    if largest >= head.vocab_size:
        raise BundleError(f"{MANIFEST_NAME}: postprocessing: the token {largest} is not below vocab_size")


def _check_unique(found: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    for name in found:
        if name in seen:
            raise BundleError(f"{MANIFEST_NAME}: the {what} {shorten(name)} occurs twice")
        seen.add(name)
