"""Labelled data from folders, zips and tables: what is read, and what is refused in one line."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edgeformer.data.labelled import EvaluationData, open_data
from edgeformer_runtime.errors import InputError

LABELS = ("no", "yes", "may be")
ROWS = [('turn, the "lights" off', "yes"), ("naïve 👍\u2028x", "no"), ("", "may be")]


def read(data: str | Path, kind: str = "text") -> list[tuple[Any, str]]:
    with open_data(str(data), kind, LABELS) as opened:
        return [(example.read(), LABELS[example.label]) for example in opened.examples]


def refused(data: str | Path, kind: str = "text") -> str:
    with pytest.raises(InputError) as caught, open_data(str(data), kind, LABELS):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


CSV = '"turn, the ""lights"" off",yes\r\nnaïve 👍\u2028x,no\r\n"",may be\r\n'
MORE_COLUMNS = '7,yes,"turn, the ""lights"" off"\n8,no,naïve 👍\u2028x\n9,may be,\n'
TSV = 'turn, the "lights" off\tyes\nnaïve 👍\u2028x\tno\n\tmay be\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV),
        ("a.csv", "text,label\n" + CSV),
        ("a.csv", "\ufeffText , Category\n" + CSV + "\n"),
        ("a.csv", "id,label,sentence\n" + MORE_COLUMNS),
        ("a.TSV", TSV),
        ("a.tsv", "sentence\tlabel\n" + TSV),
        ("a.json", json.dumps(ROWS)),
        ("a.json", json.dumps([{"text": a, "label": b, "id": 1} for a, b in ROWS])),
        ("a.json:test", json.dumps({"train": [["x", "y"]], "test": ROWS})),
        ("a.jsonl", "\n".join(json.dumps({"text": a, "label": b}, ensure_ascii=False) for a, b in ROWS)),
        ("a.jsonl", "".join(json.dumps(row) + "\r\n" for row in ROWS) + "\n"),
    ],
)  # fmt: skip
def test_tables(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name.partition(":")[0]).write_text(content, encoding="utf-8", newline="")
    assert read(tmp_path / name) == ROWS


def test_numbers_are_indices_unless_they_are_labels(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("good\t1\nbad\t0\n")
    with open_data(str(tmp_path / "a.tsv"), "text", LABELS) as opened:
        assert [example.label for example in opened.examples] == [1, 0]
        assert opened.notes == ("the data's labels are numbers: they are taken as indices of the labels",)
    with open_data(str(tmp_path / "a.tsv"), "text", ("1", "0")) as opened:
        assert [example.label for example in opened.examples] == [0, 1]
        assert opened.notes == ()
    (tmp_path / "a.json").write_text('[["good", 3]]')
    assert "has labels that the bundle does not know ('3')" in refused(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.csv", b"", "holds no examples"),
        ("a.csv", b"text,label\n", "holds no examples"),
        ("a.json", b"[]", "holds no examples"),
        ("a.csv", b"x,yes\nx,perhaps\n", "has labels that the bundle does not know ('perhaps'): expected"),
        ("a.csv", b"x,yes\nx\n", "line 2: expected 2 columns, text and label, found 1"),
        ("a.csv", b'x,yes\n"x,yes\n', "line 2: unexpected end of data"),
        ("a.csv", b"x,\xff\n", "expected UTF-8 text, found byte 0xff"),
        ("a.tsv", b"text\tpair\tlabel\nx\tyes\n", "line 2: expected 3 columns"),
        ("a.json", b"{", "is not JSON"),
        ("a.json", b"[" * 100_000, "is not JSON"),
        ("a.json", b'{"train": [], "test": []}', "several lists: name one of them, like a.json:train"),
        ("a.json:dev", b'{"train": []}', "there is no 'dev': name one of them, like a.json:train"),
        ("a.json:tran", b'{"train": [], "dev": []}', "there is no 'tran': did you mean train? name one of them"),
        ("a.json:train", b'{"train": 1}', "expected a list of [text, label], found 1"),
        ("a.json:train", b"[]", "holds one list: leave 'train' out"),
        ("a.csv:train", b"x,yes\n", "holds one table: leave 'train' out"),
        ("a.json", b'[["x", "yes"], ["x"]]', "item 1: expected [text, label]"),
        ("a.json", b'[["x", true]]', "item 0: expected [text, label]"),
        ("a.jsonl", b'{"text": "x", "label": "yes"}\n{"text": "x"}\n', "line 2: expected [text, label]"),
        ("a.jsonl", b'{"text": "x", "label": "yes"}\n}\n', "line 2 is not JSON"),
        ("a.parquet", b"PAR1", "a file of .csv, .tsv, .json, .jsonl with a text and a label per row"),
    ],
)
def test_corrupted_tables(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    (tmp_path / name.partition(":")[0]).write_bytes(content)
    assert problem in refused(tmp_path / name)


def test_no_such_data(tmp_path: Path) -> None:
    assert "no data at nowhere.csv: expected a file, a folder, or FILE:key" in refused("nowhere.csv")
    assert "no data at" in refused(f"{tmp_path}:key")
    assert "found a folder" in refused(tmp_path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name in ("yes/b.png", "yes/a.jpg", "no/deep/c.png", "no/.hidden", ".git/x.png", "README.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


def test_a_folder_per_label(photos: Path) -> None:
    assert read(photos, "image") == [
        (photos / "no/deep/c.png", "no"),
        (photos / "yes/a.jpg", "yes"),
        (photos / "yes/b.png", "yes"),
    ]
    with open_data(str(photos), "image", LABELS) as opened:
        assert opened.notes == (f"files of {photos} that lie in no label's folder are not used: 'README.md'",)


@pytest.mark.parametrize("key", ["", ":split/test"])
def test_a_zip_of_it(photos: Path, tmp_path: Path, key: str) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in photos.rglob("*"):
            name = file.relative_to(photos).as_posix()
            archive.write(file, f"split/test/{name}" if key else name)
        archive.writestr("__MACOSX/x" if not key else "split/train/maybe/x.png", b"x")
    expected = [(b"no/deep/c.png", "no"), (b"yes/a.jpg", "yes"), (b"yes/b.png", "yes")]
    assert read(f"{path}{key}", "image") == expected
    if key:
        assert "labels that the bundle does not know ('split')" in refused(path, "image")
        assert "holds no examples" in refused(f"{path}:nowhere", "image")


def test_corrupted_images(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no examples" in refused(tmp_path / "empty", "image")
    assert "is neither a folder nor a zip" in refused(photos / "README.md", "image")
    (photos / "cats").mkdir()
    (photos / "cats" / "a.png").write_bytes(b"x")
    assert "('cats')" in refused(photos, "image")
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("yes/a.png", b"unlike anything else")
    path.write_bytes(path.read_bytes().replace(b"unlike", b"UNLIKE", 1))
    with (
        open_data(str(path), "image", LABELS) as opened,
        pytest.raises(InputError, match=r"photos\.zip: 'yes/a\.png' cannot be read: Bad CRC"),
    ):
        opened.examples[0].read()


def test_a_limit_takes_examples_from_everywhere(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("".join(f"{number},yes\n" for number in range(10)))

    def kept(count: int) -> list[str]:
        with open_data(str(tmp_path / "a.csv"), "text", LABELS) as opened:
            limited: EvaluationData = opened.limited(count)
            return [example.read() for example in limited.examples]

    assert kept(4) == ["0", "2", "5", "7"]
    assert kept(1) == ["0"]
    assert len(kept(10)) == len(kept(99)) == 10
