"""Raw inputs that vectors are recorded from: for each kind of input a few that touch every program; deterministic."""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

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
    """PNG files of smooth colours with noise on them, in each of `IMAGE_SIZES`."""
    generator = np.random.default_rng(0)
    for width, height in IMAGE_SIZES:
        x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
        waves = np.stack([np.sin(7 * x + 3 * y), np.cos(5 * y), np.sin(9 * x * y)], axis=-1)  # (height, width, 3)
        pixels = 127 + 90 * waves + generator.normal(0, 12, waves.shape)
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "PNG")
        yield file.getvalue()
