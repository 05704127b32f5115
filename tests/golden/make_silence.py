"""Writes silence.json and silence.safetensors: where this repository's runtime finds pauses and cuts long sound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeformer_runtime import __version__
from edgeformer_runtime.pipelines.speech_model import AudioBuffer, next_window
from edgeformer_runtime.preprocess.silence import PauseOptions, is_silent, quietest_cut, speech_ranges
from tests.golden.golden_files import document, tensors

RATE = 1000
"""Samples per second: enough to hear whether somebody speaks, and small."""
LONGEST = 10 * RATE
OPTIONS = (PauseOptions(), PauseOptions(0.2, 0.04), PauseOptions(3.0, 0.5), PauseOptions(0.7, 0.0))


def files() -> dict[str, bytes]:
    """The golden files by name."""
    cases: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    for name, levels, gain in _sounds():
        arrays[f"{len(cases)}/samples"] = levels
        cases.append({"name": name, "gain": gain, **_expected(samples_of(levels, gain))})
    return {
        "silence.json": document(f"edgeformer-runtime {__version__}", cases, sample_rate=RATE, longest=LONGEST),
        "silence.safetensors": tensors(arrays),
    }


def samples_of(levels: np.ndarray, gain: float) -> np.ndarray:
    """(N,) float32 from 8-bit samples, of which 128 is 0. `gain` is a power of two, so that all products are exact."""
    return ((levels.astype(np.float32) - 128) / 128 * np.float32(gain)).astype(np.float32)


def _expected(samples: np.ndarray) -> dict[str, Any]:
    count = len(samples)
    pauses = [
        {
            "min_pause_seconds": options.min_pause_seconds,
            "margin_seconds": options.margin_seconds,
            "ranges": [list(pair) for pair in speech_ranges(samples, RATE, options)],
        }
        for options in OPTIONS
    ]
    places = [(0, count), (count // 2, count), (count // 3, count // 2), (count, count)]
    cuts = [[first, last, quietest_cut(samples, first, last, RATE)] for first, last in places]
    return {"silent": is_silent(samples, RATE), "pauses": pauses, "cuts": cuts, "windows": list(_windows(samples))}


def _windows(samples: np.ndarray) -> Iterator[list[Any]]:
    """[length, whether it is heard] of all windows in turn."""
    while len(samples):
        buffer = AudioBuffer()
        buffer.append(samples[: LONGEST + 1])
        window = next_window(buffer, LONGEST, RATE)
        yield [window.end, window.has_speech]
        samples = samples[window.end :]


def _sounds() -> Iterator[tuple[str, np.ndarray, float]]:
    for name, levels in _recordings():
        yield name, levels, 1.0
        if name == "words":
            yield "faint words", levels, 2.0**-10
            yield "words that are lost in 16 bits", levels, 2.0**-15
        elif name == "steady noise":
            yield "faint noise", levels, 2.0**-10


def _recordings() -> Iterator[tuple[str, np.ndarray]]:
    generator = np.random.default_rng(6)

    def noise(seconds: float, loudness: int) -> np.ndarray:
        return generator.integers(128 - loudness, 129 + loudness, round(seconds * RATE), dtype=np.uint8)

    def words(*lengths: float, pause: float = 0.15) -> list[np.ndarray]:
        return [part for length in lengths for part in (noise(length, 60), noise(pause, 1))]

    yield "one sample", noise(0.001, 60)
    yield "nothing recorded", np.full(2500, 128, np.uint8)
    yield "steady noise", noise(3.0, 20)
    yield "a word", np.concatenate([noise(0.4, 1), noise(0.5, 60), noise(0.9, 1)])
    yield "words", np.concatenate(words(0.3, 0.5, 0.2, 0.7, 0.4))
    yield "a cut off frame", np.concatenate([*words(0.3, 0.5), noise(0.013, 60)])
    yield "a long pause", np.concatenate([*words(0.5, 0.5), noise(4.0, 1), *words(0.5, 0.3)])
    yield "long silence first", np.concatenate([noise(4.0, 1), *words(0.5, 0.3), noise(3.5, 1)])
    yield (
        "a long talk",
        np.concatenate([*words(*[0.6] * 12), *words(*[0.5] * 14, pause=0.4), noise(5.0, 1), *words(0.9, 0.9)]),
    )
    yield "no pause at all", np.concatenate([noise(0.5, 1), noise(14.0, 60)])
    yield "an offset", np.concatenate([noise(1.0, 1), noise(0.5, 40), noise(1.0, 1)]) + np.uint8(50)
