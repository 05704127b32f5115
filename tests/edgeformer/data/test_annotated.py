"""Questions and labelled words are read strictly, in each of their forms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeformer.data.annotated import read_questions, read_tagged
from edgeformer_runtime.errors import InputError


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
