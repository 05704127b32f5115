"""Tiny bundles for the runtime's tests, made by hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeformer_runtime.bundle import Bundle
from edgeformer_runtime.engines.base import Tensor
from edgeformer_runtime.manifest import (
    MANIFEST_NAME,
    Classification,
    Embedding,
    FileEntry,
    Manifest,
    ProgramSpec,
    Recipe,
    Requirements,
    Source,
    TensorSpec,
    TextPreprocessing,
)
from edgeformer_runtime.pipelines import open_pipeline
from edgeformer_runtime.vectors import Tolerances, write_vectors

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "turn", "the", "lights", "off", "on", "hello", "##s", "!"]
LABELS = ("lights", "weather", "greeting")
SAMPLES = (
    {"text": "turn the lights off!"},
    {"text": ""},
    {"text": "hello", "pair": "turn the lights on"},
    {"text": "hello " * 40},
    {"token_ids": [2, 9, 3]},
)


def word_piece() -> str:
    """A tokenizers file with twelve words and BERT's special tokens."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    vocabulary = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return str(tokenizer.to_str())


class ArithmeticEngine:
    """Stands in for an engine: outputs that depend on every input element, exactly reproducible."""

    name = "arithmetic"
    executed_by = "arithmetic 1.0"

    def __init__(self, width: int, offset: float = 0.0, normalized: bool = False) -> None:
        self.width, self.offset, self.normalized = width, offset, normalized
        self.closed = False

    def run(self, program: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002
        ids = inputs["input_ids"][0].astype(np.float64) * inputs["attention_mask"][0]
        angles = np.outer(np.arange(1, self.width + 1), ids + np.arange(len(ids)) * 0.1)  # (width, S)
        output = 4 * np.sin(angles).mean(axis=1) + self.offset * np.arange(self.width)
        if self.normalized:
            output /= np.linalg.norm(output)
        return {"output": output.astype(np.float32)[None]}

    def close(self) -> None:
        self.closed = True


def manifest(target: str = "onnx", task: str = "text-classification", seq_lens: tuple[int, ...] = (8, 16)) -> Manifest:
    """A manifest of the tiny bundle, before its files are listed."""
    head = Classification(LABELS, "softmax") if task == "text-classification" else Embedding(4, True)
    width = len(head.labels) if isinstance(head, Classification) else head.dim
    return Manifest(
        name="tiny",
        family="bert",
        task=task,
        target=target,
        precision="fp32",
        license="Apache-2.0",
        requires=Requirements(runtime="0.1.0"),
        source=Source("tests/tiny", None, "0" * 64),
        recipe=Recipe("wfp32_afp32", "float32", "float32", "float32"),
        attention="dense",
        toolchain={"torch": "2.13.0"},
        programs=tuple(
            ProgramSpec(
                name=f"seq_{length}",
                file="model.bin",
                entry=f"seq_{length}",
                inputs=tuple(TensorSpec(name, "int32", (1, length)) for name in ("input_ids", "attention_mask")),
                outputs=(TensorSpec("output", "float32", (1, width)),),
            )
            for length in seq_lens
        ),
        preprocessing=TextPreprocessing("tokenizer.json", pad_token_id=0, vocab_size=len(WORDS)),
        postprocessing=head,
        operators={"ADD": 2},
        files={},
    )


def seal(folder: Path, unsealed: Manifest) -> None:
    """List the folder's files in the manifest and write it."""
    files = {
        path.relative_to(folder).as_posix(): FileEntry(
            hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST_NAME
    }
    (folder / MANIFEST_NAME).write_text(replace(unsealed, files=files).to_json(), encoding="utf-8")


def engine_for(unsealed: Manifest) -> ArithmeticEngine:
    """The arithmetic that a manifest's outputs fit."""
    width = unsealed.programs[0].outputs[0].shape[1]
    return ArithmeticEngine(width, normalized=unsealed.task == "text-embedding")


def make_bundle(folder: Path, unsealed: Manifest) -> Path:
    """Write a bundle whose model file is no model; its vectors are what ArithmeticEngine gives."""
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(bytes(range(256)))
    (folder / "tokenizer.json").write_text(word_piece(), encoding="utf-8")
    seal(folder, unsealed)
    with Bundle.open(folder) as bundle:
        pipeline = open_pipeline(bundle, engine_for(unsealed))
        cases = [pipeline.record(sample) for sample in SAMPLES]
    write_vectors(folder, cases, Tolerances(output=1e-4, score=1e-4))
    seal(folder, unsealed)
    return folder


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A valid classification bundle without a real model."""
    return make_bundle(tmp_path / "tiny", manifest())


@pytest.fixture
def tiny_embedder(tmp_path: Path) -> Path:
    """A valid embedding bundle without a real model."""
    return make_bundle(tmp_path / "tiny_embedder", manifest(task="text-embedding"))


@pytest.fixture
def edit_manifest() -> Callable[[Path, Callable[[dict], object]], None]:
    """Changes a bundle's manifest as JSON, without any check."""

    def edit(folder: Path, change: Callable[[dict], object]) -> None:
        document = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
        change(document)
        (folder / MANIFEST_NAME).write_text(json.dumps(document), encoding="utf-8")

    return edit
