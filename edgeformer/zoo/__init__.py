"""The zoo: small trained checkpoints that ship with the package, in the public formats."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

_HERE = Path(__file__).parent

PICTURES = tuple(_HERE / "images" / name for name in ("airplane.png", "ship.png"))
"""What the demo shows its image classifier: drawings."""


@dataclass(frozen=True)
class ZooEntry:
    """A checkpoint's folder and what it does, in a line."""

    folder: Path
    description: str


ZOO: dict[str, ZooEntry] = {
    "clinc150-mobilebert": ZooEntry(
        _HERE / "clinc150-mobilebert",
        "intent classification: 150 intents of a phone assistant, English, a small MobileBERT",
    ),
    "cifar10-tinyvit": ZooEntry(
        _HERE / "cifar10-tinyvit",
        "image classification: ten kinds of things (CIFAR-10's), a small TinyViT",
    ),
}


AUDIO_FILE, TEXT_FILE = "speech_sample.flac", "speech_sample.json"


def speech_sample() -> tuple[Path, str]:
    """The sample that ships with the package: its audio file and what is said in it."""
    folder = Path(str(files("edgeformer.zoo")))
    text: str = json.loads((folder / TEXT_FILE).read_text(encoding="utf-8"))["text"]
    return folder / AUDIO_FILE, text
