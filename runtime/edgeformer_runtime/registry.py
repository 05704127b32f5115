"""A table of things by name: our own from literal names, others' from the entry points of installed packages."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from importlib import import_module
from typing import Any, TypeVar, cast

from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError

Thing = TypeVar("Thing")


class Registry(Mapping[str, Thing]):
    """Names to what "module:attribute" names, imported when it is looked up: to look for a name imports nothing.

    A package of another author adds its own by an entry point of the registry's group:

        [project.entry-points."edgeformer.targets"]
        web = "my_package.web_target:TARGET"

    Our own names come first, and nobody else's replaces one.
    """

    def __init__(self, entries: Mapping[str, str], group: str | None = None) -> None:
        """`entries`: "module:attribute" by name; `group`: of entry points, None: there are no others."""
        self.entries = dict(entries)
        self._group = group

    def __getitem__(self, name: str) -> Thing:
        entry = self.entries.get(name) or self._others().get(name)
        if entry is None:
            raise KeyError(name)
        return cast(Thing, load_attribute(entry))

    def __contains__(self, name: object) -> bool:
        return name in self.entries or name in self._others()

    def __iter__(self) -> Iterator[str]:
        yield from self.entries
        yield from (name for name in self._others() if name not in self.entries)

    def __len__(self) -> int:
        return len({*self.entries, *self._others()})

    def _others(self) -> dict[str, str]:
        if self._group is None:
            return {}
        from importlib.metadata import entry_points  # 10 ms, which a name of our own does not need

        return {each.name: each.value for each in entry_points(group=self._group)}


# Entries of literal tables: "module:attribute", imported when they are asked for.


def load_attribute(entry: str) -> Any:
    """What a "module:attribute" names."""
    module, _, attribute = entry.partition(":")
    return getattr(import_module(module), attribute)


def load_optional(entry: str, what: str, extra: str) -> Any:
    """What a "module:attribute" of an extra's package names.

    Args:
        entry: as above.
        what: needs it, for the message.
        extra: the runtime's extra that brings it.

    Raises:
        InputError: it is not installed.
    """
    try:
        return load_attribute(entry)
    except ImportError as error:
        raise InputError(needs(what, error, extra)) from error


def needs(what: str, error: ImportError, extra: str) -> str:
    """One line that says which package is missing and what brings it."""
    return f"{what} needs the package {error.name}: pip install 'edgeformer-runtime[{extra}]'"


# Names that are none.


_ALIKE = 0.65
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
    from difflib import get_close_matches  # for messages alone

    close = get_close_matches(plain, [*spelled, *aliases], n=1, cutoff=_ALIKE)
    if not close:
        return ()
    return (spelled[close[0]],) if close[0] in spelled else tuple(c for c in aliases[close[0]] if c in choices)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
