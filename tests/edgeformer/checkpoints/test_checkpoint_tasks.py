"""What a checkpoint is for: its task, by its files or as asked, and its labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer.checkpoints.task import HEADS_OF_NO_TASK
from edgeformer_runtime.errors import InputError
from tests.edgeformer.checkpoints.bert_checkpoints import edit_config, edit_weights, message


@pytest.mark.parametrize(
    ("architectures", "task"),
    [
        (["BertForSequenceClassification"], "text-classification"),
        (["BertModel"], "text-embedding"),
        (["BertForTokenClassification"], "token-classification"),
        (["BertForQuestionAnswering"], "question-answering"),
        (None, "text-classification"),
    ],
)
def test_task_follows_architecture_and_weights(bert: Path, architectures: object, task: str) -> None:
    edit_config(bert, architectures=architectures)
    assert open_checkpoint(str(bert)).task == task


def test_task_without_architecture_and_classifier_is_embedding(bert: Path) -> None:
    edit_config(bert, architectures=None)
    edit_weights(bert, lambda state: [state.pop(f"classifier.{part}") for part in ("weight", "bias")] and None)
    assert open_checkpoint(str(bert)).task == "text-embedding"


def test_a_head_of_questions_among_the_weights_is_found(bert: Path) -> None:
    edit_config(bert, architectures=None)

    def moved(state: dict) -> None:
        for part in ("weight", "bias"):
            state[f"qa_outputs.{part}"] = state.pop(f"classifier.{part}")[:2]

    edit_weights(bert, moved)
    assert open_checkpoint(str(bert)).task == "question-answering"


def test_a_task_that_the_head_is_not_for_is_refused(bert: Path) -> None:
    edit_config(bert, architectures=["BertForTokenClassification"])
    for task in ("text-classification", "question-answering"):
        text = message(bert, task=task)
        assert f"a BertForTokenClassification does token-classification and has no head for {task}" in text
    assert open_checkpoint(str(bert), task="token-classification").labels
    assert open_checkpoint(str(bert), task="text-embedding").task == "text-embedding"
    edit_config(bert, architectures=None)
    checkpoint = open_checkpoint(str(bert), task="question-answering")
    with pytest.raises(InputError, match="has no head for question answering"):
        load_module(checkpoint, KERNELS["dense"])


def test_unclear_tasks_are_refused(bert: Path) -> None:
    assert "text-classification, text-embedding" in message(bert, task="translation")
    edit_config(bert, architectures=["BertPlusHead"])
    assert "BertPlusHead is not known: expected a ...ForSequenceClassification" in message(bert)


@pytest.mark.parametrize("head", HEADS_OF_NO_TASK)
def test_heads_of_other_tasks_are_refused_and_encoders_are_not(bert: Path, head: str) -> None:
    """Each line says what it is and how to go on; asking for a classifier would make one of a head that is none."""
    edit_config(bert, architectures=[f"Bert{head}"])
    for task in (None, "text-classification"):
        text = message(bert, task=task)
        assert f"a Bert{head} {HEADS_OF_NO_TASK[head]}" in text
        assert "--task text-embedding" in text
    assert open_checkpoint(str(bert), task="text-embedding").task == "text-embedding"
    assert open_checkpoint(str(bert), new_head=True).task == "text-embedding"


def test_labels_file(bert: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("nein\nja\nvielleicht\n")
    assert open_checkpoint(str(bert), labels_file=labels).labels == ("nein", "ja", "vielleicht")
    labels.write_text('["nein", "ja", "viel\\nleicht"]')
    assert open_checkpoint(str(bert), labels_file=labels).labels == ("nein", "ja", "viel\nleicht")
    labels.write_text("a\nb\n")
    assert "expected 3 labels, as the checkpoint's config.json has, found 2" in message(bert, labels_file=labels)
    labels.write_text("a\nb\na\n")
    assert "'a' more than once" in message(bert, labels_file=labels)
    labels.write_text("a\n\nb")
    assert "must not be empty" in message(bert, labels_file=labels)
    labels.write_text("[1, 2, 3]")
    assert "list of strings" in message(bert, labels_file=labels)
    assert "cannot read the labels" in message(bert, labels_file=tmp_path / "absent")
    labels.write_text("a\nb\nc\n")
    assert "leave them out" in message(bert, labels_file=labels, task="text-embedding")


def test_labels_of_the_config(bert: Path) -> None:
    edit_config(bert, id2label={"0": "a", "1": "a", "2": "b"})
    assert "'a' more than once" in message(bert)
    edit_config(bert, id2label={"1": "a", "2": "b"})
    assert "without gaps" in message(bert)
    edit_config(bert, id2label=["a", "b"])
    assert "id2label must map" in message(bert)
    edit_config(bert, id2label={"0": "a", "1": None, "2": "b"})
    assert "id2label must map" in message(bert)
    edit_config(bert, id2label={"0": "a", "1": "b"})
    assert "classifier.weight (3, 16) instead of (2, 16)" in message(bert)


def test_a_file_of_labels_mends_gaps(bert: Path, tmp_path: Path) -> None:
    edit_config(bert, id2label={"0": "a", "2": "c"})
    assert "add the missing ones, or name all with a file of labels" in message(bert)
    labels = tmp_path / "labels.txt"
    labels.write_bytes("\ufeffa\r\nb\r\nc\r\n".encode())  # as Windows' editors write it
    checkpoint = open_checkpoint(str(bert), labels_file=labels)
    assert checkpoint.labels == ("a", "b", "c")
    load_module(checkpoint, KERNELS["dense"])
    labels.write_text("a\nb\n")
    assert "classifier.weight (3, 16) instead of (2, 16)" in message(bert, labels_file=labels)
    labels.write_bytes(b'\xef\xbb\xbf["x", "y", "z"]')
    assert open_checkpoint(str(bert), labels_file=labels).labels == ("x", "y", "z")


def test_multi_label_and_regression(bert: Path) -> None:
    edit_config(bert, problem_type="multi_label_classification")
    assert open_checkpoint(str(bert)).activation == "sigmoid"
    edit_config(bert, problem_type="regression")
    assert "problem_type must be one of" in message(bert)
    edit_config(bert, problem_type=None, id2label={"0": "LABEL_0"})
    assert "regression" in message(bert, task="text-classification")
    assert (open_checkpoint(str(bert)).task, open_checkpoint(str(bert)).activation) == ("text-scoring", "sigmoid")


@pytest.mark.parametrize(
    ("id2label", "label2id", "noted"),
    [
        ({"0": "no", "1": "yes"}, {"no": 0, "yes": 1}, False),
        ({"0": "no", "1": "yes"}, {"no": 1, "yes": 0}, True),
        (None, {"entailment": 0, "contradiction": 1}, True),
        ({"0": "no", "1": "yes"}, None, False),
    ],
)
def test_label2id_that_says_something_else_is_noted(
    bert: Path, id2label: object, label2id: object, noted: bool
) -> None:
    edit_config(bert, id2label=id2label, label2id=label2id, num_labels=2)
    found = open_checkpoint(str(bert))
    assert found.labels == (("no", "yes") if id2label else ("LABEL_0", "LABEL_1"))
    assert any("label2id has" in note for note in found.notes) == noted
    named = open_checkpoint(str(bert), labels=("a", "b"))
    assert not any("label2id" in note for note in named.notes)
