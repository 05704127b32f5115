"""Tokens as text and words, against the tokenizers library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scripted import TOKENS, byte_tokenizer
from tokenizers import Tokenizer

from edgeformer_runtime.decoding.tokenizer import SpeechTokenizer
from edgeformer_runtime.errors import BundleError

END = 50256


@pytest.fixture(scope="module")
def english(assets: Path) -> SpeechTokenizer:
    return SpeechTokenizer((assets / "whisper-tiny.en" / "tokenizer.json").read_text(), END)


@pytest.fixture(scope="module")
def by_bytes() -> SpeechTokenizer:
    return SpeechTokenizer(byte_tokenizer(), TOKENS.end)


def test_every_token_as_the_library_has_it(english: SpeechTokenizer, assets: Path) -> None:
    library = Tokenizer.from_file(str(assets / "whisper-tiny.en" / "tokenizer.json"))
    for token in range(END):
        raw = english.bytes_of(token)
        assert raw.decode("utf-8", "replace") == library.decode([token])
        assert len(raw) == len(library.id_to_token(token))


def test_random_tokens_as_the_library_has_them(english: SpeechTokenizer, assets: Path) -> None:
    library = Tokenizer.from_file(str(assets / "whisper-tiny.en" / "tokenizer.json"))
    generator = np.random.default_rng(0)
    for _ in range(50):
        tokens = generator.integers(0, END, 40).tolist()
        expected = library.decode(tokens)
        found = english.text(tokens)
        # Only what is cut off at the end may differ.
        assert found == expected[: len(found)]
        assert expected[len(found) :] in ("", "\ufffd")


def test_special_tokens_are_no_text(english: SpeechTokenizer) -> None:
    assert english.text([50257, 50362, 843, 523, 50413, 616, END]) == " And so my"


def test_round_trip(english: SpeechTokenizer) -> None:
    for text in ("Ask not what", "naïve café, 東京 🙂", "  two  spaces "):
        assert english.text(english.tokens(text)) == " " + text.strip()
    spelled = english.tokens("<|endoftext|><|notimestamps|>hi")
    assert english.text(spelled) == " hi"


def test_incomplete_characters(by_bytes: SpeechTokenizer) -> None:
    raw = list("né🙂".encode())
    assert [by_bytes.text(raw[:count]) for count in range(len(raw) + 1)] == [
        "",
        "n",
        "n",
        "né",
        "né",
        "né",
        "né",
        "né🙂",
    ]
    assert by_bytes.text([0xFF, ord("a")]) == "\ufffda"
    assert by_bytes.text([0xC3, ord("a"), 0xC3]) == "\ufffda"
    assert by_bytes.text("\ufffd".encode()) == "\ufffd"


def test_words(english: SpeechTokenizer, by_bytes: SpeechTokenizer) -> None:
    tokens = english.tokens("don't stop, disestablishment! 3.5 well-known.")
    words = english.words(tokens)
    assert [word.text for word in words] == [
        " don't",
        " stop",
        ",",
        " disestablishment",
        "!",
        " 3.5",
        " well-known",
        ".",
    ]
    assert [token for word in words for token in word.tokens] == tokens
    characters = by_bytes.words(list("東京 です".encode()))
    assert [word.text for word in characters] == list("東京 です")
    assert [len(word.tokens) for word in characters] == [3, 3, 1, 3, 3]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (" It is Tokyo.", [" It", " is", " Tokyo", "."]),  # a translation: whatever was said, its script has spaces
        ("我用iPhone 15,不错。", ["我", "用", "iPhone", " 15", ",", "不", "错", "。"]),
        ("第3.5章", ["第", "3.5", "章"]),
        ("是.A", ["是", ".A"]),
        (" 안녕 하세요", [" 안녕", " 하세요"]),
    ],
)
def test_words_of_scripts(by_bytes: SpeechTokenizer, text: str, words: list[str]) -> None:
    assert [word.text for word in by_bytes.words(list(text.encode()))] == words


@pytest.mark.parametrize("text", ["", "{}", "not json", '{"version": "1.0", "model": {"type": "Nothing"}}'])
def test_corrupted_files(text: str) -> None:
    with pytest.raises(BundleError, match="the tokenizer: "):
        SpeechTokenizer(text, 10)


def test_a_file_that_the_library_refuses() -> None:
    tokenizer = SpeechTokenizer('{"model": {"vocab": {"a": 0}}}', 1)
    assert tokenizer.text([0]) == "a"
    with pytest.raises(BundleError, match="the tokenizer: not a tokenizers file"):
        tokenizer.tokens("a")


def test_tokenizers_of_another_kind() -> None:
    with pytest.raises(BundleError, match="expected byte-level BPE"):
        SpeechTokenizer(byte_tokenizer(), 10_000).text([9999])
