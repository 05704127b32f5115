"""What goes wrong with a recipe: one line, and nothing is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeformer_runtime.errors import InputError
from tests.edgeformer.compress import tiny

pytestmark = pytest.mark.slow


def refused(match: str, source: Path, recipe: str, data: Path | str, out: Path, **options: Any) -> None:
    with pytest.raises(InputError, match=match) as raised:
        tiny.run(source, recipe, data, out, **options)
    assert "\n" not in str(raised.value)
    assert [path.name for path in out.parent.iterdir() if "out" in path.name] == []


def test_a_loss_that_is_no_number(place: Path, tmp_path: Path) -> None:
    recipe = tiny.FINETUNE.replace("2e-3", "9e5")
    refused(
        r"1-finetune: the loss is (nan|inf) after \d+ of 18 updates: expected a number; lower learning_rate",
        place / "student",
        recipe,
        place / "texts.json",
        tmp_path / "out",
    )


def test_a_teacher_of_another_task_or_other_labels(place: Path, tmp_path: Path) -> None:
    recipe, texts, out = tiny.LONG, place / "texts.json", tmp_path / "out"
    image = str(tiny.save_tinyvit(tmp_path / "image"))
    refused(
        "does image-classification and the student text-classification",
        place / "student",
        recipe,
        texts,
        out,
        teacher=image,
    )
    other = str(tiny.save_bert(tmp_path / "other", id2label={0: "a", 1: "b"}, label2id={"a": 0, "b": 1}))
    refused("have other labels", place / "student", recipe, texts, out, teacher=other)


def test_data_that_does_not_fit(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused("no data at", place / "student", tiny.LONG, tmp_path / "missing.json", out)
    (tmp_path / "foreign.json").write_text('[["turn", "music"]]')
    refused("has labels that the bundle does not know", place / "student", tiny.LONG, tmp_path / "foreign.json", out)
    refused("is a sentence embedder: expected a classifier", place / "bare", tiny.LONG, place / "texts.json", out)
    refused("there is nothing to resume", place / "student", tiny.LONG, place / "texts.json", out, resume=True)


def test_tokens_that_differ_cannot_be_compared_inside(place: Path, tmp_path: Path) -> None:
    """Another vocabulary splits words differently, so hidden states have no partner; answers alone still teach."""
    folder = tiny.save_bert(tmp_path / "teacher")
    spec = json.loads((folder / "tokenizer.json").read_text())
    spec["model"]["vocab"] = {
        token if token not in tiny.SENTENCES["lights"][0].split() else f"{token}_": number
        for token, number in spec["model"]["vocab"].items()
    }
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    options: dict[str, Any] = {"teacher": str(folder)}
    refused(
        "both need the same tokens", place / "student", tiny.LONG, place / "texts.json", tmp_path / "out", **options
    )
    recipe = tiny.LONG.replace(", hidden = 0.5", "").replace("epochs = 60", "epochs = 1")
    assert tiny.run(place / "student", recipe, place / "texts.json", tmp_path / "fine", **options).path.is_dir()
