"""Writes recording.json and recording.safetensors: recordings, and what transformers makes of them for a classifier."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import transformers

from tests.golden.golden_files import document, tensors

RATE = 16000
BANDS, FRAMES = 40, 64


def files() -> dict[str, bytes]:
    """The golden files by name."""
    cases: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    for normalised in (True, False):
        bank: Any = transformers.ASTFeatureExtractor(num_mel_bins=BANDS, max_length=FRAMES, do_normalize=normalised)
        plain: Any = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalised)
        for name, samples in _sounds():
            for kind, extractor, spec in (
                ("energies", bank, _bank(bank if normalised else None)),
                ("samples", plain, {"normalize": normalised, "filter_bank": None}),
            ):
                found = extractor(samples, sampling_rate=RATE, return_tensors="np")["input_values"][0]
                index = len(cases)
                preprocessing = {"kind": "recording", "sample_rate": RATE, "shortest_samples": 400, **spec}
                title = f"{name}, {kind}{'' if normalised else ' as they are'}"
                cases.append({"name": title, "preprocessing": preprocessing, "samples": len(samples)})
                arrays[f"{index}/samples"] = samples
                arrays[f"{index}/input"] = found.astype(np.float32)
    return {
        "recording.json": document(f"transformers {transformers.__version__}", cases),
        "recording.safetensors": tensors(arrays),
    }


def _bank(scaled: Any) -> dict[str, Any]:
    """As an ASTFeatureExtractor says it, or without its mean and deviation."""
    mean, std = (0.0, 1.0) if scaled is None else (scaled.mean, 2 * scaled.std)
    sizes = {"frames": FRAMES, "n_mels": BANDS, "frame_samples": 400, "hop_samples": 160, "n_fft": 512}
    rest = {"low_hz": 20.0, "high_hz": RATE / 2, "preemphasis": 0.97, "log_floor": 2.0**-23}
    return {"normalize": False, "filter_bank": {**sizes, **rest, "mean": mean, "std": std}}


def _sounds() -> Iterator[tuple[str, np.ndarray]]:
    generator = np.random.default_rng(5)

    def noise(count: int, loudness: float) -> np.ndarray:
        return (generator.integers(-32768, 32768, count) * loudness / 32768).astype(np.float32)

    yield "one frame", noise(400, 0.1)
    yield "silence", np.zeros(1000, np.float32)
    yield "quiet noise beside zero", noise(3000, 1e-4) + np.float32(0.25)
    time = np.arange(FRAMES * 160 + 1000) / RATE
    chirp = 0.5 * np.sin(2 * np.pi * (100 + 5000 * time) * time) + noise(len(time), 0.001)
    yield "a chirp of more frames than there are", np.round(chirp * 32768).astype(np.float32) / 32768
