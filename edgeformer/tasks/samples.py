"""Raw inputs that vectors are recorded from: for each kind of input a few that touch every program; deterministic."""

from __future__ import annotations

import io
import itertools
import random
import wave
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgeformer_runtime.preprocess.audio import open_audio
from edgeformer_runtime.preprocess.silence import quietest_cut

# What keyboards and other apps send: plain sentences, a pair, nothing, other scripts, emoji, control characters.
TEXTS: tuple[dict[str, Any], ...] = (
    {"text": "turn the lights off in the living room"},
    {"text": "What's the weather like in Zürich tomorrow?", "pair": "It will rain until noon."},
    {"text": ""},
    {"text": "naïve café \u2014 \u201cquoted\u201d, 3.14 & 50 % off! \U0001f600\U0001f44d\U0001f3fd"},
    {"text": "שלום مرحبا 你好 สวัสดี"},
    {"text": "tab\there\nnew line\u0000nul \u200bzero width"},
)
FILLER = "please remind me to call the bank about my savings account before the meeting on friday afternoon"

IMAGE_SIZES = ((320, 240), (200, 300), (64, 64))
"""Width and height: landscape, portrait, and smaller than most models want."""

SPEECH_FILE = Path(__file__).parents[1] / "zoo" / "speech_sample.flac"
"""Half a minute of synthetic English speech that `tools/zoo/make_speech_sample.py` made."""
FIRST_SENTENCE_S = 3.55
"""Of its first sentence, with the pause behind it."""


def texts(lengths: Sequence[int]) -> tuple[dict[str, Any], ...]:
    """`TEXTS`, and for each bucket a text that is too long for the bucket below and fits."""
    words = itertools.cycle(FILLER.split())
    # A word is one token or a little more, so three quarters of the bucket in words stay inside it.
    return TEXTS + tuple({"text": " ".join(itertools.islice(words, length * 3 // 4))} for length in lengths)


def token_ids(lengths: Sequence[int], vocab_size: int) -> Iterator[dict[str, Any]]:
    """For each bucket, sequences that fill it by a little over a half, by three quarters and wholly."""
    generator = random.Random(0)
    for length in lengths:
        for count in (length // 2 + 1, length * 3 // 4, length):
            yield {"token_ids": [generator.randrange(vocab_size) for _ in range(count)]}


def images() -> Iterator[bytes]:
    """PNG files of smooth colours, a quarter of them with noise on it, in each of `IMAGE_SIZES`."""
    generator = np.random.default_rng(0)
    for width, height in IMAGE_SIZES:
        x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
        waves = np.stack([np.sin(7 * x + 3 * y), np.cos(5 * y), np.sin(9 * x * y)], axis=-1)  # (height, width, 3)
        pixels = 127 + 90 * waves
        # Noise shows how a resize rounds, and is what makes a PNG large.
        pixels[height // 4 : height // 2, : width // 2] += generator.normal(0, 12, (height // 4, width // 2, 3))
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "PNG")
        yield file.getvalue()


def varied_images(count: int) -> Iterator[bytes]:
    """PNG files of 240 by 240 pixels, each another: a shading, shapes of all colours and a little noise."""
    generator = np.random.default_rng(1)
    side = 240
    x, y = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side))
    for _ in range(count):
        slopes = generator.uniform(-90, 90, (2, 3))
        pixels = generator.uniform(60, 200, 3) + x[..., None] * slopes[0] + y[..., None] * slopes[1]  # (side, side, 3)
        for _ in range(int(generator.integers(1, 6))):
            (left, top), (width, height) = generator.uniform(0, 0.8, 2), generator.uniform(0.1, 0.5, 2)
            inside = (np.abs(x - left - width / 2) < width / 2) & (np.abs(y - top - height / 2) < height / 2)
            if generator.random() < 0.5:
                inside = ((x - left) / width) ** 2 + ((y - top) / height) ** 2 < 1
            pixels[inside] = generator.uniform(0, 255, 3)
        pixels += generator.normal(0, generator.uniform(0, 20), pixels.shape)
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "PNG")
        yield file.getvalue()


def speech(capacities: Sequence[int], sample_rate: int, knows_english: bool = True) -> tuple[bytes, tuple[int, ...]]:
    """A sound, and for each bucket how many samples from its begin fit this bucket and not the one below.

    Each ends in a pause if there is one: a word cut in two has no right answer that a small error would not change.
    Nor has half a minute of English for a model that is to write another language: it hears a sentence again and again.

    Args:
        capacities: the most samples of each bucket, rising.
        sample_rate: of the model, in Hz.
        knows_english: whether English is among the languages that the model writes.

    Returns:
        A WAV file of one channel with 16 bits, and a count for each bucket.
    """
    longest = capacities[-1]
    with open_audio(SPEECH_FILE, sample_rate) as reader:
        spoken = reader.read(longest)
    if not knows_english:
        spoken = np.resize(spoken[: round(FIRST_SENTENCE_S * sample_rate)], longest)
    samples = np.zeros(longest, np.float32)
    samples[: len(spoken)] = spoken
    below = (0, *capacities)
    counts = tuple(
        quietest_cut(samples, max(start + 1, end // 2), end, sample_rate)
        for start, end in zip(below, capacities, strict=False)
    )
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(sample_rate)
        wav.writeframes((samples * 32767).round().astype("<i2").tobytes())
    return file.getvalue(), counts
