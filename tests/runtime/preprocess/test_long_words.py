"""Long words are shortened before they are tokenized: no token changes, and none of it takes long."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest
import tokenizers

from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.tokenizer import LOOSE, MAX_UNCUT_CHARACTERS, SOLID, LongWords, Tokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "##a", "##b", "e", "##e", "!", "中", "я", "##я"]
OPTIONS = [
    {"clean_text": clean, "strip_accents": strip, "lowercase": lower, "handle_chinese_chars": True}
    for clean in (True, False)
    for strip, lower in ((None, True), (False, False), (True, False))
]
SECONDS = 10.0
COUNTS = (1, 2, 60, 110, 4000, 4097, 5000)


def wordpiece(options: dict[str, Any], *added: str, **model: Any) -> dict[str, Any]:
    vocab = {word: number for number, word in enumerate(WORDS)}
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *added]
    return {
        "version": "1.0",
        "added_tokens": [
            {
                "id": number, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False, "special": True,
            }
            for number, token in enumerate(tokens)
        ],
        "normalizer": {"type": "BertNormalizer", **options},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab, **model,
        },
    }  # fmt: skip


def whole(settings: dict[str, Any], text: str, longest: int) -> list[int]:
    """The ids of the library itself, which sees the whole text."""
    library = tokenizers.Tokenizer.from_str(json.dumps(settings))
    ids: list[int] = library.encode(text).ids[:longest]
    return ids


@pytest.mark.parametrize("options", OPTIONS)
def test_solid_characters_stay_and_begin_no_word(options: dict[str, Any]) -> None:
    library = tokenizers.Tokenizer.from_str(json.dumps(wordpiece(options)))
    for ranges, least in ((SOLID, 1), (LOOSE, 0)):
        for code in (code for first, last in ranges for code in range(first, last + 1)):
            made = library.normalizer.normalize_str(f"x{chr(code)}y")
            assert len(made) >= 2 + least, hex(code)
            assert len(library.pre_tokenizer.pre_tokenize_str(made)) == 1, hex(code)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("longest", [16, 300])
def test_a_shortened_text_has_the_tokens_of_the_whole(options: dict[str, Any], longest: int) -> None:
    chance = random.Random(0)
    settings = wordpiece(options, "[x]", "<aaa>")
    tokenizer = Tokenizer(json.dumps(settings), "t", truncation=longest)
    long_words = LongWords(settings)
    pieces = [
        "a",
        "b",
        "ab ",
        "!",
        "中",
        "я",
        "é",
        "e\u0301",
        "\u0301",
        "😀",
        "👍\u200d",
        "\ufe0f",
        "[x]",
        "<aaa>",
        "\u1200",
    ]
    shortened = 0
    for _ in range(12):
        text = "".join(
            chance.choice(pieces) * chance.choice([1, 2, 60, 110, 4000, 4097, 5000])
            for _ in range(chance.randint(1, 12))
        )
        shortened += len(long_words.shortened(text)) < len(text)
        assert tokenizer.encode(text).ids == whole(settings, text, longest)
    assert shortened > 5


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"added": ["aa"]}, "a" * 9000),
        ({"added": ["abba"]}, "ab" * 9000),
        ({"normalizer": {"type": "Lowercase"}}, "a" * 9000),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "a" * 9000),
    ],
)
def test_where_a_long_word_may_be_known_it_stays(change: dict[str, Any], text: str) -> None:
    settings = wordpiece(OPTIONS[0], *change.pop("added", ())) | change
    assert LongWords(settings).shortened(text) == text


@pytest.mark.parametrize(
    "text",
    ["😀", "👍\u200d\ufe0f", "a", "é", "e\u0301", "\u0301", "я", "1", "한", "ab ", "中", " ", "\n", ".", "\u200d"],
    ids=ascii,
)
def test_a_million_characters_take_no_time(text: str) -> None:
    settings = wordpiece(OPTIONS[0])
    tokenizer = Tokenizer(json.dumps(settings), "t", truncation=128)
    begun = time.process_time()
    ids = tokenizer.encode(text * (1_000_000 // len(text))).ids
    assert time.process_time() - begun < SECONDS
    # Of fewer, which the library itself takes less than a second for.
    text = text * (50_000 // len(text))
    assert ids == tokenizer.encode(text).ids == whole(settings, text, 128)


@pytest.mark.parametrize(
    "text",
    ["\u1200" * 900_000, "\u1200" * 900_000 + " a b", "a b " * 80 + "\u1200" * 900_000],
    ids=["alone", "before", "behind"],
)
def test_what_cannot_be_cut_is_bounded(text: str) -> None:
    settings = wordpiece(OPTIONS[0])
    begun = time.process_time()
    with pytest.raises(InputError, match=rf"at most {MAX_UNCUT_CHARACTERS} between two"):
        Tokenizer(json.dumps(settings), "t", truncation=128).encode(text)
    assert time.process_time() - begun < SECONDS
    short = Tokenizer(json.dumps(settings), "t", truncation=16)
    if text.startswith("a b"):
        assert short.encode(text).ids == whole(settings, text, 16)
    assert short.encode("\u1200" * MAX_UNCUT_CHARACTERS).ids == [1]
