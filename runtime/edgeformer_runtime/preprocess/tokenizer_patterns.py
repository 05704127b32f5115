"""Regular expressions of tokenizer files: which ones cannot take more than linear time, and how little they match."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import BundleError

MAX_PATTERN_CHARACTERS = 512
MAX_VARIANTS = 256
"""Ways in which the bounded quantifiers of one alternative can be taken: what a failing match may try."""

_GPT2_WORDS = r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_GPT4_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SUFFIXES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"

KNOWN_PATTERNS = (
    rf"'s|'t|'re|'ve|'m|'ll|'d|{_GPT2_WORDS}",  # GPT-2, Whisper
    rf"'(?:[sdmt]|ll|ve|re)|{_GPT2_WORDS}",  # the same, as tiktoken writes it
    rf"{_SUFFIXES}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_GPT4_REST}",  # Llama 3
    rf"{_SUFFIXES}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_GPT4_REST}",  # Qwen 2
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_SUFFIXES}?|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_SUFFIXES}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",  # GPT-4o
)
"""Of public models, which need more than the safe kind and are linear: each matches a character or more."""

_ATOM = re.compile(
    r"\[\^?(?:[^\[\]\\&]|\\[pP]\{\^?\w+\}|\\[^\dpPbBAzZGkgKRXyYNO])+\]"  # a class; none inside it, no intersection
    r"|\\[pP]\{\^?\w+\}|\\[sSdDwWnrtfv]|\\[^\w\s]"  # a property, a short class, a character that is escaped
    r"|[^\\()\[\]{}|*+?^$]"
)
_QUANTIFIER = re.compile(r"(?P<sign>[?*+])|\{(?P<low>\d{1,3})(?P<comma>,(?P<high>\d{1,3})?)?\}")


def shortest_match(pattern: str, where: str) -> int:
    """How many characters a pattern matches at least.

    A pattern is one of `KNOWN_PATTERNS`, or alternatives without groups, each a row of characters and classes whose
    last one alone may repeat without bound: a matcher that backtracks goes through text once with it. Others, such as
    (a+)+b or \\s+$, can take time that is quadratic or exponential in the text.

    Raises:
        BundleError: it is neither, is too long, or can match nothing.
    """
    if pattern in KNOWN_PATTERNS:
        return 1
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        raise BundleError(f"{where}: a pattern of {len(pattern)} characters: expected {MAX_PATTERN_CHARACTERS} at most")
    shortest = min(_alternatives(pattern, where))
    if shortest == 0:
        raise BundleError(f"{where}: the pattern {shorten(pattern)} matches the empty text: expected a character")
    return shortest


def _alternatives(pattern: str, where: str) -> Iterator[int]:
    """The least number of characters of each alternative."""
    position, least, variants, open_ended = int(pattern.startswith("^")), 0, 1, False
    while position < len(pattern):
        if pattern[position] == "|":
            yield least
            position, least, variants, open_ended = position + 1, 0, 1, False
            position += int(pattern.startswith("^", position))
            continue
        atom = _ATOM.match(pattern, position)
        if atom is None or open_ended:
            raise _unsafe(pattern, where)
        quantifier = _QUANTIFIER.match(pattern, atom.end())
        position = atom.end() if quantifier is None else quantifier.end()
        low, high = (1, 1) if quantifier is None else _bounds(quantifier)
        open_ended = high is None
        variants *= 1 if high is None else max(high - low, 0) + 1
        if variants > MAX_VARIANTS:
            raise _unsafe(pattern, where)
        least += low
    yield least


def _bounds(quantifier: re.Match[str]) -> tuple[int, int | None]:
    sign = quantifier["sign"]
    if sign is not None:
        return (1 if sign == "+" else 0), (1 if sign == "?" else None)
    low = int(quantifier["low"])
    if quantifier["comma"] is None:
        return low, low
    return low, None if quantifier["high"] is None else int(quantifier["high"])


def _unsafe(pattern: str, where: str) -> BundleError:
    return BundleError(
        f"{where}: the pattern {shorten(pattern)} could take too long: expected characters and classes without groups, "
        "the last one alone repeated without bound, or the pattern of a public model"
    )
