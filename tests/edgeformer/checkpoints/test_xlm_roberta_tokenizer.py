"""XLM-RoBERTa's tokenizer, which transformers builds anew from tokenizer.json: the ids that transformers gives."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import Tokenizer

from edgeformer.checkpoints.tokenizers import read_tokenizer
from edgeformer_runtime.errors import InputError

LIGATURES = zlib.decompress(
    base64.b64decode(
        "eNoV0lWUlgUUBdBvDSxSQiQkRUW6OwUkRbpBuofuFhiURkosunNokBrSoDuV7mboktr/WWu/nJf7cE8QMwiCDTGC6KiwIDIICyLSBqEMCdWxiUVc"
        "4hCfeCTgAxKRkA9JzEckIRlJSUFyUvIxqUlF6EQaPiEdn5Kez/mML8hAJjKShcxkIys5yE4ucpKH3OQjLwXITyEKUoTCFKMoJShOSb6kNKUow1eU"
        "oywVKM/XVOQbKlGFylSjKjWoTi1qUofa1KMuDajPtzSkMY1oShOa04yWtKA1rWhLG8JpRwfa04mOdKEz3ehKD7rTi570oTf96MsA+vMdAxnMICJC"
        "D+d7hjKMHxjBcEYxkjGM5kfGMp5xTGQCPzGJn5nMr/zC7/zGVKYwnWnMZAazmcVc5jCfeSxkAYtZxFKWsIxIVrCcVaxkDatZx1rW8wcbQxNnM5vY"
        "QhTb2MoOtvMnO/mbv9jFP+xhN/vYywH2c4iDHOEwxzjKCY5zipP8y2nO8B/nOMsFznOJi1zhMte4yg2uc4ub3OE297hLNPd5yAMe84inPOE5z3jJ"
        "C/7nFW94zTvehjYWHrwH3feEfQ=="
    )
)
"""A character map of SentencePiece with one rule: the ligature of f and i becomes both letters."""

LETTERS = [(letter, -4.0) for letter in "abcdefghijklmnopqrstuvwxyzABHW\u00fc,."]
WORDS = [("\u2581", -3.0), ("\u2581Hello", -5.0), ("\u2581w", -4.5), ("fine", -5.0), ("\u2581and", -5.0)]
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
TEXTS = ("", " ", "Hello  w\u00fcrld, \ufb01ne", "a <mask> b", "x<s>y \u6771\u4eac", "Hello\n\tand ")

METASPACE = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
SPACES = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
AT_START = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
}
NORMALIZER = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(LIGATURES).decode()}
MASK = {
    "__type": "AddedToken",
    "content": "<mask>",
    "lstrip": True,
    "rstrip": False,
    "normalized": True,
    "single_word": False,
}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "as_saved": ({}, {}),
    "no_words": ({"pre_tokenizer": METASPACE}, {}),
    "more_normalizers": ({"normalizer": {"type": "Sequence", "normalizers": [NORMALIZER, SPACES]}}, {}),
    "no_normalizer": ({"normalizer": None}, {}),
    "another_frame": ({"post_processor": AT_START}, {}),
    "no_frame": ({"post_processor": None}, {}),
    "another_unknown": ({"model": {"unk_id": 0}}, {}),
    "no_added_tokens": ({"added_tokens": []}, {}),
    "no_prefix_space": ({}, {"add_prefix_space": False}),
    "mask_swallows_space": ({}, {"mask_token": MASK}),
    "token_types": ({}, {"model_input_names": ["input_ids", "token_type_ids"]}),
}


def spec() -> dict[str, Any]:
    """As transformers saves it."""
    pieces = [*((token, 0.0) for token in SPECIAL), *WORDS, *LETTERS, ("<mask>", 0.0)]
    made = transformers.XLMRobertaTokenizer(vocab=pieces, _spm_precompiled_charsmap=LIGATURES)
    saved: dict[str, Any] = json.loads(made.backend_tokenizer.to_str())
    return saved


def write(folder: Path, changes: dict[str, Any], config: dict[str, Any]) -> None:
    content = spec()
    for part, change in changes.items():
        content[part] = {**content[part], **change} if part == "model" else change
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "XLMRobertaTokenizerFast", **config}))
    (folder / "config.json").write_text('{"model_type": "bert"}')


@pytest.mark.parametrize("name", CASES)
def test_ids_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    write(tmp_path, *CASES[name])
    expected = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(expected, transformers.XLMRobertaTokenizer)
    ours = Tokenizer.from_str(read_tokenizer(tmp_path) or "")
    for text in TEXTS:
        assert ours.encode(text).ids == expected(text)["input_ids"], text
        pair = ours.encode(text, "and \ufb01ne  too")
        assert pair.ids == expected(text, "and \ufb01ne  too")["input_ids"], text
        assert set(pair.type_ids) == {0}


def test_a_file_that_says_the_same_stays_as_it_is(tmp_path: Path) -> None:
    write(tmp_path, {}, {})
    written = json.loads((tmp_path / "tokenizer.json").read_text())
    assert json.loads(read_tokenizer(tmp_path) or "") == written


def too_few(content: dict[str, Any]) -> None:
    content["model"] = {**content["model"], "vocab": content["model"]["vocab"][:3], "unk_id": 0}
    content["added_tokens"] = content["added_tokens"][:3]
    content["post_processor"] = None


def from_the_left(content: dict[str, Any]) -> None:
    content["truncation"] = {"direction": "Left", "max_length": 8, "strategy": "LongestFirst", "stride": 0}


@pytest.mark.parametrize(
    ("edit", "config", "reason"),
    [
        (None, {"bos_token": None}, "bos_token must be a token, found null"),
        (too_few, {}, "a XLMRobertaTokenizer has more than 3 pieces"),
        (from_the_left, {}, "truncation cuts at the left"),
        (None, {"tokenizer_class": "OwnTokenizer"}, "OwnTokenizer has no reader here"),
        (None, {"tokenizer_class": "OwnTokenizer"}, "set tokenizer_class to PreTrainedTokenizerFast"),
    ],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path, edit: Callable[[dict[str, Any]], None] | None, config: dict[str, Any], reason: str
) -> None:
    write(tmp_path, {}, config)
    content = spec()
    if edit is not None:
        edit(content)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        read_tokenizer(tmp_path)
    assert reason in str(caught.value)
