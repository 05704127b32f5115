"""Writes unicode.json, what the tokenizers library makes of every code point, and tables of it for phones and the web.

Platforms know different versions of Unicode, and so do the parts of the library itself. What a tokenizer does to a
character is what the model was trained on, so the tables are asked from the library, code point by code point.
"""

from __future__ import annotations

import hashlib
import random
import struct
import textwrap
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

from tests.golden.golden_files import document

MADE_BY = f"tokenizers {tokenizers.__version__}"
BLOCK = 4096
SURROGATES = range(0xD800, 0xE000)
HANGUL = range(0xAC00, 0xD7A4)
"""Syllables, which decompose by arithmetic (The Unicode Standard, section 3.12)."""

CODE_POINTS = [code for code in range(0x110000) if code not in SURROGATES]
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

FLAGS = ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")
NORMALIZERS: dict[str, tuple[str, ...]] = {
    "all": FLAGS,
    "clean": ("clean_text",),
    "chinese": ("handle_chinese_chars",),
    "strip": ("strip_accents",),
    "lower": ("lowercase",),
}
RANDOM_TEXTS = 200
ON_THE_WEB = (
    "REMOVED",
    "BLANK",
    "IDEOGRAPHS",
    "NONSPACING",
    "WHITE_SPACE",
    "PUNCTUATION",
    "COMBINING",
    "DECOMPOSED",
    "LOWERED",
)
"""The tables of BERT's tokenizers, the only ones that a browser reads: a page has no bytes to spare."""

CATEGORIES = ("Lu", "Ll", "Lt", "Lm", "Lo", "M", "N")
"""General categories that the patterns of public tokenizers name, numbered from 1."""

PREPENDED = (*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0xD4E)
"""Characters that join the one behind them in a grapheme (Unicode Standard Annex 29), of up to three bytes of UTF-8."""


def files() -> dict[str, bytes]:
    """The golden file and the tables in Kotlin, Swift and TypeScript, by path."""
    return {"unicode.json": _golden(), **_sources(_tables())}


def normalizer(*flags: str) -> Callable[[str], str]:
    """BERT's normalizer with these flags and no others."""
    normalize: Callable[[str], str] = normalizers.BertNormalizer(
        **{flag: flag in flags for flag in FLAGS}
    ).normalize_str
    return normalize


@cache
def normalized(name: str) -> dict[int, str]:
    """What a normalizer of `NORMALIZERS` makes of each code point alone."""
    normalize = normalizer(*NORMALIZERS[name])
    return {code: normalize(chr(code)) for code in CODE_POINTS}


@cache
def pieces() -> dict[int, list[str]]:
    """The words that BERT's pre-tokenizer sees in "a", a code point, and "b"."""
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    return {code: [piece for piece, _ in split(f"a{chr(code)}b")] for code in CODE_POINTS}


def _golden() -> bytes:
    normalize = normalizer(*FLAGS)
    blocks = []
    for first in range(0, 0x110000, BLOCK):
        codes = [code for code in range(first, first + BLOCK) if code not in SURROGATES]
        if not codes:
            continue
        hashes = {name: _hash(normalized(name)[code] for code in codes) for name in NORMALIZERS}
        hashes["split"] = _hash("|".join(pieces()[code]) for code in codes)
        blocks.append({"first": first, **hashes})
    texts = [{"text": text, "normalized": normalize(text)} for text in _texts()]
    return document(MADE_BY, texts, block=BLOCK, blocks=blocks)


def _hash(values: Iterable[str]) -> str:
    return hashlib.sha256("".join(f"{value}\n" for value in values).encode()).hexdigest()[:16]


def _texts() -> Iterable[str]:
    """Runs of marks in random order, between characters that decompose: their order is Unicode's canonical one."""
    generator = random.Random(0)
    marks = [chr(code) for code in _combining()]
    spacing = [mark for mark in marks if unicodedata.category(mark) != "Mn"]
    others = [
        "a",
        "\u00c5",
        "\u1e69",
        "\uac01",
        "\ud4db",
        "\u0130",
        "\u03a3",
        "\u034f",
        "\u0958",
        "\u1d15e",
        "\U0001d15f",
    ]
    for _ in range(RANDOM_TEXTS):
        pools = generator.choices([marks, spacing, others], weights=[3, 2, 2], k=12)
        yield "".join(generator.choice(pool) for pool in pools)


def _tables() -> dict[str, tuple[str, str]]:
    """Each table's text with what it says, by name."""
    decompose, compatible = normalizers.NFD().normalize_str, normalizers.NFKD().normalize_str
    compose, strip = normalizers.NFC().normalize_str, normalizers.StripAccents().normalize_str
    clean, chinese, bert = (normalized(name) for name in ("clean", "chinese", "strip"))
    decomposed = {code: decompose(chr(code)) for code in CODE_POINTS if code not in HANGUL}
    return {
        "REMOVED": ("Characters that cleaning removes.", _ranges(c for c in CODE_POINTS if clean[c] == "")),
        "BLANK": ("Characters that cleaning makes a space.", _ranges(c for c in CODE_POINTS if clean[c] == " ")),
        "IDEOGRAPHS": (
            "Characters that get spaces around them.",
            _ranges(code for code in CODE_POINTS if chinese[code] == f" {chr(code)} "),
        ),
        "NONSPACING": (
            "Marks that BERT's stripping of accents removes, after decomposition.",
            _ranges(code for code, text in decomposed.items() if text == chr(code) and bert[code] == ""),
        ),
        "MARKS": (
            "Marks that the normalizer `StripAccents` removes.",
            _ranges(code for code in CODE_POINTS if strip(chr(code)) == ""),
        ),
        "WHITE_SPACE": (
            "Characters that separate words.",
            _ranges(code for code, found in pieces().items() if found == ["a", "b"]),
        ),
        "PUNCTUATION": (
            "Characters that are words of their own.",
            _ranges(code for code, found in pieces().items() if found == ["a", chr(code), "b"]),
        ),
        "COMBINING": (
            "Canonical combining classes above 0: gap, length, class.",
            _classes({code: unicodedata.combining(chr(code)) for code in _combining()}),
        ),
        "DECOMPOSED": (
            "Canonical decompositions, in full, but for Hangul.",
            _mapping({code: text for code, text in decomposed.items() if text != chr(code)}),
        ),
        "EXCLUDED": (
            "Characters that decompose into two or more, and that composition does not make of these.",
            _ranges(c for c, text in decomposed.items() if len(text) > 1 and compose(text) != chr(c)),
        ),
        "COMPATIBLE": (
            "Compatibility decompositions, in full, where they are not the canonical ones.",
            _mapping({c: text for c in decomposed if (text := compatible(chr(c))) != decomposed[c]}),
        ),
        "WORD": ("Characters of words, as the pre-tokenizer `Whitespace` sees them.", _ranges(_word())),
        "NUMERIC": ("Characters that the pre-tokenizer `Digits` takes for digits.", _ranges(_numeric())),
        "CATEGORIES": (
            f"General categories, as patterns see them: gap, length, and 1 to 7 for {', '.join(CATEGORIES)}.",
            _classes({c: n for n, name in enumerate(CATEGORIES, 1) for c in _matched(rf"\p{{{name}}}")}),
        ),
        "EXTENDING": ("Characters that join the one before them in a grapheme.", _ranges(_extending())),
        "PREPENDED": ("Characters that join the one behind them in a grapheme.", _ranges(PREPENDED)),
        "CONTROLS": (
            "Characters that join none in a grapheme.",
            _ranges(c for c in CODE_POINTS if _is_control(c) and c not in PREPENDED),
        ),
        "LOWERED": (
            "Lower case, character by character.",
            _mapping({code: text for code, text in normalized("lower").items() if text != chr(code)}),
        ),
    }


def _matched(pattern: str) -> Iterable[int]:
    """The code points that a pattern matches alone."""
    every = "".join(map(chr, CODE_POINTS))
    split = pre_tokenizers.Split(Regex(f"{pattern}+"), "removed", invert=True).pre_tokenize_str
    return [ord(character) for piece, _ in split(every) for character in piece]


def _word() -> Iterable[int]:
    split = pre_tokenizers.Whitespace().pre_tokenize_str
    return [code for code in CODE_POINTS if len(split(f"a{chr(code)}")) == 1 and code not in _spaces()]


@cache
def _spaces() -> frozenset[int]:
    """White space, which is the same wherever the library asks for it."""
    split = pre_tokenizers.WhitespaceSplit().pre_tokenize_str
    spaces = {code for code, found in pieces().items() if found == ["a", "b"]}
    assert spaces == {code for code in CODE_POINTS if not split(chr(code))} == set(_matched(r"\s"))
    return frozenset(spaces)


def _numeric() -> Iterable[int]:
    split = pre_tokenizers.Digits().pre_tokenize_str
    return [code for code in CODE_POINTS if len(split(f"a{chr(code)}")) == 2]


def _extending() -> Iterable[int]:
    """Asked of a map of characters that makes `a` a `z`, which takes what is in one grapheme with the `a`."""
    units = [0] * 512
    units[0], units[0x60] = 1 << 10, ord("a") | 1 << 8 | 1 << 10
    charsmap = struct.pack("<I", 4 * len(units)) + struct.pack(f"<{len(units)}I", *units) + b"z\0"
    normalize = normalizers.Precompiled(charsmap).normalize_str
    return [code for code in CODE_POINTS if normalize(f"a{chr(code)}") == "z"]


def _is_control(code: int) -> bool:
    return unicodedata.category(chr(code)) in ("Cc", "Cf", "Zl", "Zp") and code not in (0x200C, 0x200D)


@cache
def _combining() -> tuple[int, ...]:
    """Characters that the library takes for combining ones: they change places with marks of class 1 or 240.

    It knows an older Unicode than Python does, so these are some of Python's, and the class of a character is stable.
    """
    decompose = normalizers.NFD().normalize_str
    first, last = "\u0334", "\u0345"

    def moves(mark: str) -> bool:
        return decompose(mark + first) == first + mark or decompose(last + mark) == mark + last

    marks = [code for code in CODE_POINTS if unicodedata.combining(chr(code)) and decompose(chr(code)) == chr(code)]
    return tuple(code for code in marks if chr(code) in (first, last) or moves(chr(code)))


def _ranges(codes: Iterable[int]) -> str:
    """Ranges as pairs of base 36: how far behind the last range's end the next one begins, and how long it is."""
    return _classes(dict.fromkeys(codes, 0), with_class=False)


def _classes(classes: dict[int, int], with_class: bool = True) -> str:
    words: list[str] = []
    codes = sorted(classes)
    end = index = 0
    while index < len(codes):
        first, kind = codes[index], classes[codes[index]]
        length = 0
        while index < len(codes) and codes[index] == first + length and classes[codes[index]] == kind:
            index += 1
            length += 1
        words += [_base36(first - end), _base36(length), *([_base36(kind)] if with_class else [])]
        end = first + length
    return " ".join(words)


def _mapping(texts: dict[int, str]) -> str:
    """Entries `gap:target+target`, in base 36: how far behind the last entry's character, and what it becomes."""
    words = []
    last = 0
    for code in sorted(texts):
        words.append(f"{_base36(code - last)}:{'+'.join(_base36(ord(target)) for target in texts[code])}")
        last = code
    return " ".join(words)


def _base36(number: int) -> str:
    return DIGITS[number] if number < 36 else _base36(number // 36) + DIGITS[number % 36]


def _sources(tables: dict[str, tuple[str, str]]) -> dict[str, bytes]:
    """The tables as source files, which need no file of data to be found and read in an app."""
    about = f"What {MADE_BY} does to characters. Written by tests/golden/make_unicode.py, which explains the encoding."
    kotlin = ["package org.edgeformer.core.preprocess", "", f"/** {about} */", "internal object UnicodeTables {"]
    swift = [f"/// {about}", "enum UnicodeTables {"]
    typescript = [f"/** {about} */", "export const UNICODE_TABLES = {"]
    for name, (meaning, table) in tables.items():
        lines = textwrap.wrap(table, 112)
        kotlin += [
            f"    /** {meaning} */",
            f'    const val {name} = """',
            *(f"        {line}" for line in lines),
            '        """',
        ]
        first, *rest = name.lower().split("_")
        camel = first + "".join(word.title() for word in rest)
        swift += [f"  /// {meaning}", f'  static let {camel} = """', *(f"    {line}" for line in lines), '    """']
        if name in ON_THE_WEB:
            typescript += [f"  /** {meaning} */", f"  {camel}: `", *(f"    {line}" for line in lines), "  `,"]
    return {
        "../../android_demo/core/src/main/kotlin/org/edgeformer/core/preprocess/UnicodeTables.kt": _text(kotlin),
        "../../ios_demo/Sources/EdgeCore/Preprocess/UnicodeTables.swift": _text(swift),
        "../../web_demo/src/unicode_tables.ts": _text(typescript, end="} as const;"),
    }


def _text(lines: list[str], end: str = "}") -> bytes:
    return ("\n".join([*lines, end]) + "\n").encode()
