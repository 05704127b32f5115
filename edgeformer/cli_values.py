"""Values of options that are several, with commas between them."""

from __future__ import annotations

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
    return None if text is None else tuple(dict.fromkeys(text.split(",")))
