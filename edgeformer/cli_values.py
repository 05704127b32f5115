"""Values of options: several with commas between them, and paths that are looked at before torch is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from edgeformer_runtime.errors import InputError

Number = TypeVar("Number", int, float)


def numbers(text: str, kind: type[Number], option: str, example: str) -> tuple[Number, ...]:
    """Rising numbers from text with commas."""
    try:
        return tuple(sorted({kind(number) for number in text.split(",")}))
    except ValueError:
        raise InputError(f"expected {option} as numbers with commas, like {example}, found {text!r}") from None


def names(text: str | None) -> tuple[str, ...] | None:
    """Names from text with commas."""
    return None if text is None else several([text])


def several(texts: Sequence[str]) -> tuple[str, ...]:
    """Names from an option that may be repeated and may hold several with commas: each once, in their order."""
    return tuple(dict.fromkeys(name.strip() for text in texts for name in text.split(",")))


def check_exists(path: Path, what: str) -> None:
    """Refuse a place where there is nothing, before what reads it imports torch."""
    if not path.exists():
        raise InputError(f"no {what} at {path}: expected a {what}'s path")


def check_data(data: str | None) -> None:
    """Refuse labelled data that is not there."""
    from edgeformer.data.labelled import locate

    if data is not None:
        locate(data)


def check_files(files: Mapping[str, Path | None]) -> None:
    """Refuse files that are not there, by what names them."""
    for what, file in files.items():
        if file is not None and not file.exists():
            raise InputError(f"{what}: no file at {file}")
