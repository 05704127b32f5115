"""Writes recording.json and recording.safetensors: recordings, and what transformers makes of them for a classifier."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import transformers

from tests.golden.golden_files import document, tensors

RATE = 16000
BANDS, FRAMES = 20, 6


def files() -> dict[str, bytes]:
    """The golden files by name."""
    bank: Any = transformers.ASTFeatureExtractor(num_mel_bins=BANDS, max_length=FRAMES)
    plain_bank: Any = transformers.ASTFeatureExtractor(num_mel_bins=BANDS, max_length=FRAMES, do_normalize=False)
    samples_of: Any = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    kinds = (
        ("samples", samples_of, {"normalize": True, "filter_bank": None}),
        ("energies", bank, _bank(bank.mean, 2 * bank.std)),
        ("energies as they are", plain_bank, _bank(0.0, 1.0)),
    )
    cases: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    for number, (name, samples) in enumerate(_sounds()):
        arrays[f"samples/{number}"] = samples
        for kind, extractor, spec in kinds if len(samples) < 1000 else kinds[1:]:
            preprocessing = {"kind": "recording", "sample_rate": RATE, "shortest_samples": 400, **spec}
            found = extractor(samples, sampling_rate=RATE, return_tensors="np")["input_values"][0]
            arrays[f"{len(cases)}/input"] = found.astype(np.float32)
            cases.append({"name": f"{name}, {kind}", "preprocessing": preprocessing, "samples": f"samples/{number}"})
    return {
        "recording.json": document(f"transformers {transformers.__version__}", cases),
        "recording.safetensors": tensors(arrays),
    }


def _bank(mean: float, std: float) -> dict[str, Any]:
    sizes = {"frames": FRAMES, "n_mels": BANDS, "frame_samples": 400, "hop_samples": 160, "n_fft": 512}
    rest = {"low_hz": 20.0, "high_hz": RATE / 2, "preemphasis": 0.97, "log_floor": 2.0**-23}
    return {"normalize": False, "filter_bank": {**sizes, **rest, "mean": mean, "std": std}}


def _sounds() -> Iterator[tuple[str, np.ndarray]]:
    generator = np.random.default_rng(5)

    def noise(count: int, loudness: float) -> np.ndarray:
        return (generator.integers(-32768, 32768, count) * loudness / 32768).astype(np.float32)

    yield "one frame", noise(400, 0.1)
    yield "silence", np.zeros(500, np.float32)
    yield "quiet noise beside zero", noise(600, 1e-4) + np.float32(0.25)
    time = np.arange(FRAMES * 160 + 400) / RATE
    chirp = 0.5 * np.sin(2 * np.pi * (100 + 40000 * time) * time) + noise(len(time), 0.001)
    yield "a chirp of more frames than there are", np.round(chirp * 32768).astype(np.float32) / 32768
