"""The zoo: small trained checkpoints that ship with the package, in the public Hugging Face format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ZooEntry:
    """A checkpoint's folder and what it does, in a line."""

    folder: Path
    description: str


ZOO: dict[str, ZooEntry] = {
    "clinc150-mobilebert": ZooEntry(
        Path(__file__).parent / "clinc150-mobilebert",
        "intent classification: 150 intents of a phone assistant, English, a small MobileBERT",
    ),
}
