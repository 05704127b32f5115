"""Cross-encoders as sentence-transformers saves them: classifiers, and scores where there is one label."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from bert_checkpoints import edit_config, save_bert

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer_runtime.errors import InputError

TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"


def write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """By number of labels, as version 6 saves it."""
    found = {}
    for count in (1, 3):
        found[count] = save_bert(tmp_path_factory.mktemp("cross") / str(count), num_labels=count)
        write(found[count] / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": TRANSFORMER}])
    return found


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config_sentence_transformers.json", {"model_type": "CrossEncoder", "activation_fn": None}),
        ("sentence_bert_config.json", {"transformer_task": "sequence-classification", "module_output_name": "scores"}),
        ("config_sentence_transformers.json", {}),
    ],
)
def test_a_cross_encoder_is_a_classifier(
    cross_encoder: dict[int, Path], tmp_path: Path, file: str, content: Any
) -> None:
    folder = Path(shutil.copytree(cross_encoder[3], tmp_path / "cross"))
    write(folder / file, content)
    checkpoint = open_checkpoint(str(folder))
    assert (checkpoint.task, len(checkpoint.labels)) == ("text-classification", 3)
    load_module(checkpoint, KERNELS["dense"])


def test_a_cross_encoders_default_prompt_must_be_decided(cross_encoder: dict[int, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(cross_encoder[3], tmp_path / "cross"))
    prompts = {"prompts": {"query": "turn: "}, "default_prompt_name": "query", "model_type": "CrossEncoder"}
    write(folder / "config_sentence_transformers.json", prompts)
    with pytest.raises(InputError, match=r"predict\(\) puts the prompt 'turn: ' before each text.*say --prompt none"):
        open_checkpoint(folder)
    (note,) = open_checkpoint(folder, prompt="none").notes
    assert "no tokenizer" in note


@pytest.mark.parametrize(
    ("stated", "activation"),
    [
        ({}, "sigmoid"),
        ({"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, "none"),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"}, "sigmoid"),
        ({"problem_type": "regression"}, "none"),
    ],
)
def test_a_cross_encoder_of_one_label_gives_a_score(
    cross_encoder: dict[int, Path], tmp_path: Path, stated: dict[str, Any], activation: str
) -> None:
    folder = Path(shutil.copytree(cross_encoder[1], tmp_path / "cross"))
    edit_config(folder, **stated)
    checkpoint = open_checkpoint(str(folder))
    assert (checkpoint.task, checkpoint.activation) == ("text-scoring", activation)
    load_module(checkpoint, KERNELS["dense"])
    with pytest.raises(
        InputError, match=r"one label, so it is a regression or a reranker.*leave --task out for text-s"
    ):
        open_checkpoint(str(folder), task="text-classification")


def test_a_score_is_one(cross_encoder: dict[int, Path]) -> None:
    with pytest.raises(InputError, match="text-scoring gives one score, and the checkpoint has 3 labels"):
        open_checkpoint(str(cross_encoder[3]), task="text-scoring")


def test_an_unknown_activation_of_a_score_is_refused(cross_encoder: dict[int, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(cross_encoder[1], tmp_path / "cross"))
    edit_config(folder, sentence_transformers={"activation_fn": "torch.nn.Softplus"})
    with pytest.raises(InputError, match="activation_fn must be one of Sigmoid, Identity, found"):
        open_checkpoint(str(folder))
