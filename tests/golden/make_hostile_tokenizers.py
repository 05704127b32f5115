"""Writes hostile_tokenizers.json: tokenizer files that ask for time or memory without bound, and sound ones beside."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from tests.golden.golden_files import document

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_SOUND: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [
        {
            "id": number, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True,
        }
        for number, token in enumerate(_SPECIAL)
    ],
    "normalizer": {
        "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
        "lowercase": True,
    },
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
        ],
        "pair": [
            {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "[SEP]", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}},
            {"SpecialToken": {"id": "[SEP]", "type_id": 1}},
        ],
        "special_tokens": {
            token: {"id": token, "ids": [number], "tokens": [token]}
            for number, token in enumerate(_SPECIAL) if number > 1
        },
    },
    "decoder": None,
    "model": {
        "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
        "vocab": {token: number for number, token in enumerate((*_SPECIAL, "a", "##a"))},
    },
}  # fmt: skip


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": [*steps]}


def _nested(depth: int) -> dict[str, Any]:
    step: dict[str, Any] = {"type": "Lowercase"}
    for _ in range(depth):
        step = _sequence(step)
    return step


_A = {"Sequence": {"id": "A", "type_id": 0}}
_B = {"Sequence": {"id": "B", "type_id": 1}}
_CLS = {"SpecialToken": {"id": "[CLS]", "type_id": 0}}
_CHANGES: tuple[tuple[str, str, Any], ...] = (
    ("words of 201 characters", "model.max_input_chars_per_word", 201),
    ("words of a billion characters", "model.max_input_chars_per_word", 10**9),
    ("words of a number that no integer holds", "model.max_input_chars_per_word", 10**30),
    ("a prefix of 65 characters", "model.continuing_subword_prefix", "#" * 65),
    ("a piece of 1025 characters", "model.vocab.+", ("b" * 1025, 6)),
    ("an added token of 1025 characters", "added_tokens.0.content", "b" * 1025),
    ("added tokens as a number", "added_tokens", 10**6),
    ("a text twice", "post_processor.single", [_A, _A]),
    ("a text 32 times", "post_processor.single", [_A] * 32),
    ("no text", "post_processor.single", [_CLS]),
    ("a pair's second text first", "post_processor.pair", [_B, _A]),
    ("a pair without its second text", "post_processor.pair", [_A]),
    ("33 parts", "post_processor.single", [_A, *[_CLS] * 32]),
    ("33 ids for one token", "post_processor.special_tokens.[CLS].ids", [2] * 33),
    ("a normalizer's pattern that goes back", "normalizer", _replace({"Regex": "(a+)+b"}, "")),
    ("a normalizer's pattern that matches nothing", "normalizer", _replace({"Regex": "a*"}, "b")),
    ("forty doublings", "normalizer", _sequence(*[_replace({"String": "a"}, "aa")] * 40)),
    ("four doublings", "normalizer", _sequence(*[_replace({"String": "a"}, "aa")] * 4)),
    ("one replacement of a megabyte's kind", "normalizer", _replace({"String": "a"}, "a" * 4096)),
    ("sequences in sequences", "normalizer", _nested(40)),
    ("a thousand steps", "normalizer", _sequence(*[{"type": "Lowercase"}] * 1000)),
    ("a pre-tokenizer's pattern that goes back", "pre_tokenizer", {
        "type": "Split", "pattern": {"Regex": "(?:a|aa)+$"}, "behavior": "Isolated", "invert": False}),
    ("a pre-tokenizer that is not known", "pre_tokenizer", {"type": "Doubling"}),
    ("a model that is not known", "model.type", "Doubling"),
    ("no model", "model", None),
)  # fmt: skip


def files() -> dict[str, bytes]:
    """The golden file."""
    return {"hostile_tokenizers.json": document("make_hostile_tokenizers.py", list(_cases()))}


def _cases() -> Iterator[dict[str, Any]]:
    yield {"name": "sound", "file": json.dumps(_SOUND), "error": None}
    sound = (
        ("words of 200 characters", "model.max_input_chars_per_word", 200),
        ("a prefix of 64 characters", "model.continuing_subword_prefix", "#" * 64),
        ("a piece of 1024 characters", "model.vocab.+", ("b" * 1024, 6)),
    )
    for error, changes in ((None, sound), ("BundleError", _CHANGES)):
        for name, path, value in changes:
            yield {"name": name, "file": json.dumps(_changed(path, value)), "error": error}
    yield {"name": "an object with a key twice", "file": '{"model": {}, "model": {}}', "error": "BundleError"}
    yield {"name": "a list", "file": "[]", "error": "BundleError"}
    yield {"name": "lists in lists", "file": "[" * 10_000, "error": "BundleError"}
    yield {"name": "NULs", "file": "\0" * 1000, "error": "BundleError"}


def _changed(path: str, value: Any) -> dict[str, Any]:
    """The sound file with another value at a path of keys; "+" adds a key with its value."""
    made = copy.deepcopy(_SOUND)
    *keys, last = path.split(".")
    place: Any = made
    for key in keys:
        place = place[int(key) if isinstance(place, list) else key]
    if last == "+":
        place[value[0]] = value[1]
    else:
        place[last] = value
    return made
