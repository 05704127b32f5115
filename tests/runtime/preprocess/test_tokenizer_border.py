"""Tokenizers from strangers: known steps, bounded in time and output; failures of the library are one line."""

from __future__ import annotations

import base64
import json
import os
import random
import struct
import time
from typing import Any

import pytest
from tiny_bundle import word_piece
from tokenizers import Tokenizer as Library

from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.preprocess import tokenizer as border
from edgeformer_runtime.preprocess.tokenizer import Tokenizer
from edgeformer_runtime.preprocess.tokenizer_file import (
    KNOWN_PATTERNS,
    MAX_STEPS,
    settings_of_known_file,
    shortest_match,
)


def settings(**changes: Any) -> str:
    """The small tokenizer's file with other parts."""
    return json.dumps(json.loads(word_piece()) | changes)


def replaced(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def sequence(*normalizers: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(normalizers)}


def charsmap(longest: int) -> str:
    """A map whose trie has no entries, and one replacement of so many bytes."""
    trie = b"\0\0\0\0"
    return base64.b64encode(struct.pack("<I", len(trie)) + trie + b"a" * longest + b"\0").decode()


DOUBLING = replaced({"String": "a"}, "aa")
MODEL = json.loads(word_piece())["model"]
SINGLE = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
PAIR = [*SINGLE, {"Sequence": {"id": "B", "type_id": 1}}]
TEMPLATE = {
    "type": "TemplateProcessing",
    "single": SINGLE,
    "pair": PAIR,
    "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]}},
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalizer": sequence(*[DOUBLING] * 40)}, f"more than {MAX_STEPS} steps"),
        ({"normalizer": sequence(*[DOUBLING] * 30)}, "1.07e+09 times longer: expected 8 at most"),
        ({"normalizer": sequence(sequence(DOUBLING, DOUBLING), DOUBLING, DOUBLING)}, "16 times longer"),
        ({"normalizer": replaced({"Regex": "a"}, "b" * 9)}, "9 times longer"),
        ({"normalizer": replaced({"Regex": "a?"}, "b")}, "matches the empty text"),
        ({"normalizer": replaced({"String": ""}, "b")}, "that is not empty"),
        ({"normalizer": replaced({"Regex": "(a+)+b"}, "")}, "could take too long"),
        ({"decoder": replaced({"String": "a"}, "a" * 9)}, "decoder: its replacements"),
        ({"normalizer": {"type": "Prepend", "prepend": "a" * 65}}, "prepend: expected at most 64"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap(129)}}, "at most 128 bytes"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "!"}}, "expected a SentencePiece map"),
        ({"normalizer": {"type": "Own"}}, "unknown type 'Own': expected one of"),
        ({"normalizer": [1]}, "unknown type None"),
        ({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": r"\s+$"}}}, "could take too long"),
        (
            {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}] * 2}},
            "ByteLevel occurs twice",
        ),
        ({"post_processor": TEMPLATE | {"single": SINGLE * 2}}, "single: expected A, once each"),
        ({"post_processor": TEMPLATE | {"pair": SINGLE}}, "pair: expected A and B, once each"),
        ({"model": MODEL | {"max_input_chars_per_word": 10**9}}, "max_input_chars_per_word: expected 200 at most"),
        ({"model": MODEL | {"vocab": MODEL["vocab"] | {"a" * 1025: 12}}}, "a token of 1025 characters"),
        ({"model": MODEL | {"continuing_subword_prefix": "#" * 65}}, "continuing_subword_prefix: expected at most 64"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [], "dropout": 0.5}}, "dropout: expected null"),
        ({"model": {"type": "Unigram", "vocab": [["a", 0.0], "b"]}}, "expected tokens with ids or scores"),
        ({"added_tokens": [{"id": 1, "content": "a" * 1025}]}, "added_tokens: a token of 1025 characters"),
        ({"added_tokens": [1]}, "expected tokens with a content"),
    ],
)
def test_what_could_take_long_is_refused_at_once(changes: dict[str, Any], message: str) -> None:
    begun = time.monotonic()
    with pytest.raises(BundleError) as caught:
        Tokenizer(settings(**changes), "t.json", 16)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a+)+b",
        r"(?=a)b",
        r"(?<!a)b",
        r"a*b",
        r"\s+$",
        r"\s*\s*x",
        r"(\w)\1",
        r"a++b",
        r".*.*.*=",
        r"a{2,}b",
        r"[a-z&&b]+x",
        r"\bx",
        "a" * 513,
        r"a?a?a?a?a?a?a?a?a?aaaaaaaaa",
        r"\p{L}+\p{N}+",
        "[",
        "a{",
        "*",
        r"(?i)a",
        "a|",
        "",
        r"\1",
    ],
)
def test_patterns_that_backtrack_are_refused(pattern: str) -> None:
    with pytest.raises(BundleError, match=r"^t: "):
        shortest_match(pattern, "t")


@pytest.mark.parametrize(
    ("pattern", "least"),
    [
        (r"\s+", 1),
        (r" {2,}", 2),
        (r"[^\r\n\p{L}\p{N}]?\p{L}+", 1),
        (r"\d{1,3}", 1),
        (r"''|``", 2),
        ("abc", 3),
        (r"^\s+|x", 1),
        (r"[\p{L}\p{M}]+", 1),
        (r"\.{3}", 3),
        (r"\p{Han}", 1),
        (r" ?[!-/:-@]+", 1),
    ],
)
def test_simple_patterns_pass(pattern: str, least: int) -> None:
    assert shortest_match(pattern, "t") == least


@pytest.mark.parametrize("pattern", KNOWN_PATTERNS)
def test_patterns_of_public_models_pass_and_are_linear(pattern: str) -> None:
    from tokenizers import Regex, pre_tokenizers

    assert shortest_match(pattern, "t") == 1
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    for text in (
        " " * 20_000 + "x",
        "\n " * 10_000,
        "aA" * 10_000,
        "A" * 20_000,
        "1" * 20_000,
        "'" * 20_000,
        "!" * 20_000,
    ):
        begun = time.monotonic()
        assert "".join(piece for piece, _ in split.pre_tokenize_str(text)) == text
        assert time.monotonic() - begun < 10


class PanicException(BaseException):
    """As the library raises it: no Exception."""


class Panicking:
    """A library whose every call panics, as Rust does it: with a report on the process's stderr."""

    def __getattr__(self, name: str) -> Any:
        def call(*_: object, **__: object) -> None:
            os.write(2, b"thread '<unnamed>' panicked at src/lib.rs\n")
            raise PanicException("called `Result::unwrap()` on an `Err` value")

        return call


def test_a_panic_is_one_line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    tokenizer = Tokenizer(settings(normalizer={"type": "Nmt"}), "t.json", 16)
    monkeypatch.setattr(tokenizer, "_library", Panicking())
    for call in (
        lambda: tokenizer.encode("hello"),
        lambda: tokenizer.encode("a", "b"),
        lambda: tokenizer.text_tokens("a"),
        lambda: tokenizer.decode([1]),
        lambda: tokenizer.special_tokens(),
        lambda: tokenizer.vocabulary_size,
    ):
        with pytest.raises(
            InputError, match=r"^t.json: the tokenizer cannot take this input: the tokenizers library failed"
        ):
            call()
    assert capfd.readouterr().err == ""

    class Module:
        from_str = Panicking().from_str

    monkeypatch.setattr(border, "load_attribute", lambda _: Module)
    with pytest.raises(BundleError, match=r"^t.json: not a tokenizers file: the tokenizers library failed"):
        Tokenizer(word_piece(), "t.json")
    assert capfd.readouterr().err == ""


def test_interrupts_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        def encode(self, *_: object) -> None:
            raise KeyboardInterrupt

    tokenizer = Tokenizer(word_piece(), "t.json")
    monkeypatch.setattr(tokenizer, "_library", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        tokenizer.encode("a")


def test_own_truncation_and_padding_are_not_used() -> None:
    own = settings(
        truncation={"max_length": 2, "strategy": "LongestFirst", "stride": 5, "direction": "Left"},
        padding={
            "strategy": {"Fixed": 1 << 40},
            "direction": "Left",
            "pad_to_multiple_of": 0,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        },
    )
    assert Tokenizer(own, "t.json", 16).encode("hello hello").ids == [2, 9, 9, 3]


PIECES = [
    "hello",
    "turn",
    " ",
    "  ",
    ".",
    "!",
    "中",
    "文",
    "e\u0301",
    "[MASK]",
    "[SEP] ",
    "\t",
    "\n",
    "x" * 120,
    "😀",
    "Σ",
    "lights off",
    "\u200b",
]


@pytest.mark.parametrize("longest", [8, 13])
def test_a_cut_text_has_the_tokens_of_the_whole(longest: int) -> None:
    mine, whole = Tokenizer(word_piece(), "t.json", longest), Library.from_str(word_piece())
    whole.no_padding()
    whole.enable_truncation(longest, strategy="longest_first")
    rng = random.Random(longest)

    def text() -> str:
        return "".join(rng.choice(PIECES) + rng.choice(("", " ")) for _ in range(rng.choice((3, 40, 90))))

    for _ in range(60):
        one, other = text(), text()
        for given in ((one, None), (one, other)):
            found, expected = mine.encode(*given), whole.encode(*given)
            assert (found.ids, found.type_ids) == (expected.ids, expected.type_ids), given
            assert bool(found.overflowing) == bool(expected.overflowing)


def test_a_long_text_is_not_tokenized_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer(word_piece(), "t.json", 16)
    library, seen = tokenizer._library, []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(library, name)

        def encode(self, text: str, *rest: Any, **options: Any) -> Any:
            seen.append(len(text))
            return library.encode(text, *rest, **options)

    monkeypatch.setattr(tokenizer, "_library", Counting())
    assert len(tokenizer.encode("hello " * 160_000).ids) == 16
    assert len(tokenizer.encode("hello", "中" * 900_000).ids) == 16
    assert sum(seen) < 10_000
    with pytest.raises(InputError, match="both texts of the pair have over 100000 characters"):
        tokenizer.encode("hello " * 20_000, "hello " * 20_000)


PARTS = ("version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder")
HIDDEN = {"content": 'x, "model": {"type": "BPE", ', "special": False}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("order", ["as the library", "model first", "model in between", "a part is missing"])
def test_the_settings_of_a_known_file_are_the_files(indent: int | None, order: str) -> None:
    file = json.loads(word_piece()) | {"added_tokens": [HIDDEN], "normalizer": sequence(DOUBLING)}
    file = {key: file.get(key) for key in PARTS} | {"model": {"type": "WordPiece"} | file["model"]}
    if order == "model first":
        file = {"model": file.pop("model")} | file
    elif order == "model in between":
        file["pre_tokenizer"] = file.pop("pre_tokenizer")
    elif order == "a part is missing":
        del file["normalizer"]
    found = settings_of_known_file(json.dumps(file, indent=indent))
    assert found["model"]["type"] == "WordPiece"
    assert ("vocab" in found["model"]) == (order != "as the library")
    assert {key: found.get(key) for key in PARTS} == {key: file.get(key) for key in PARTS}


@pytest.mark.parametrize("text", ["lights on", "lights " * 400, "x" * 9000])
@pytest.mark.parametrize("changes", [{}, {"truncation": {"max_length": 2, "strategy": "LongestFirst", "stride": 0}}])
def test_a_known_file_gives_the_same_tokens(text: str, changes: dict[str, Any]) -> None:
    file = settings(**changes)
    expected, found = (Tokenizer(file, "tokenizer.json", 16, known).encode(text) for known in (False, True))
    assert (found.ids, found.type_ids, len(found.overflowing)) == (
        expected.ids,
        expected.type_ids,
        len(expected.overflowing),
    )
