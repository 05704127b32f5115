"""A speech bundle of a few kilobytes whose programs give noise of the right shapes."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
from decoding.scripted import TOKENS, byte_tokenizer, make_spec
from tiny_bundle import manifest as text_manifest
from tiny_bundle import seal

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import Manifest, ProgramSpec
from edgeformer_runtime.bundle.specs import AudioBucket, AudioPreprocessing, bucket_layout
from edgeformer_runtime.bundle.vectors import Tolerances, write_vectors
from edgeformer_runtime.engines import Tensor
from edgeformer_runtime.engines.checked import CheckedEngine
from edgeformer_runtime.errors import EngineError
from edgeformer_runtime.pipelines.speech import Transcriber
from edgeformer_runtime.preprocess.log_mel import mel_filter_bank, write_mel_filters
from edgeformer_runtime.verify.decoder_replay import record

RATE = 4000
MOST_VALUES = 1 << 20
SOUND = AudioPreprocessing(RATE, 64, 40, 8, "mel_filters.safetensors", 1, 1e-10, 8.0)
POSITIONS = RATE // SOUND.samples_per_position
BUCKETS = tuple(
    AudioBucket(positions, 0, 12, f"encode_{positions}", f"prefill_{positions}", f"decode_{positions}")
    for positions in (POSITIONS // 2, POSITIONS)
)
HEAD = replace(make_spec(), buckets=BUCKETS, vocab_size=TOKENS.first_timestamp + POSITIONS + 1)


class NoiseEngine(CheckedEngine):
    """Gives outputs that depend on nothing but the program and the output's name."""

    name = "noise"
    executed_by = "noise"

    def _execute(self, program: ProgramSpec, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002
        if sum(math.prod(spec.shape) for spec in program.outputs) > MOST_VALUES:
            raise EngineError("more outputs than any tiny model has")
        return {
            spec.name: np.random.default_rng(zlib.crc32(f"{program.name}/{spec.name}".encode()))
            .standard_normal(spec.shape)
            .astype(spec.dtype)
            for spec in program.outputs
        }

    def _release(self) -> None:
        pass


def manifest() -> Manifest:
    """The tiny speech bundle's manifest, before its files are listed."""
    layouts = [layout for bucket in BUCKETS for layout in bucket_layout(HEAD, bucket, SOUND.n_mels)]
    return replace(
        text_manifest(),
        name="tiny_speech",
        family="whisper",
        task="speech-recognition",
        programs=tuple(
            ProgramSpec(layout.name, "model.bin", "main", tuple(layout.inputs), tuple(layout.outputs))
            for layout in layouts
        ),
        preprocessing=SOUND,
        postprocessing=HEAD,
    )


def make_speech_without_model(folder: Path) -> Path:
    """A valid bundle whose model file is no model."""
    folder.mkdir(parents=True)
    (folder / "vectors").mkdir()
    (folder / "model.bin").write_bytes(bytes(range(256)))
    (folder / "tokenizer.json").write_text(byte_tokenizer(), encoding="utf-8")
    filters = mel_filter_bank(SOUND.n_mels, SOUND.n_fft, SOUND.sample_rate)
    (folder / SOUND.mel_filters).write_bytes(write_mel_filters(filters))
    tone = np.sin(np.arange(RATE) * 0.3).astype(np.float32) / 4
    soundfile.write(folder / "vectors" / "audio.wav", tone, RATE, subtype="PCM_16")
    seal(folder, manifest())
    with Bundle.open(folder) as bundle:
        transcriber = Transcriber(bundle, NoiseEngine(bundle.manifest.programs))
        counts = [bucket.positions * SOUND.samples_per_position for bucket in BUCKETS]
        cases = [
            record(transcriber, {"audio": "vectors/audio.wav", "samples": count}, bucket)
            for count, bucket in zip(counts, BUCKETS, strict=True)
        ]
    write_vectors(folder, cases, Tolerances(output=1e-4, score=1e-4), manifest())
    seal(folder, manifest())
    return folder
