"""`run` with files and stdin: rows are answered one by one, none is lost, and a file's name is no text."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeformer_runtime.cli import app
from edgeformer_runtime.cli.console import run_app


@pytest.fixture
def answers_of(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:

    def call(*arguments: object, stdin: bytes = b"") -> tuple[int, list[dict[str, Any]], str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as caught:
            run_app(app.app, ["run", *map(str, arguments)])
        captured = capsys.readouterr()
        return int(caught.value.code or 0), [json.loads(line) for line in captured.out.splitlines()], captured.err

    return call


MAIN = "from edgeformer_runtime.cli.app import main; main()"
FILES = {
    "one column.csv": ("hello\nturn\n", [(1, "hello"), (2, "turn")]),
    "header.csv": ("id,text\r\n1,hello\r\n2,\"turn\nthe\"\r\n", [(2, "hello"), (4, "turn\nthe")]),
    "bom.csv": ("\ufeffText\nhello\n", [(2, "hello")]),
    "quotes.tsv": ("sentence\tlabel\nsay \"hello\t1\n", [(2, 'say "hello')]),
    "objects.jsonl": (
        '{"text": "hello"}\n\n["turn", 3]\n"the\u2028off"\n',
        [(1, "hello"), (3, "turn"), (4, "the\u2028off")],
    ),
    "lines.txt": ("hello, turn\n\nthe", [(1, "hello, turn"), (2, ""), (3, "the")]),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files_are_answered_row_by_row(answers_of: Any, tiny_onnx: Path, tmp_path: Path, name: str) -> None:
    content, expected = FILES[name]
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    code, answers, err = answers_of(tiny_onnx, "--input", tmp_path / name)
    assert (code, err) == (0, "")
    assert [(answer["line"], answer["input"]) for answer in answers] == expected
    assert all(sum(answer["scores"]) == pytest.approx(1) for answer in answers)


def test_columns_are_named(answers_of: Any, tiny_onnx: Path, tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text("id,Question,answer\n7,hello,turn\n")
    code, answers, _ = answers_of(tiny_onnx, "--input", table, "--column", "question", "--pair-column", "answer")
    assert (code, answers[0]["input"]) == (0, ["hello", "turn"])
    objects = tmp_path / "pairs.jsonl"
    objects.write_text('{"q": "hello", "a": "turn"}\n')
    _, same, _ = answers_of(tiny_onnx, "--input", objects, "--column", "q", "--pair-column", "a")
    assert same[0]["scores"] == answers[0]["scores"]
    for arguments, problem in (
        ((), "pairs.csv has the columns ['id', 'Question', 'answer']: name the one with the texts by --column"),
        (("--column", "body"), "there is no 'body'"),
        (("--column", "question", "--pair-column", "reply"), "there is no 'reply'"),
    ):
        code, answers, err = answers_of(tiny_onnx, "--input", table, *arguments)
        assert (code, answers, err.count("\n")) == (2, [], 1)
        assert problem in err


def test_a_bad_row_has_its_error_and_costs_no_other(answers_of: Any, tiny_onnx: Path, tmp_path: Path) -> None:
    table = tmp_path / "texts.csv"
    table.write_bytes(b'text,label\nhello,1\nturn\n\xff\xfe,2\n"a"b,3\nthe,4\n')
    code, answers, err = answers_of(tiny_onnx, "--input", table)
    assert [answer["line"] for answer in answers] == [2, 3, 4, 5, 6]
    assert [answer.get("input") for answer in answers] == ["hello", None, None, None, "the"]
    assert answers[1]["error"] == "expected 2 columns, found 1"
    assert answers[2]["error"] == "expected UTF-8 text, found byte 0xff"
    assert "',' expected after '\"'" in answers[3]["error"]
    assert code == 2
    assert err == "error: 3 of 5 lines could not be answered, first line 3: expected 2 columns, found 1\n"
    code, answers, err = answers_of(tiny_onnx, "-", "--token-ids", stdin=b"2,9,3\nx\n2,99\n")
    assert [sorted(answer) for answer in answers] == [
        ["input", "labels", "line", "scores"],
        ["error", "input", "line"],
        ["error", "input", "line"],
    ]
    assert (code, err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["FILE"], "texts.csv is a file, and arguments are texts: give --input "),
        (["hello", "FILE"], "texts.csv is a file, and arguments are texts: give --input "),
        (["OTHER"], "notes.md is a file, and arguments are texts: --input takes .csv, .tsv, .jsonl and .txt"),
        (["missing.csv"], "there is no file missing.csv: give --input FILE"),
        (["--input", "missing.csv"], "cannot read missing.csv: No such file"),
        (["--input", "OTHER"], "expected a file of texts, .csv, .tsv, .jsonl, .txt, found notes.md"),
        (["--input", "FOLDER"], "found a folder"),
        (["--input", "EMPTY"], "holds no texts"),
        (["hello", "--input", "FILE"], "expected texts or --input, found both"),
        (["-", "hello"], "- reads stdin, a text per line: expected it alone"),
        (["hello", "--column", "text"], "with --input"),
        (["--input", "-", "--column", "text"], "stdin has a text per line"),
        (["--input", "FILE", "--pair-column", "b", "--pair", "x"], "--pair-column excludes --pair"),
    ],
)
def test_what_is_refused(answers_of: Any, tiny_onnx: Path, tmp_path: Path, arguments: list[str], problem: str) -> None:
    for name, content in (("texts.csv", "text\nhello\n"), ("notes.md", "x"), ("empty.txt", "")):
        (tmp_path / name).write_text(content)
    places = {"FILE": "texts.csv", "OTHER": "notes.md", "EMPTY": "empty.txt", "FOLDER": "."}
    given = [str(tmp_path / places[word]) if word in places else word for word in arguments]
    code, answers, err = answers_of(tiny_onnx, *given)
    assert (code, answers, err.count("\n")) == (2, [], 1)
    assert problem in err


def test_a_text_that_only_looks_like_a_name_is_a_text(answers_of: Any, tiny_onnx: Path) -> None:
    code, answers, _ = answers_of(tiny_onnx, "-", stdin=b"texts.csv\n")
    assert (code, answers[0]["input"]) == (0, "texts.csv")
    with pytest.raises(SystemExit) as caught:
        run_app(app.app, ["run", str(tiny_onnx), "please open texts.csv", "a/b", "--json"])
    assert not caught.value.code


def test_each_answer_is_out_before_the_next_line_comes(tiny_onnx: Path) -> None:
    command = [sys.executable, "-c", MAIN, "run", str(tiny_onnx), "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin and process.stdout and process.stderr
        for text in ("hello", "turn the lights off"):
            process.stdin.write(f"{text}\n".encode())
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["input"] == text
        process.stdin.close()
        assert process.wait(60) == 0
        assert process.stderr.read() == b""


def test_a_reader_that_leaves_ends_it_quietly(tiny_onnx: Path) -> None:
    command = f"yes hello | {sys.executable} -c '{MAIN}' run {tiny_onnx} - | head -n 2"
    found = subprocess.run(["bash", "-c", command], capture_output=True, timeout=120, check=False, env=dict(os.environ))
    assert (found.returncode, found.stdout.count(b"\n"), found.stderr) == (0, 2, b"")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("semicolons.csv", b"id;Text\n1;hello\n", "semicolons.csv separates columns by ';': expected commas in a .csv"),
        ("tabs.csv", b"text\tlabel\nhello\t1\n", "tabs.csv separates columns by '\\t': expected commas in a .csv"),
        ("utf16.csv", "text\nhello\n".encode("utf-16"), "expected UTF-8 text, found UTF-16: save the file as UTF-8"),
        ("utf16.txt", "hello\n".encode("utf-16"), "expected UTF-8 text, found UTF-16: save the file as UTF-8"),
        ("mac.csv", b"text,label\rhello,1\r", "new-line character seen in unquoted field\n"),
    ],
)
def test_what_spreadsheets_write_is_not_taken_for_texts(
    answers_of: Any, tiny_onnx: Path, tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    (tmp_path / name).write_bytes(content)
    code, answers, err = answers_of(tiny_onnx, "--input", tmp_path / name)
    assert (code, [answer for answer in answers if "error" not in answer], err.count("\n")) == (2, [], 1)
    assert problem in err
