"""Values of options that are several, with commas between them."""

from __future__ import annotations

from collections.abc import Sequence
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
