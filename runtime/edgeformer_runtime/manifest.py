"""The manifest of a bundle as frozen dataclasses. BUNDLE.md is normative; manifest.schema.json holds its structure."""

from __future__ import annotations

from dataclasses import dataclass

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
CASES_FILE = "vectors/cases.json"
TENSORS_FILE = "vectors/tensors.safetensors"


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype ("float32", "int32", ...) and static shape of one input or output."""

    name: str
    dtype: str
    shape: tuple[int, ...]


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
    """

    tokenizer: str | None
    pad_token_id: int
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
    preprocessing: TextPreprocessing
    postprocessing: Classification | Embedding
    operators: dict[str, int]
    files: dict[str, FileEntry]
    format_version: int = FORMAT_VERSION
