"""Writes log_mel.json and log_mel.safetensors: sounds and their spectrograms from transformers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import transformers

from tests.golden.golden_files import document, tensors

RATE = 16000
HOP = 160
BANDS = 80


def files() -> dict[str, bytes]:
    """The golden files by name."""
    cases: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    for window in (1, 30):
        extractor = transformers.WhisperFeatureExtractor(feature_size=BANDS, chunk_length=window)
        arrays["mel_filters"] = extractor.mel_filters.T.astype(np.float32)
        for name, samples in _sounds(window):
            frames = min(window * RATE // HOP, 2 * (-(-len(samples) // (2 * HOP)) + 2))
            found = extractor(samples, sampling_rate=RATE, return_tensors="np").input_features[0]
            index = len(cases)
            cases.append({"name": name, "preprocessing": _spec(window), "samples": len(samples), "frames": frames})
            if len(samples):  # no reader has to know an empty tensor
                arrays[f"{index}/samples"] = samples
            arrays[f"{index}/mel"] = found[:, :frames].astype(np.float32)
    return {
        "log_mel.json": document(f"transformers {transformers.__version__}", cases),
        "log_mel.safetensors": tensors(arrays),
    }


def _spec(window: int) -> dict[str, Any]:
    return {
        "kind": "audio",
        "sample_rate": RATE,
        "n_fft": 400,
        "hop_length": HOP,
        "n_mels": BANDS,
        "mel_filters": "mel_filters.safetensors",
        "window_seconds": window,
        "log_floor": 1e-10,
        "dynamic_range": 8.0,
    }


def _sounds(window: int) -> Iterator[tuple[str, np.ndarray]]:
    generator = np.random.default_rng(4)

    def noise(count: int, loudness: float = 0.1) -> np.ndarray:
        return (generator.integers(-32768, 32768, count) * loudness / 32768).astype(np.float32)

    yield f"nothing, {window} s", np.zeros(0, np.float32)
    yield f"one sample, {window} s", np.ones(1, np.float32)
    yield f"less than half a frame, {window} s", noise(159)
    yield f"just beyond half a frame, {window} s", noise(201, 0.9)
    yield f"silence, {window} s", np.zeros(1000, np.float32)
    time = np.arange(6000) / RATE
    chirp = 0.5 * np.sin(2 * np.pi * (200 + 4000 * time) * time) + noise(6000, 0.001)
    yield f"chirp, {window} s", np.round(chirp * 32768).astype(np.float32) / 32768
    if window == 1:
        yield "a whole window", noise(RATE, 0.02)
        yield "a window but for a few samples", noise(RATE - 150, 0.5)
