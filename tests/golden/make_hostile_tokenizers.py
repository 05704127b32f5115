"""Writes hostile_tokenizers.json: tokenizer files that ask for time or memory without bound, and sound ones beside."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from tests.golden.golden_files import document

_SOUND: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": {
        "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
        "lowercase": True,
    },
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": None,
    "decoder": None,
    "model": {
        "type": "WordPiece", "unk_token": "?", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
        "vocab": {"?": 0, "a": 1},
    },
}  # fmt: skip
_A = {"Sequence": {"id": "A", "type_id": 0}}
_B = {"Sequence": {"id": "B", "type_id": 1}}
_CLS = {"SpecialToken": {"id": "?", "type_id": 0}}
_TOKEN = {
    "id": 0, "content": "?", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
    "special": True,
}  # fmt: skip


def _template(single: list[Any] | None = None, pair: list[Any] | None = None, ids: int = 1) -> dict[str, Any]:
    return {
        "type": "TemplateProcessing",
        "single": [_A] if single is None else single,
        "pair": [_A, _B] if pair is None else pair,
        "special_tokens": {"?": {"id": "?", "ids": [0] * ids, "tokens": ["?"] * ids}},
    }


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": [*steps]}


def _nested(depth: int) -> dict[str, Any]:
    step: dict[str, Any] = {"type": "Lowercase"}
    for _ in range(depth):
        step = _sequence(step)
    return step


_CHANGES: tuple[tuple[str, str, Any], ...] = (
    ("words of 201 characters", "model.max_input_chars_per_word", 201),
    ("words of a billion characters", "model.max_input_chars_per_word", 10**9),
    ("words of a number that no integer holds", "model.max_input_chars_per_word", 10**30),
    ("a prefix of 65 characters", "model.continuing_subword_prefix", "#" * 65),
    ("a piece of 1025 characters", "model.vocab.+", ("b" * 1025, 2)),
    ("an added token of 1025 characters", "added_tokens", [{**_TOKEN, "content": "b" * 1025}]),
    ("added tokens as a number", "added_tokens", 10**6),
    ("a text twice", "post_processor", _template([_A, _A])),
    ("no text", "post_processor", _template([_CLS])),
    ("a pair's second text first", "post_processor", _template(pair=[_B, _A])),
    ("a pair without its second text", "post_processor", _template(pair=[_A])),
    ("a third type of tokens", "post_processor", _template([{"Sequence": {"id": "A", "type_id": 2}}])),
    ("a special token of type 1000", "post_processor", _template([{"SpecialToken": {"id": "?", "type_id": 1000}}, _A])),
    ("33 parts", "post_processor", _template([_A, *[_CLS] * 32])),
    ("33 ids for one token", "post_processor", _template(ids=33)),
    ("a normalizer's pattern that goes back", "normalizer", _replace({"Regex": "(a+)+b"}, "")),
    ("a normalizer's pattern that matches nothing", "normalizer", _replace({"Regex": "a*"}, "b")),
    ("ten doublings", "normalizer", _sequence(*[_replace({"String": "a"}, "aa")] * 10)),
    ("four doublings", "normalizer", _sequence(*[_replace({"String": "a"}, "aa")] * 4)),
    ("one replacement a hundred times as long", "normalizer", _replace({"String": "a"}, "a" * 100)),
    ("sequences in sequences", "normalizer", _nested(33)),
    ("33 steps", "normalizer", _sequence(*[{"type": "Lowercase"}] * 33)),
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
    yield {"name": "sound", "file": _text(_SOUND), "error": None}
    sound = (
        ("words of 200 characters", "model.max_input_chars_per_word", 200),
        ("a prefix of 64 characters", "model.continuing_subword_prefix", "#" * 64),
        ("a piece of 1024 characters", "model.vocab.+", ("b" * 1024, 2)),
    )
    for error, changes in ((None, sound), ("BundleError", _CHANGES)):
        for name, path, value in changes:
            yield {"name": name, "file": _text(_changed(path, value)), "error": error}
    yield {"name": "an object with a key twice", "file": '{"model": {}, "model": {}}', "error": "BundleError"}
    yield {"name": "a list", "file": "[]", "error": "BundleError"}
    yield {"name": "lists in lists", "file": "[" * 100, "error": "BundleError"}
    yield {"name": "NULs", "file": "\0" * 20, "error": "BundleError"}


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


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
