"""Names that a user chooses among: a wrong one is answered with the one that was probably meant, and with all."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches

from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError

_ALIKE = 0.6
_SHOWN_CHARACTERS = 60


def check_choice(
    value: str, choices: Collection[str], what: str, aliases: Mapping[str, tuple[str, ...]] | None = None
) -> None:
    """Refuse a name that is none of the choices.

    Args:
        value: as the user wrote it.
        choices: the valid names, in the order in which a message lists them.
        what: that they are names of, for messages: "precision".
        aliases: what the field calls some of them, in small letters and digits alone: "tflite" for ("litert",).

    Raises:
        InputError: it is none of them; the message says which one was probably meant.
    """
    if value not in choices:
        found, guess = shorten(value, _SHOWN_CHARACTERS), did_you_mean(value, choices, aliases)
        raise InputError(f"unknown {what} {found}: {guess}expected one of {', '.join(choices)}")


def did_you_mean(value: str, choices: Collection[str], aliases: Mapping[str, tuple[str, ...]] | None = None) -> str:
    """A question for the middle of a message, as "did you mean litert? "; empty where nothing is alike."""
    meant = _likely(value, choices, aliases or {})
    return f"did you mean {' or '.join(meant)}? " if meant else ""


def _likely(value: str, choices: Collection[str], aliases: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The choices that were probably meant: by their spelling without case and signs, by an alias, or by likeness."""
    plain = _plain(value)
    spelled = {_plain(choice): choice for choice in choices}
    if plain in spelled:
        return (spelled[plain],)
    named = tuple(choice for choice in aliases.get(plain, ()) if choice in choices)
    if named:
        return named
    close = get_close_matches(plain, [*spelled, *aliases], n=1, cutoff=_ALIKE)
    if not close:
        return ()
    return (spelled[close[0]],) if close[0] in spelled else tuple(c for c in aliases[close[0]] if c in choices)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
