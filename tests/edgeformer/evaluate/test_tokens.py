"""Answers to questions are counted as SQuAD's script does, entities as seqeval; their data are read strictly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeformer.evaluate.tokens import (
    chunks,
    entity_quality,
    exact_match,
    normal_answer,
    read_questions,
    read_tagged,
    word_f1,
)
from edgeformer_runtime.errors import InputError


@pytest.mark.parametrize(
    ("answer", "right", "exact", "f1"),
    [
        # By the official script of SQuAD 2.0 (compute_exact, compute_f1).
        ("The Eiffel Tower!", ("eiffel tower",), 1.0, 1.0),
        ("in the Swiss Alps", ("Swiss Alps", "the Alps"), 0.0, 0.8),
        ("a cat and a dog", ("the dog",), 0.0, 0.5),
        ("dog dog cat", ("dog dog",), 0.0, 0.8),
        ("", ("Basel",), 0.0, 0.0),
        ("Basel", (), 0.0, 0.0),
        ("", (), 1.0, 1.0),
        ("the", (), 1.0, 1.0),
        ("1,233 kilometres", ("1233 kilometres",), 1.0, 1.0),
        ("Z\u00fcrich", ("Zurich",), 0.0, 0.0),
    ],
)
def test_answers_are_counted_as_squad_does(answer: str, right: tuple[str, ...], exact: float, f1: float) -> None:
    assert exact_match(answer, right) == exact
    assert word_f1(answer, right) == pytest.approx(f1)


def test_normal_answers() -> None:
    assert normal_answer("The  theatre, a\u00a0an Ant's") == "theatre ants"


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        # Of seqeval.metrics.sequence_labeling.get_entities.
        ("B-PER I-PER O B-LOC", {("PER", 0, 1), ("LOC", 3, 3)}),
        ("I-PER I-PER B-PER", {("PER", 0, 1), ("PER", 2, 2)}),
        ("B-PER I-LOC I-LOC", {("PER", 0, 0), ("LOC", 1, 2)}),
        ("O I-PER O", {("PER", 1, 1)}),
        ("B-PER B-PER", {("PER", 0, 0), ("PER", 1, 1)}),
        ("B-X I-X E-X S-Y S-Y", {("X", 0, 2), ("Y", 3, 3), ("Y", 4, 4)}),
        ("E-X I-X", {("X", 0, 0), ("X", 1, 1)}),
        ("PER PER O LOC", {("PER", 0, 1), ("LOC", 3, 3)}),
        ("", set()),
    ],
)
def test_entities_are_found_as_seqeval_does(tags: str, expected: set[tuple[str, int, int]]) -> None:
    assert chunks(tags.split()) == expected


def test_entities_are_counted_over_all_texts() -> None:
    right = [{("PER", 0, 1), ("LOC", 3, 3)}, {("PER", 0, 0)}]
    given = [{("PER", 0, 1), ("LOC", 2, 3)}, set()]
    found = entity_quality(right, given)
    assert (found.precision, found.recall, found.f1) == pytest.approx((1 / 2, 1 / 3, 2 / 5))
    assert entity_quality([set()], [set()]).f1 == 0


def test_questions_of_every_form_are_read(tmp_path: Path) -> None:
    squad = tmp_path / "dev.json"
    asked = [
        {"id": "1", "question": "where?", "answers": [{"text": "Basel", "answer_start": 3}]},
        {"id": "2", "question": "who?", "answers": [], "plausible_answers": [{"text": "x"}], "is_impossible": True},
    ]
    squad.write_text(json.dumps({"version": "v2.0", "data": [{"paragraphs": [{"context": "in Basel", "qas": asked}]}]}))
    lines = tmp_path / "dev.jsonl"
    rows = (
        {"question": "where?", "context": "in Basel", "answers": {"text": ["Basel"], "answer_start": [3]}},
        {"question": "who?", "context": "in Basel", "answers": {"text": [], "answer_start": []}},
    )
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = tmp_path / "dev.csv"
    table.write_text("question,context,answer\nwhere?,in Basel,Basel\nwho?,in Basel,\n")
    for path in (squad, lines, table):
        found = read_questions(str(path))
        assert [(each.question, each.context, each.answers) for each in found] == [
            ("where?", "in Basel", ("Basel",)),
            ("who?", "in Basel", ()),
        ]
        assert found[0].read() == ("where?", "in Basel")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"data": [{"paragraphs": [{"qas": []}, 3]}]}', "not SQuAD's JSON"),
        ("a.json", '{"data": []}', "holds no questions"),
        ("a.jsonl", '{"question": "who?"}\n', "line 1: expected"),
        ("a.jsonl", '{"question": "who?", "context": "x", "answers": [3]}\n', "line 1: expected"),
        ("a.jsonl", "no json\n", "line 1"),
    ],
)
def test_other_questions_are_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_questions(str(tmp_path / name))


def test_labelled_words_are_read(tmp_path: Path) -> None:
    conll = tmp_path / "a.conll"
    conll.write_text("-DOCSTART- -X- O\n\nZo\u00eb NNP B-PER\nsleeps VBZ O\n\nBasel NNP B-LOC")
    lines = tmp_path / "a.jsonl"
    lines.write_text(
        '{"tokens": ["Zo\u00eb", "sleeps"], "ner_tags": [1, 0]}\n{"tokens": ["Basel"], "tags": ["B-LOC"]}\n'
    )
    for path in (conll, lines):
        found = read_tagged(str(path), ("O", "B-PER", "B-LOC"))
        assert [(each.text, each.tags) for each in found] == [
            ("Zo\u00eb sleeps", ("B-PER", "O")),
            ("Basel", ("B-LOC",)),
        ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.conll", "word\n", "line 1: expected a word and its label"),
        ("a.conll", "\n\n", "holds no labelled words"),
        ("a.csv", "a,b\n", "come in a file of"),
        ("a.jsonl", '{"tokens": ["a", "b"], "tags": ["O"]}\n', "a label for each word"),
        ("a.jsonl", '{"tokens": ["a"], "tags": [7]}\n', "a label for each word"),
        ("a.jsonl", '{"tokens": ["two words"], "tags": ["O"]}\n', "a label for each word"),
        ("a.jsonl", "[]\n", "a label for each word"),
    ],
)
def test_other_labelled_words_are_refused(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_tagged(str(tmp_path / name), ("O",))
