"""The parts that train the zoo's intent classifier, and one small training from end to end."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer

from edgeformer.compress.augment import variant, word_neighbours
from edgeformer.compress.corpus import encode, shuffled_rows
from edgeformer.compress.recipe import Training
from edgeformer.compress.student import SPECIAL_TOKENS, shrink_tokenizer
from edgeformer_runtime.errors import InputError
from tests.checkpoint_factory import tokenizer
from tools.zoo import train_clinc150 as script
from tools.zoo.clinc150_data import load_clinc150

SENTENCES = {
    "lights": [
        "turn the lights off",
        "turn on the lights in the living room",
        "lights off please",
        "turn the lights on",
    ],
    "weather": ["what is the weather like", "weather please", "what is the weather like in room", "is the weather on"],
    "call": ["call my bank", "please call the bank", "remind me to call about my bank", "call me"],
}


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    rows = [[text, intent] for intent, texts in SENTENCES.items() for text in texts]
    path = tmp_path / "data_small.json"
    path.write_text(json.dumps({"train": rows, "val": rows[:6], "test": rows[2:], "oos_test": [["x", "oos"]]}))
    return path


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    folder = tmp_path / "teacher"
    config = transformers.BertConfig(
        vocab_size=tokenizer().get_vocab_size(),
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    transformers.BertModel(config).save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def test_data(data_file: Path) -> None:
    data = load_clinc150(data_file)
    assert data.intents == ("call", "lights", "weather")
    assert data.train.texts[0] == "turn the lights off"
    assert data.train.labels[0] == 1
    assert (len(data.train.texts), len(data.val.texts), len(data.test.texts)) == (12, 6, 10)


def test_real_data_has_150_intents(assets: Path) -> None:
    data = load_clinc150(assets / "text" / "clinc150" / "data_small.json")
    assert len(data.intents) == 150
    assert "oos" not in data.intents
    assert (len(data.train.texts), len(data.val.texts), len(data.test.texts)) == (7500, 3000, 4500)


@pytest.mark.parametrize("content", ["", "[]", '{"train": []}', '{"train": [[1]], "val": [], "test": []}'])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "data.json"
    path.write_text(content)
    with pytest.raises(InputError, match="not a CLINC150 data file"):
        load_clinc150(path)
    with pytest.raises(InputError, match="cannot read"):
        load_clinc150(tmp_path / "absent.json")


def test_small_vocabulary_keeps_what_the_texts_need(assets: Path) -> None:
    whole = (assets / "minilm-l6-v2" / "tokenizer.json").read_text()
    texts = ["Turn the thermostat down", "antidisestablishmentarianism"]
    small_json, old_ids = shrink_tokenizer(whole, texts, 2500)
    small, large = Tokenizer.from_str(small_json), Tokenizer.from_str(whole)
    large.no_padding()
    large.no_truncation()
    assert small.get_vocab_size() == len(old_ids) == 2500
    assert [small.id_to_token(new) for new in range(2500)] == [large.id_to_token(old) for old in old_ids]
    assert [small.id_to_token(i) for i in range(5)] == list(SPECIAL_TOKENS)
    for text in texts:
        assert small.encode(text, text).tokens == large.encode(text, text).tokens
    # Anything in characters that the vocabulary has is spelt out, not unknown.
    assert "[UNK]" not in small.encode("zyzzyva qwrtpsdf 42!").tokens


def test_variants_are_reproducible_and_never_empty() -> None:
    neighbours = {"turn": ["switch"], "lights": ["lamps", "light"]}
    texts = [text for group in SENTENCES.values() for text in group]

    def make(seed: int) -> list[str]:
        rng = random.Random(seed)
        return [variant(text, rng.choice(texts), neighbours, rng) for text in texts for _ in range(50)]

    assert make(0) == make(0) != make(1)
    assert all(make(0))
    assert any("switch" in text for text in make(0))


def test_neighbours_are_the_nearest_words() -> None:
    made = tokenizer()
    embeddings = torch.eye(made.get_vocab_size())
    embeddings[made.token_to_id("lights")] = embeddings[made.token_to_id("bank")] + 0.1
    neighbours = word_neighbours(["turn the lights", "call my bank", "xylophone"], made, embeddings)
    assert neighbours["lights"][0] == "bank"
    assert "xylophone" not in neighbours


def test_batches_cover_every_row_once() -> None:
    texts = [" ".join(["turn"] * (1 + i % 7)) for i in range(100)]
    data = encode(tokenizer(), texts, 6)
    assert data.ids.shape == (100, 6)
    assert set(data.ids[data.lengths == 6][:, 5].tolist()) == {tokenizer().token_to_id("[SEP]")}
    torch.manual_seed(0)
    batches = shuffled_rows(data.lengths, 8)
    assert sorted(torch.cat(batches).tolist()) == list(range(100))
    for rows in batches:
        input_ids, attention_mask, _ = data.inputs(rows)
        assert input_ids.shape[1] == attention_mask.sum(1).max()
        assert (input_ids[attention_mask == 0] == 0).all()
    lengths = script.predict(lambda inputs: inputs[1].sum(1, keepdim=True), data, batch_size=16)[:, 0]
    assert torch.equal(lengths, data.lengths)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same training, smaller."""
    sizes: dict[str, Any] = {
        "vocab_size": 60,
        "embedding_size": 8,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "intra_bottleneck_size": 8,
        "intermediate_size": 16,
        "num_attention_heads": 2,
    }
    monkeypatch.setattr(script, "VOCAB_SIZE", 60)
    monkeypatch.setattr(script, "ARCHITECTURE", script.ARCHITECTURE | sizes)
    monkeypatch.setattr(
        script, "STUDENT_TRAINING", Training(epochs=2, batch_size=16, learning_rate=1e-3, schedule="cosine")
    )


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_training_from_end_to_end(
    data_file: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(data_file), "--teacher", str(teacher)]
    threads = torch.get_num_threads()
    try:
        for name in ("first", "second"):
            assert script.main([*arguments, "--out", str(tmp_path / name)]) == 0
        printed = capsys.readouterr().out
        assert script.main(["--data", str(data_file), "--evaluate", str(tmp_path / "first")]) == 0
    finally:
        torch.set_num_threads(threads)
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.endswith("on 10 in-scope sentences")
    assert line in printed
    files = {path.name for path in (tmp_path / "first").iterdir()}
    assert files == {"config.json", "model.safetensors", "tokenizer.json", "README.md"}
    hashes = [
        hashlib.sha256((tmp_path / name / "model.safetensors").read_bytes()).hexdigest() for name in ("first", "second")
    ]
    assert hashes[0] == hashes[1]
    assert "Larson" in (tmp_path / "first" / "README.md").read_text()
    assert not list(tmp_path.glob(".first*"))


def test_bad_arguments_are_one_line(data_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--data", str(data_file)]) == 2
    assert script.main(["--data", str(data_file), "--teacher", "x", "--out", str(tmp_path)]) == 2
    assert script.main(["--data", str(tmp_path / "absent"), "--evaluate", "x"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "training needs --teacher and --out" in lines[0]
    assert "exists" in lines[1]
