"""Fields of a folder's files, one changed at a time: the checkpoint that is read differs, or a line says why not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from checkpoint_factory import save_whisper, tokenizer

from edgeformer.checkpoints.checkpoint import Checkpoint, open_checkpoint
from edgeformer.checkpoints.fields import (
    GENERATION_FIELDS,
    HONOURED,
    POOLING_FIELDS,
    SENTENCE_FIELDS,
    TOKENIZER_FIELDS,
    TRANSFORMER_FIELDS,
)
from edgeformer_runtime.errors import InputError


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers folder with everything in it."""
    folder = tmp_path_factory.mktemp("embedder") / "st"
    torch.manual_seed(0)
    made = tokenizer()
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.BertConfig(vocab_size=made.get_vocab_size() + 4, max_position_embeddings=64, **sizes)
    transformers.BertModel(config).save_pretrained(folder)
    made.save(str(folder / "tokenizer.json"))
    types = ["", "1_Pooling", "2_Normalize"]
    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [{"path": path, "type": f"sentence_transformers.{kind}"} for path, kind in zip(types, kinds, strict=True)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    for file, content in (
        ("tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": False}),
        ("sentence_bert_config.json", {"max_seq_length": 40}),
        ("config_sentence_transformers.json", {"prompts": {"query": "turn: ", "odd": "odd"}}),
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": True}),
    ):
        (folder / file).write_text(json.dumps(content))
    return folder


UNKNOWN = "a_field_of_tomorrow"
TEXT_FILES = (
    "config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "modules.json",
    "1_Pooling/config.json",
    "2_Normalize/config.json",
)
SPEECH_FILES = ("config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json")


def add_unknown(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    content = json.loads(path.read_text()) if path.is_file() else {}
    inner = content[0] if isinstance(content, list) else content
    if path.name == "processor_config.json":
        inner = content["feature_extractor"] = {}
    inner[UNKNOWN] = 1
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("file", TEXT_FILES)
def test_an_unknown_field_of_a_texts_file_is_noted(embedder: Path, tmp_path: Path, file: str) -> None:
    folder = Path(shutil.copytree(embedder, tmp_path / "st"))
    assert not any(UNKNOWN in note for note in open_checkpoint(folder).notes)
    add_unknown(folder / file)
    (note,) = (note for note in open_checkpoint(folder).notes if UNKNOWN in note)
    assert note.startswith(f"{Path(file).name} has fields that are not known here")


@pytest.mark.parametrize("file", SPEECH_FILES)
def test_an_unknown_field_of_speechs_file_is_noted(tmp_path: Path, file: str) -> None:
    folder = save_whisper(tmp_path / "whisper")
    add_unknown(folder / file)
    assert [note for note in open_checkpoint(folder).notes if note.startswith(file) and UNKNOWN in note]


def test_a_pooling_in_any_folder_is_walked(embedder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(embedder, tmp_path / "st"))
    (folder / "1_Pooling").rename(folder / "pool")
    path = folder / "modules.json"
    path.write_text(path.read_text().replace("1_Pooling", "pool"))
    add_unknown(folder / "pool" / "config.json")
    assert any(UNKNOWN in note for note in open_checkpoint(folder).notes)


def all_of(checkpoint: Checkpoint) -> tuple[Any, ...]:
    """What a bundle takes from a checkpoint."""
    head = (checkpoint.head, checkpoint.longest, checkpoint.task, checkpoint.pad_token_id)
    return (*head, checkpoint.tokenizer_json, checkpoint.config, checkpoint.speech, checkpoint.notes)


FIELDS = {
    "tokenizer_config.json": TOKENIZER_FIELDS,
    "config_sentence_transformers.json": SENTENCE_FIELDS,
    "sentence_bert_config.json": TRANSFORMER_FIELDS,
    "1_Pooling/config.json": POOLING_FIELDS,
}
FILE_SAMPLES: dict[str, dict[str, Any]] = {
    "tokenizer_config.json": {
        "bos_token": "<b>",
        "eos_token": "<e>",
        "unk_token": "[MASK]",
        "sep_token": "[MASK]",
        "pad_token": "<p>",
        "cls_token": "[MASK]",
        "mask_token": "<m>",
        "tokenizer_class": "BertJapaneseTokenizer",
        "do_lower_case": True,
        "strip_accents": True,
        "tokenize_chinese_chars": False,
        "extra_special_tokens": ["<x>"],
        "additional_special_tokens": ["<x>"],
        "model_input_names": ["input_ids"],
        "auto_map": {"AutoTokenizer": ["a.B", None]},
        "added_tokens_decoder": {"119": {"content": "<x>", "special": True}},
    },
    "config_sentence_transformers.json": {
        "model_type": "SparseEncoder",
        "default_prompt_name": "query",
        "prompts": {"other": "on "},
    },
    "sentence_bert_config.json": {
        "max_seq_length": 20,
        "do_lower_case": True,
        "transformer_task": "sequence-classification",
    },
    "1_Pooling/config.json": {
        "pooling_mode": "cls",
        "pooling_mode_cls_token": True,
        "pooling_mode_max_tokens": True,
        "pooling_mode_mean_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": True,
        "pooling_mode_weightedmean_tokens": True,
        "pooling_mode_lasttoken": True,
    },
}
WITHOUT_EFFECT_ALONE = {
    *("pooling_mode_mean_tokens", "include_prompt", "model_max_length", "max_len"),
    "add_prefix_space",
}
"""Mean is what no mode at all is; the others are set with what they need below and in test_xlm_roberta_tokenizer.py."""


@pytest.mark.parametrize("file", FILE_SAMPLES)
def test_honoured_fields_change_the_bundle_or_are_refused(embedder: Path, tmp_path: Path, file: str) -> None:
    folder = Path(shutil.copytree(embedder, tmp_path / "st"))
    before = json.loads((folder / file).read_text())
    plain = all_of(open_checkpoint(str(folder)))
    honoured = {name for name, field in FIELDS[file].items() if field.treatment == HONOURED}
    assert honoured <= set(FILE_SAMPLES[file]) | WITHOUT_EFFECT_ALONE
    for name, value in FILE_SAMPLES[file].items():
        (folder / file).write_text(json.dumps({**before, name: value}))
        try:
            changed = all_of(open_checkpoint(str(folder)))
        except InputError as error:
            assert "\n" not in str(error)
            continue
        assert changed != plain or name in WITHOUT_EFFECT_ALONE, name


def test_length_is_the_transformers_then_the_tokenizers(embedder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(embedder, tmp_path / "st"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    for name in ("model_max_length", "max_len"):
        (folder / "tokenizer_config.json").write_text(json.dumps({**config, name: 24}))
        assert open_checkpoint(str(folder)).longest == 40
        (folder / "sentence_bert_config.json").unlink()
        assert open_checkpoint(str(folder)).longest == 24
        (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 40}')
    (folder / "sentence_bert_config.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 10**30}))
    assert open_checkpoint(str(folder)).longest is None


GENERATION_SAMPLES: dict[str, Any] = {
    "language": "de",
    "task": "translate",
    "suppress_tokens": [3],
    "begin_suppress_tokens": [3],
    "alignment_heads": [[0, 0]],
    "lang_to_id": {"<|xx|>": 3},
    "no_timestamps_token_id": 3,
    "decoder_start_token_id": 3,
    "eos_token_id": 3,
    "is_multilingual": False,
    "max_initial_timestamp_index": 3,
    "prev_sot_token_id": 5,
    "task_to_id": {"transcribe": 5},
}


def test_honoured_fields_of_generation_change_the_bundle_or_are_refused(tmp_path: Path) -> None:
    folder = save_whisper(tmp_path / "whisper")
    path = folder / "generation_config.json"
    before = json.loads(path.read_text())
    plain = all_of(open_checkpoint(str(folder)))
    honoured = {name for name, field in GENERATION_FIELDS.items() if field.treatment == HONOURED}
    assert honoured == {*GENERATION_SAMPLES, "forced_decoder_ids"}
    for name, value in GENERATION_SAMPLES.items():
        path.write_text(json.dumps({**before, name: value}))
        try:
            assert all_of(open_checkpoint(str(folder))) != plain, name
        except InputError as error:
            assert name in str(error) or str(value) in str(error), (name, str(error))
