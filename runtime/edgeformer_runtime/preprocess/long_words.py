"""Shortens words that WordPiece takes for unknown whatever follows in them, without changing a token."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgeformer_runtime.preprocess.tokenizer_file import MAX_TOKEN_CHARACTERS, MAX_WORD_CHARACTERS, steps

SOLID = (
    (0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A),  # ASCII
    (0xC0, 0x24F),  # Latin
    (0x391, 0x3A1), (0x3A3, 0x3CE),  # Greek
    (0x400, 0x481), (0x48A, 0x4FF),  # Cyrillic
    (0x5D0, 0x5EA), (0x621, 0x63A), (0x641, 0x64A),  # Hebrew, Arabic
    (0x904, 0x939), (0xE01, 0xE30),  # Devanagari, Thai
    (0x3041, 0x3096), (0x30A1, 0x30FA), (0xAC00, 0xD7A3),  # kana, Hangul
    (0x1F300, 0x1F320), (0x1F400, 0x1F4F7), (0x1F600, 0x1F64F), (0x1F680, 0x1F6C5),  # emoji
)  # fmt: skip
"""Ranges of characters of which BERT's normalizer leaves one at least, and at none of which BERT begins a word."""
LOOSE = ((0x300, 0x34E), (0x350, 0x36F), (0x200D, 0x200D), (0xFE0F, 0xFE0F))
"""Marks and joiners that it leaves or removes, by its options; nor do they begin a word."""

_MARKS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
_KEPT = 2 * MAX_TOKEN_CHARACTERS
"""Of a run's beginning and end: added tokens that reach into it end in the first half of that."""


def _class(ranges: tuple[tuple[int, int], ...]) -> str:
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


class LongWords:
    """Shortens runs inside of words. Calls from several threads are safe: nothing changes after init."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Read from a tokenizer's settings, already checked, whether long words are unknown to it.

        BERT's are, with a WordPiece model. An added token without a mark could stand anywhere in a word.
        """
        before = [step["type"] for step in steps("pre_tokenizer", settings.get("pre_tokenizer"))]
        normalizers = [step["type"] for step in steps("normalizer", settings.get("normalizer"))]
        added = [token["content"] for token in settings.get("added_tokens") or []]
        self._known = (
            (settings.get("model") or {}).get("type") == "WordPiece"
            and before == ["BertPreTokenizer"]
            and set(normalizers) <= {"BertNormalizer"}
            and all(any(mark in content for mark in _MARKS) for content in added)
        )
        self._runs = re.compile(f"[{_class(SOLID + LOOSE)}]{{{2 * _KEPT + 1},}}")
        self._solid = re.compile(f"[{_class(SOLID)}]")

    def shortened(self, text: str) -> str:
        """A text of the same tokens."""
        return self._runs.sub(self._ends, text) if self._known and len(text) > 2 * _KEPT else text

    def _ends(self, run: re.Match[str]) -> str:
        """A run's two ends, where these alone are too long for a word, or where none of it is more than a mark."""
        whole = run[0]
        middle = whole[MAX_TOKEN_CHARACTERS:_KEPT] + whole[-_KEPT:-MAX_TOKEN_CHARACTERS]
        long_enough = len(self._solid.findall(middle)) > MAX_WORD_CHARACTERS
        return whole[:_KEPT] + whole[-_KEPT:] if long_enough or self._solid.search(whole) is None else whole
