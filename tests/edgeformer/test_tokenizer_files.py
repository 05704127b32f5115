"""Tokenizers read from checkpoints give the ids that transformers gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import Tokenizer

from edgeformer.tokenizer_files import read_tokenizer, vocabulary_size
from edgeformer_runtime.errors import InputError

TEXTS = [
    "",
    " ",
    "Turn the lights off, please!",
    "What's the weather like in Zürich — 3.14 %?",
    "naïve café ÀÉÎÕÜ e\u0301 ﬁ Ǆ ß \u0130 \u0131",
    "你好,世界 日本語テキスト 한국어",
    "שלום עולם مرحبا بالعالم",
    "ไทย हिन्दी தமிழ்",
    "😀👍🏽 👨‍👩‍👧‍👦 ©®™",
    "tab\there\nnew\r\nline \u00a0nbsp \u2003em \u200bzero \ufeffbom \x00nul \x07bell \ufffd",
    "[CLS] [MASK] not [SEP] special? [unused1] [PAD]",
    "supercalifragilisticexpialidocious " + "a" * 150,
    "snake_case-and/path\\back $5 €6 #tag @user ^~`|",
    "1️⃣ ½ ² ⅷ ①",
]

OPTIONS: dict[str, dict[str, Any]] = {
    "as_shipped": {},
    "cased": {"do_lower_case": False},
    "lower_keep_accents": {"do_lower_case": True, "strip_accents": False},
    "cased_strip_accents": {"do_lower_case": False, "strip_accents": True},
    "no_chinese_splitting": {"tokenize_chinese_chars": False},
    "mask_swallows_space": {"mask_token": {"content": "[MASK]", "lstrip": True, "rstrip": False, "normalized": False}},
}


@pytest.fixture
def minilm(assets: Path, tmp_path: Path) -> Path:
    for name in ("vocab.txt", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(assets / "minilm-l6-v2" / name, tmp_path)
    for path in tmp_path.iterdir():
        path.chmod(0o644)
    return tmp_path


def read(folder: Path) -> Tokenizer:
    text = read_tokenizer(folder)
    assert text is not None
    return Tokenizer.from_str(text)


@pytest.mark.parametrize("name", OPTIONS)
def test_vocabulary_file_equals_transformers(minilm: Path, name: str) -> None:
    path = minilm / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | OPTIONS[name]))
    expected = transformers.BertTokenizer.from_pretrained(minilm)
    ours = read(minilm)
    for text in TEXTS:
        assert ours.encode(text).ids == expected(text)["input_ids"], text
        pair = expected(text, "and a second text")
        encoding = ours.encode(text, "and a second text")
        assert (encoding.ids, encoding.type_ids) == (pair["input_ids"], pair["token_type_ids"]), text


def test_vocabulary_and_tokenizer_json_agree(assets: Path, minilm: Path) -> None:
    whole, built = read(assets / "minilm-l6-v2"), read(minilm)
    for text in TEXTS:
        assert whole.encode(text).ids == built.encode(text).ids, text
    assert vocabulary_size(whole.to_str()) == vocabulary_size(built.to_str()) == 30522


def test_neither_padding_nor_truncation_remains(assets: Path) -> None:
    text = read_tokenizer(assets / "minilm-l6-v2")
    assert text == read_tokenizer(assets / "minilm-l6-v2")
    encoding = Tokenizer.from_str(text or "").encode("word " * 300)
    assert len(encoding.ids) == 302


def test_no_tokenizer(tmp_path: Path) -> None:
    assert read_tokenizer(tmp_path) is None


def test_spoiled_files_are_refused(minilm: Path) -> None:
    (minilm / "tokenizer_config.json").write_text('{"do_lower_case": "yes"}')
    with pytest.raises(InputError, match="do_lower_case must be true, false or null"):
        read_tokenizer(minilm)
    (minilm / "tokenizer_config.json").write_text('{"cls_token": 3}')
    with pytest.raises(InputError, match="cls_token must be a string"):
        read_tokenizer(minilm)
    (minilm / "tokenizer_config.json").write_text('{"cls_token": "<s>"}')
    with pytest.raises(InputError, match="lacks the special tokens <s>"):
        read_tokenizer(minilm)
    (minilm / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8"):
        read_tokenizer(minilm)
    (minilm / "tokenizer.json").write_text('{"model": {}}')
    with pytest.raises(InputError, match=r"tokenizer\.json cannot be used"):
        read_tokenizer(minilm)
