"""Cuts a text that is far longer than a model's input before all of it is tokenized, without changing a token."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.long_words import LongWords
from edgeformer_runtime.preprocess.tokenizer_file import steps

FIRST_CUT = 8
"""Characters per position of the model that are tried first: words of English have five to a token."""

MAX_UNCUT_CHARACTERS = 200_000
"""Of a text, or of the part of one, in which no place to cut is known: a tokenizer takes up to a second for it."""

_GROWTH = 4
_MARKS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
_CHINESE = range(0x4E00, 0xA000)
_REWRITING = {"ByteLevel", "Nmt", "Prepend", "Replace", "Strip"}
"""Normalizers that may take a space away or that see where a text begins and ends."""


class TextCut:
    """Where texts may be cut for one tokenizer. Calls from several threads are safe: nothing changes after init."""

    def __init__(self, settings: Mapping[str, Any], longest: int, count: Callable[[str], int]) -> None:
        """Read from a tokenizer's settings whether there are places where a text may be cut.

        Args:
            settings: a tokenizers file's JSON, already checked.
            longest: the most tokens that a model takes.
            count: how many tokens a text has without special ones, at least whether it has more than `longest`.
        """
        self._places = _places(settings)
        self._whole_words = _is_bert(settings)
        self._long_words = LongWords(settings)
        self._longest = longest
        self._count = count

    def single(self, text: str) -> str:
        """A text with the same tokens: a beginning with more than the model takes, or all where there are fewer.

        Raises:
            InputError: it is long, and nowhere is it known that it could be cut.
        """
        return self._beginning(self._long_words.shortened(text), least=0)

    def pair(self, text: str, other: str) -> tuple[str, str]:
        """Beginnings of two texts that are truncated, longest first, to the same tokens as the two."""
        text, other = self._long_words.shortened(text), self._long_words.shortened(other)
        # Of two texts that are both too long the longer gets the odd position: the beginnings must keep that order.
        first, second = self.single(text), self.single(other)
        if len(first) == len(text):
            return text, second if len(second) == len(other) else self._beginning(other, self._count(text) + 1)
        if len(second) == len(other):
            return self._beginning(text, self._count(other) + 1), other
        if self._all(text) <= self._all(other):
            return first, self._beginning(other, self._count(first))
        return self._beginning(text, self._count(second) + 1), second

    def _beginning(self, text: str, least: int) -> str:
        least = max(least, self._longest + 1)
        size = FIRST_CUT * least
        while self._places is not None and size < len(text):
            place = self._places.search(text, size)
            if place is None:
                break
            if place.start() - size > MAX_UNCUT_CHARACTERS:
                raise _uncut(text)
            beginning = text[: place.start()]
            if self._count(beginning) >= least:
                return beginning
            size = _GROWTH * place.start()
        if len(text) > MAX_UNCUT_CHARACTERS and self._longest_piece(text) > MAX_UNCUT_CHARACTERS:
            raise _uncut(text)
        return text

    def _longest_piece(self, text: str) -> int:
        """The most characters between two places to cut, and all where none are known."""
        if self._places is None:
            return len(text)
        begins = [0, *(place.start() for place in self._places.finditer(text)), len(text)]
        return max(end - begin for begin, end in pairwise(begins))

    def _all(self, text: str) -> int:
        """The tokens of the whole text, counted part by part where a part begins as the text does."""
        if not self._whole_words:
            return self._count(text)
        total = position = 0
        while position < len(text):
            assert self._places is not None
            place = self._places.search(text, position + 1 + FIRST_CUT * self._longest)
            end = len(text) if place is None else place.start()
            total += self._count(text[position:end])
            position = end
        return total


def _uncut(text: str) -> InputError:
    return InputError(
        f"the text has {len(text)} characters, and too many without a place where it could be cut: expected at most "
        f"{MAX_UNCUT_CHARACTERS} between two, such as spaces between letters"
    )


def _places(settings: Mapping[str, Any]) -> re.Pattern[str] | None:
    """What a text may be cut before, None where nothing is known to be safe.

    BERT begins a word at each space, mark and Chinese character, the others at a space between letters. An added token
    that could reach over the cut, or that looks at what follows it, forbids it.
    """
    added = settings.get("added_tokens") or []
    inside = {character for token in added for character in token["content"]}
    if any(token.get("single_word") for token in added) or any(character.isspace() for character in inside):
        return None
    normalizers = list(steps("normalizer", settings.get("normalizer")))
    if any(step["type"] in _REWRITING for step in normalizers):
        return None
    if not _is_bert(settings):
        splits = steps("pre_tokenizer", settings.get("pre_tokenizer"))
        return re.compile("(?<=[A-Za-z]) (?=[A-Za-z])") if any(map(_splits_at_spaces, splits)) else None
    places = " \t\n\r" + "".join(mark for mark in _MARKS if mark not in inside)
    chinese = any(step["type"] == "BertNormalizer" and step.get("handle_chinese_chars") for step in normalizers)
    chinese = chinese and not any(ord(character) in _CHINESE for character in inside)
    return re.compile(f"[{re.escape(places)}{f'{chr(_CHINESE[0])}-{chr(_CHINESE[-1])}' if chinese else ''}]")


def _is_bert(settings: Mapping[str, Any]) -> bool:
    return [step["type"] for step in steps("pre_tokenizer", settings.get("pre_tokenizer"))] == ["BertPreTokenizer"]


def _splits_at_spaces(step: Mapping[str, Any]) -> bool:
    kind = step["type"]
    if kind == "ByteLevel":
        return step.get("use_regex", True) is True
    return kind in ("Whitespace", "WhitespaceSplit") or (kind == "Metaspace" and step.get("split", True) is True)
