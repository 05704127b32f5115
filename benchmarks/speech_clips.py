"""The recordings of the speech benchmark, and what is said in them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from edgeformer.zoo import speech_sample

_MARGIN_SECONDS = 0.2


@dataclass(frozen=True)
class Audio:
    """A file, or its part from `start` to `end` in seconds (None: to the end), and the words in it."""

    file: Path
    text: str
    start: float = 0.0
    end: float | None = None


def read_manifest(manifest: Path) -> list[Audio]:
    """Of a JSON-lines file, each line's `file`, relative to it, and `text`."""
    lines = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [Audio(manifest.parent / line["file"], line["text"]) for line in lines]


def sample_recordings() -> list[Audio]:
    """The sentences of the sample that ships with the package."""
    file, _ = speech_sample()
    sentences = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))["sentences"]
    return [
        Audio(file, each["text"], max(0.0, each["start"] - _MARGIN_SECONDS), each["end"] + _MARGIN_SECONDS)
        for each in sentences
    ]
