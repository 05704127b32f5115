"""How tables of texts with several labels are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeformer.evaluate.classification import read_label_sets
from edgeformer_runtime.errors import InputError

LABELS = ("joy", "anger, mild", "sadness")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'text,labels\none,joy|sadness\ntwo,"anger, mild"\nthree,\nfour,"[""joy""]"\n'),
        ("a.csv", 'sentence,label\none,joy; sadness\ntwo,"anger, mild"\nthree,\nfour,joy\n'),
        ("a.tsv", "one\tjoy,sadness\ntwo\tanger, mild\nthree\t[]\nfour\tjoy\n"),
        ("a.json", '[["one", ["joy", "sadness"]], ["two", "anger, mild"], ["three", []], ["four", "joy"]]'),
        (
            "a.jsonl",
            '{"text": "one", "labels": ["sadness", "joy"]}\n["two", "anger, mild"]\n["three", ""]\n["four", "joy"]',
        ),
    ],
)  # fmt: skip
def test_ways_to_write_sets(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    found = read_label_sets(str(tmp_path / name), LABELS)
    assert [(each.read(), sorted(each.labels)) for each in found] == [
        ("one", [0, 2]),
        ("two", [1]),
        ("three", []),
        ("four", [0]),
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('[["one", ["joy", 3]]]', r"item 0: expected \[text, labels\]"),
        ('[["one", ["joy", "glee"]]]', "item 0: the bundle does not know the label 'glee'"),
        ("[]", "holds no examples"),
    ],
)
def test_what_is_refused(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match=problem):
        read_label_sets(str(tmp_path / "a.json"), LABELS)
