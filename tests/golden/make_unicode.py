"""Writes unicode.json, what the tokenizers library makes of every code point, and tables of it for phones and the web.

Platforms know different versions of Unicode, and so do the parts of the library itself. What a tokenizer does to a
character is what the model was trained on, so the tables are asked from the library, code point by code point.
"""

from __future__ import annotations

import hashlib
import random
import textwrap
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache

import tokenizers
from tokenizers import normalizers, pre_tokenizers

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
    decompose = normalizers.NFD().normalize_str
    clean, chinese, strip = (normalized(name) for name in ("clean", "chinese", "strip"))
    decomposed = {code: decompose(chr(code)) for code in CODE_POINTS if code not in HANGUL}
    return {
        "REMOVED": ("Characters that cleaning removes.", _ranges(c for c in CODE_POINTS if clean[c] == "")),
        "BLANK": ("Characters that cleaning makes a space.", _ranges(c for c in CODE_POINTS if clean[c] == " ")),
        "IDEOGRAPHS": (
            "Characters that get spaces around them.",
            _ranges(code for code in CODE_POINTS if chinese[code] == f" {chr(code)} "),
        ),
        "NONSPACING": (
            "Marks that stripping of accents removes, after decomposition.",
            _ranges(code for code, text in decomposed.items() if text == chr(code) and strip[code] == ""),
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
        "LOWERED": (
            "Lower case, character by character.",
            _mapping({code: text for code, text in normalized("lower").items() if text != chr(code)}),
        ),
    }


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
        typescript += [f"  /** {meaning} */", f"  {camel}: `", *(f"    {line}" for line in lines), "  `,"]
    return {
        "../../android_demo/core/src/main/kotlin/org/edgeformer/core/preprocess/UnicodeTables.kt": _text(kotlin),
        "../../ios_demo/Sources/EdgeCore/Preprocess/UnicodeTables.swift": _text(swift),
        "../../web_demo/src/unicode_tables.ts": _text(typescript, end="} as const;"),
    }


def _text(lines: list[str], end: str = "}") -> bytes:
    return ("\n".join([*lines, end]) + "\n").encode()
