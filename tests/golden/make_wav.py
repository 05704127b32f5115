"""Writes wav.json and wav.safetensors: wav files of all kinds, and what this repository's runtime reads of them.

Resampling is soxr's there. Its transition band, from .913 of the lower rate's half, is shaped otherwise than a Kaiser
window's; so the sounds have nothing there, and begin and end softly.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import soundfile

from edgeformer_runtime import __version__
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.audio import open_audio
from tests.golden.golden_files import document, tensors

RATE = 16000
EXACT, RESAMPLED = 1e-6, 5e-4
CODINGS = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")


def files() -> dict[str, bytes]:
    """The golden files by name."""
    cases: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    for name, file, rate in _recordings():
        index = len(cases)
        arrays[f"{index}/file"] = np.frombuffer(file, np.uint8)
        case: dict[str, Any] = {"name": name}
        try:
            with open_audio(file, RATE) as reader:
                samples = reader.read(1 << 20)
            case["tolerance"] = EXACT if rate == RATE else RESAMPLED
            if len(samples):  # no reader has to know an empty tensor
                arrays[f"{index}/samples"] = samples
        except InputError as error:
            case["error"] = next(words for words in ("cut short", "no samples", "holds", "PCM") if words in str(error))
        cases.append(case)
    return {
        "wav.json": document(f"edgeformer-runtime {__version__}", cases, sample_rate=RATE),
        "wav.safetensors": tensors(arrays),
    }


def _recordings() -> Iterator[tuple[str, bytes, int]]:
    for coding in CODINGS:
        yield coding, _wav(_sound(RATE, 300), RATE, coding), RATE
    yield "extensible, 24 bits, two channels", _wav(_sound(RATE, 300, 2), RATE, "PCM_24", "WAVEX"), RATE
    yield "extensible, float, six channels", _wav(_sound(RATE, 100, 6), RATE, "FLOAT", "WAVEX"), RATE
    antiphase = _sound(RATE, 300)
    yield "channels that cancel out", _wav(np.stack([antiphase, -antiphase], axis=1), RATE, "PCM_16"), RATE
    for rate in (8000, 11025, 12347, 22050, 32000, 44100, 48000, 96000):
        yield f"{rate} Hz", _wav(_sound(rate, rate // 29), rate, "PCM_16"), rate
    yield "no samples", _wav(np.zeros(0), RATE, "PCM_16"), RATE
    whole = _wav(_sound(RATE, 300), RATE, "PCM_16")
    yield "a pipe's, of unknown size", whole[:40] + b"\xff\xff\xff\xff" + whole[44:], RATE
    yield "a chunk of odd size in front", whole[:36] + b"LIST\x03\0\0\0abc\0" + whole[36:], RATE
    yield "cut short", whole[:-100], RATE
    yield "NaN", _wav(np.array([0.0, np.nan]), RATE, "FLOAT"), RATE
    yield "mu-law", _wav(_sound(RATE, 50), RATE, "ULAW"), RATE


def _wav(samples: np.ndarray, rate: int, coding: str, container: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=coding)
    wav = file.getvalue()
    peak = wav.find(b"PEAK")  # of floats: a chunk that holds the time of writing
    return wav if peak < 0 else wav[: peak + 12] + bytes(4) + wav[peak + 16 :]


def _sound(rate: int, frames: int, channels: int = 1) -> np.ndarray:
    """(frames,) or (frames, channels): a few tones below .85 of the lower rate's half, that come and go softly."""
    seconds = np.arange(frames) / rate
    top = 0.85 * min(rate, RATE) / 2
    window = np.hanning(frames) ** 2
    tones = [
        sum(
            np.sin(2 * np.pi * top * part * seconds * (1 - 0.1 * channel) + part) / 4
            for part in (0.07, 0.31, 0.64, 1.0)
        )
        for channel in range(channels)
    ]
    sound = np.stack([window * tone for tone in tones], axis=1)
    return sound[:, 0] if channels == 1 else sound
