"""CLINC150 (Larson et al. 2019): 150 intents of a phone assistant, in-scope sentences only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeformer_runtime.errors import InputError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Sentences and, for each, the index of its intent."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Clinc150:
    """The three splits; `intents` is sorted, a label is an index into it."""

    intents: tuple[str, ...]
    train: Split
    val: Split
    test: Split


def load_clinc150(path: Path) -> Clinc150:
    """Read a data_*.json of the public data set.

    Raises:
        InputError: the file is missing or is not CLINC150.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        rows = {name: [(str(text), str(intent)) for text, intent in raw[name]] for name in SPLITS}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is not a CLINC150 data file: expected JSON with lists {', '.join(SPLITS)}") from None
    intents = tuple(sorted({intent for _, intent in rows["train"]}))
    return Clinc150(intents, *(_split(rows[name], intents) for name in SPLITS))


def _split(rows: Sequence[tuple[str, str]], intents: Sequence[str]) -> Split:
    index = {intent: number for number, intent in enumerate(intents)}
    return Split(tuple(text for text, _ in rows), tuple(index[intent] for _, intent in rows))
