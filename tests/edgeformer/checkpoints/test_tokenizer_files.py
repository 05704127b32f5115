"""Tokenizers read from checkpoints give the ids that transformers gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transformers
from checkpoint_factory import tokenizer, vocabulary
from tokenizers import Tokenizer

from edgeformer.checkpoints.tokenizers import read_tokenizer, vocabulary_size
from edgeformer.convert.bundle_writer import requirements, unread_by_phones
from edgeformer.tasks.task import TASKS
from edgeformer_runtime.bundle.manifest import Requirements
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


def _token(content: str, **flags: bool) -> dict[str, Any]:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"content": content, **plain, **flags}


SIZE = len(dict.fromkeys(vocabulary()))
DRUG = _token("[DRUG]", special=True)
CASED = {**json.loads(tokenizer().to_str())["normalizer"], "lowercase": False}
BERT, AS_FILE = {"tokenizer_class": "BertTokenizer"}, {"tokenizer_class": "PreTrainedTokenizerFast"}
NO_TYPES = {"model_input_names": ["input_ids", "attention_mask"]}
UNLISTED: dict[str, Any] = {"added_tokens": []}
DISAGREEING: dict[str, tuple[dict[str, Any] | None, dict[str, Any], dict[str, Any]]] = {
    "alike": (BERT, {}, {}),
    "cased_config": (BERT | {"do_lower_case": False}, {}, {}),
    "cased_file": (BERT, {"normalizer": CASED}, {}),
    "cased_file_alone": (None, {"normalizer": CASED}, {}),
    "fast_follows_its_file": (AS_FILE | {"do_lower_case": False}, {}, {}),
    "fast_without_frame": (AS_FILE, {"post_processor": None}, {}),
    "fast_with_types": (AS_FILE | {"model_input_names": ["input_ids", "token_type_ids"]}, {}, {}),
    "accents_and_chinese": (BERT | {"strip_accents": False, "tokenize_chinese_chars": False}, {}, {}),
    "no_types": (BERT | NO_TYPES, {}, {}),
    "distilbert": ({"tokenizer_class": "DistilBertTokenizer"}, {}, {}),
    "no_post_processor": (BERT, {"post_processor": None}, {}),
    "other_prefix": (BERT, {"model": {"continuing_subword_prefix": "@@", "max_input_chars_per_word": 3}}, {}),
    "added_in_file": (BERT, {"added_tokens": [{"id": SIZE, **DRUG}]}, {}),
    "added_in_both": (
        BERT | {"added_tokens_decoder": {str(SIZE): _token("covidtest", normalized=True)}},
        {"added_tokens": [{"id": SIZE, **DRUG}]},
        {},
    ),
    "added_tokens_json": (BERT, {}, {"added_tokens.json": {"covidtest": SIZE + 1, "[DRUG]": SIZE}}),
    "added_tokens_json_of_fast": (AS_FILE, {}, {"added_tokens.json": {"covidtest": SIZE + 1, "[DRUG]": SIZE}}),
    "additional_special": (BERT | {"additional_special_tokens": ["covidtest"]}, {}, {}),
    "additional_special_in_map": (BERT, {}, {"special_tokens_map.json": {"additional_special_tokens": ["covidtest"]}}),
    "extra_special": (
        AS_FILE | {"extra_special_tokens": ["covidtest"], "pad_token": "[PAD]"},
        {"added_tokens": []},
        {},
    ),
    "extra_special_by_name": (BERT | {"extra_special_tokens": {"drug_token": "[DRUG]"}}, {}, {}),
    "own_token": (BERT | {"drug_token": "[DRUG]"}, {}, {}),
    "map_wins": (BERT | {"cls_token": "[CLS]"}, {}, {"special_tokens_map.json": {"cls_token": "[MASK]"}}),
    "decoder_hides_map": (
        BERT | {"added_tokens_decoder": {str(SIZE): DRUG}},
        {},
        {"special_tokens_map.json": {"cls_token": "[MASK]"}},
    ),
    "never_split": (BERT | {"never_split": ["covidtest"], "do_basic_tokenize": False}, {}, {}),
}


def write_vocabulary(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(vocabulary())) + "\n")


FROM_VOCABULARY = [
    name
    for name, (config, changes, _) in DISAGREEING.items()
    if not changes and config is not None and config["tokenizer_class"] != AS_FILE["tokenizer_class"]
]
"""Those that say nothing of tokenizer.json."""


@pytest.mark.parametrize(
    ("name", "files"),
    [
        *((name, "tokenizer.json") for name in DISAGREEING),
        *((name, "vocab.txt") for name in FROM_VOCABULARY),
    ],
)
def test_files_that_disagree_give_what_transformers_gives(tmp_path: Path, name: str, files: str) -> None:
    config, changes, others = DISAGREEING[name]
    if files == "vocab.txt":
        write_vocabulary(tmp_path)
    else:
        spec = json.loads(tokenizer().to_str())
        for part, change in changes.items():
            spec[part] = {**spec[part], **change} if part == "model" else change
        (tmp_path / files).write_text(json.dumps(spec))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    for file, content in others.items():
        (tmp_path / file).write_text(json.dumps(content))
    expected, ours = transformers.AutoTokenizer.from_pretrained(tmp_path), read(tmp_path)
    for text in (*TEXTS[:6], "H\u00e9llo [DRUG] Berlin covidtest [SEP] [drug] covidtests \u6771\u4eac"):
        pair = expected(text, "and [MASK] a second Covidtest")
        encoding = ours.encode(text, "and [MASK] a second Covidtest")
        types = pair.get("token_type_ids", [0] * len(encoding.ids))
        assert (encoding.ids, encoding.type_ids) == (pair["input_ids"], types), text
        assert ours.encode(text).ids == expected(text)["input_ids"], text


@pytest.mark.parametrize(
    ("config", "files", "reason"),
    [
        ({"tokenizer_class": "BertJapaneseTokenizer"}, (), "a BertJapaneseTokenizer splits texts in Python"),
        ({"tokenizer_class": "XLMRobertaTokenizer"}, (), "needs tokenizer.json"),
        (BERT | {"auto_map": {"AutoTokenizer": ["own.Own", None]}}, (), "auto_map names the author's own class"),
        (
            BERT | {"added_tokens_decoder": {str(SIZE + 8): DRUG}},
            (),
            f"the id {SIZE + 8}, and the tokenizers library gives it {SIZE}",
        ),
        (BERT | {"cls_token": None}, (), "cls_token must be a token, found null"),
        (BERT, ("sentencepiece.bpe.model",), "sentencepiece.bpe.model is there, and no tokenizer.json"),
        (BERT, ("spiece.model",), "AutoTokenizer.from_pretrained"),
        (BERT, (), "tokenizer_config.json is there, and no tokenizer.json"),
    ],
)
def test_what_would_be_guessed_is_refused(
    tmp_path: Path, config: dict[str, Any], files: tuple[str, ...], reason: str
) -> None:
    if not reason.startswith(("sentencepiece", "Auto", "tokenizer_config")):
        write_vocabulary(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    for file in files:
        (tmp_path / file).write_bytes(b"x")
    with pytest.raises(InputError) as caught:
        read_tokenizer(tmp_path)
    assert reason in str(caught.value)


def test_one_token_type(minilm: Path) -> None:
    text = read_tokenizer(minilm, token_types=1)
    assert set(Tokenizer.from_str(text or "").encode("a", "b").type_ids) == {0}


@pytest.mark.parametrize("ending", ["\r\n", "\n", "\n\n", "\n\n\n"])
def test_vocabularies_of_other_editors(minilm: Path, ending: str) -> None:
    """Windows' line ends, and blank lines at the end, which are no tokens."""
    expected = read_tokenizer(minilm)
    lines = (minilm / "vocab.txt").read_text(encoding="utf-8").split("\n")
    body = (ending[:2] if "\r" in ending else "\n").join(lines).rstrip()
    (minilm / "vocab.txt").write_bytes((body + ending).encode())
    assert read_tokenizer(minilm) == expected


def test_no_tokenizer(tmp_path: Path) -> None:
    assert read_tokenizer(tmp_path) is None


def test_corrupted_files_are_refused(minilm: Path) -> None:
    (minilm / "special_tokens_map.json").unlink()
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
    with pytest.raises(InputError, match="expected UTF-8 text"):
        read_tokenizer(minilm)
    (minilm / "tokenizer.json").write_text('{"model": {}}')
    with pytest.raises(InputError, match=r"tokenizer\.json cannot be used"):
        read_tokenizer(minilm)


GOLDEN = Path(__file__).parents[2] / "golden" / "tokenizers.json"


def _changed(name: str, **parts: Any) -> str:
    """A golden tokenizer's file with other parts."""
    return json.dumps(json.loads(json.loads(GOLDEN.read_text())["tokenizers"][name]) | parts)


def test_what_phones_read_of_tokenizers_of_every_kind() -> None:
    for name, text in json.loads(GOLDEN.read_text())["tokenizers"].items():
        assert unread_by_phones(text) is None, name


@pytest.mark.parametrize(
    ("parts", "unread"),
    [
        ({"normalizer": {"type": "Nmt"}}, "normalizer: Nmt"),
        ({"pre_tokenizer": {"type": "UnicodeScripts"}}, "pre_tokenizer: UnicodeScripts"),
        ({"pre_tokenizer": None}, None),
        ({"model": {"type": "WordLevel", "vocab": {}}}, "model: WordLevel"),
        ({"model": {"type": "Unigram", "vocab": []}}, "model: unk_id: null"),
        (
            {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": r"\d+"}, "behavior": "Isolated", "invert": False}},
            "pattern: '\\\\d+'",
        ),
    ],
)
def test_what_phones_do_not_read(parts: dict[str, Any], unread: str | None) -> None:
    assert unread_by_phones(_changed("xlm-roberta", **({"normalizer": None} | parts))) == unread


def test_requires_says_which_phones_read_the_tokenizer() -> None:
    converter: Any = SimpleNamespace(requires=Requirements(runtime="0.1.0", ios="15.0", android_api=23))
    preprocessing = SimpleNamespace(tokenizer="tokenizer.json")
    task = TASKS["text-classification"]

    def spec(text: str) -> Any:
        return SimpleNamespace(task=task, preprocessing=preprocessing, assets={"tokenizer.json": text.encode()})

    needed, warning = requirements(converter, spec(_changed("xlm-roberta", normalizer={"type": "Nmt"})))
    assert (needed.runtime, needed.ios, needed.android_api) == ("0.1.0", None, None)
    assert warning == "no app can read this tokenizer (normalizer: Nmt): requires says null"
    whole = _changed("xlm-roberta")
    assert requirements(converter, spec(whole)) == (converter.requires, None)
    bert = json.loads((Path(__file__).parents[2] / "golden" / "wordpiece.json").read_text())["tokenizers"]["uncased"]
    assert requirements(converter, spec(bert)) == (converter.requires, None)
    no_text: Any = SimpleNamespace(task=task, preprocessing=object())
    assert requirements(converter, no_text) == (converter.requires, None)
    no_text.task = TASKS["text-generation"]
    needed, warning = requirements(converter, no_text)
    assert (needed.ios, needed.android_api) == (None, None)
    assert warning == "no app does text-generation yet: requires says null"
