"""Peers of speech models: faster-whisper, whisper.cpp, a plain export in ONNX Runtime, and transformers in torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeformer.bench.whisper_formats import PeerModels, size_bytes
from edgeformer.checkpoints.checkpoint import Checkpoint
from edgeformer_runtime.bench.contender import Contender, Run, bundle_contender
from edgeformer_runtime.bench.workload import workload
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.specs import AudioPreprocessing
from edgeformer_runtime.delivery import cache_folder
from edgeformer_runtime.errors import EngineError
from edgeformer_runtime.preprocess.audio import open_audio
from edgeformer_runtime.registry import load_attribute

FASTER_WHISPER_PRECISIONS = ("int8", "float32")
WHISPER_CPP_PRECISIONS = ("fp16", "q8_0")
ONNX_PRECISIONS = ("fp32", "dynamic-int8")


def speech_contenders(
    names: Sequence[str], bundle: Bundle, checkpoint: Checkpoint, folder: Path, program: str | None, batch: int
) -> list[Contender]:
    """See `peers.peer_contenders`. Conversions are kept in the user's cache."""
    chosen = workload(bundle, program)
    sound = folder / "sound.npy"
    np.save(sound, _samples(bundle, chosen.case.raw))
    models = PeerModels(checkpoint, cache_folder() / "bench")
    found: list[Contender] = []

    def add(name: str, precision: str, engine: str, arguments: dict[str, str], model: Path) -> None:
        settings = {"engine": engine, "arguments": arguments, "sound": str(sound), "batch": batch}
        factory = "edgeformer.bench.speech_peers:speech_run"
        found.append(Contender(name, name, precision, factory, settings, size_bytes(model), chosen.program, batch))

    if "faster-whisper" in names:
        for precision in FASTER_WHISPER_PRECISIONS:
            model = models.ctranslate2(precision)
            arguments = {"folder": str(model), "precision": precision}
            add("faster-whisper", precision, "faster_whisper", arguments, model)
    if "whisper.cpp" in names:
        for precision in WHISPER_CPP_PRECISIONS:
            model = models.ggml(precision)
            add("whisper.cpp", precision, "whisper_cpp", {"file": str(model)}, model)
    if "onnxruntime" in names:
        found += _plain_onnx(checkpoint, folder, batch)
    if "torch" in names:
        model = models.public()
        add("torch", "fp32", "transformers", {"folder": str(model)}, model)
    return found


def speech_run(engine: str, arguments: dict[str, str], sound: str, batch: int, threads: int) -> Run:
    """One of `whisper_engines` on one sound, from samples to text."""
    transcribe = load_attribute(f"edgeformer.bench.whisper_engines:{engine}")(**arguments, threads=threads)
    samples = np.load(sound)

    def run() -> object:
        return [transcribe(samples, None) for _ in range(batch)]

    return run


def _plain_onnx(checkpoint: Checkpoint, folder: Path, batch: int) -> list[Contender]:
    """What a plain export gives: always the whole window of 30 s, no silence that stands in for a part of it."""
    from edgeformer.convert.convert import ConvertOptions, convert

    options = ConvertOptions(
        source=str(checkpoint.folder),
        out=folder / "plain",
        targets=("onnx",),
        precisions=ONNX_PRECISIONS,
        window="full",
    )
    found = []
    for row in convert(options):
        if not row.ok:
            raise EngineError(f"the peer onnxruntime at {row.precision}: {'; '.join(row.problems)}")
        plain = bundle_contender(row.path, batch=batch)
        found.append(
            Contender(
                name="onnxruntime, 30 s",
                engine="onnxruntime",
                precision=row.precision,
                factory=plain.factory,
                arguments=plain.arguments,
                size_bytes=plain.size_bytes,
                program=plain.program,
                batch=batch,
            )
        )
    return found


def _samples(bundle: Bundle, raw: dict[str, Any]) -> np.ndarray:
    """(N,) float32 of a recorded sound, of which a case hears the first `samples`."""
    spec = bundle.manifest.preprocessing
    assert isinstance(spec, AudioPreprocessing)
    with open_audio(bundle.path(raw["audio"]), spec.sample_rate) as reader:
        return reader.read(raw["samples"])
