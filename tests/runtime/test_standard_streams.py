"""Streams that are closed or that nobody reads, and strings that a terminal would obey."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeformer_runtime.cli.console import printable

SCRIPT = """
import sys, typer
from edgeformer_runtime.cli.console import Steps, err, out, print_json, run_app
from edgeformer_runtime.errors import InputError
app = typer.Typer()
@app.command()
def main(what: str) -> None:
    for _ in range(3):
        err.print("note: something to know")
    with Steps() as steps:
        for step in ("read", "note: " + sys.argv[-1], "lower " + sys.argv[-1]):
            steps(step)
    if what == "bad":
        raise InputError("no such thing")
    if what == "failed":
        raise typer.Exit(1)
    out.print(sys.argv[2] if len(sys.argv) > 2 else "done")
    print_json({"label": "a\\x9b\\u202e\\x7f"})
run_app(app, sys.argv[1:2])
"""
CODES = {"good": 0, "failed": 1, "bad": 2}


def run(what: str, redirection: str) -> subprocess.CompletedProcess[bytes]:
    command = f'exec "{sys.executable}" -c "$SCRIPT" {what} {redirection}'
    return subprocess.run(
        ["bash", "-c", command], env=os.environ | {"SCRIPT": SCRIPT}, capture_output=True, check=False, timeout=120
    )


@pytest.mark.parametrize("what", CODES)
@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "1>&- 2>&-", "0<&- 1>&- 2>&-", "1>&-"])
def test_closed_and_full_streams_do_not_change_the_exit_code(what: str, redirection: str) -> None:
    assert run(what, redirection).returncode == CODES[what]


@pytest.mark.parametrize("what", CODES)
def test_a_stderr_whose_reader_has_gone(what: str) -> None:
    done = run(what, "2> >(exec 0<&-; sleep 0.1)")
    assert done.returncode == CODES[what]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        gone = subprocess.run([sys.executable, "-c", SCRIPT, what], stderr=writing, stdout=subprocess.PIPE, check=False)
    finally:
        os.close(writing)
    assert gone.returncode == CODES[what]
    assert (b"done" in gone.stdout) == (what == "good")


def test_a_stdout_whose_reader_has_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        gone = subprocess.run(
            [sys.executable, "-c", SCRIPT, "good"], stdout=writing, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writing)
    assert gone.returncode == 0
    assert b"Traceback" not in gone.stderr


def test_a_terminal_is_shown_strings_and_never_obeys_them() -> None:
    hostile = "a\x1b[31m\x9b31m\u202eb\x7f\u2066c\u200f\udcff[/red]"
    done = subprocess.run([sys.executable, "-c", SCRIPT, "good", os.fsencode(hostile)], capture_output=True, check=True)
    shown = done.stdout.decode("utf-8")
    escaped = "a\\u001b[31m\\u009b31m\\u202eb\\u007f\\u2066c\\u200f\\udcff[/red]"
    assert escaped in shown
    assert f"note: {escaped}\nlower {escaped}\n" in done.stderr.decode("utf-8")
    assert '"a\\u009b\\u202e\\u007f"' in shown
    assert not set(shown) & set("\x1b\x9b\x7f\u202e\u2066\u200f")


def test_ordinary_text_is_shown_as_it_is() -> None:
    for text in ("Grüße, 中文, עברית, हिन्दी\tx\n", "👩\u200d👩\u200d👧"):
        assert printable(text) == text
    assert printable("\x00\r\x85\u061c\u2028\u2029") == "\\u0000\\u000d\\u0085\\u061c\\u2028\\u2029"


def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    missing = os.fsencode(tmp_path) + b"/\xff"
    for command in (["verify", missing], ["run", missing, "hello"], ["report", missing]):
        done = subprocess.run(
            [sys.executable, "-c", "from edgeformer_runtime.cli import main; main()", *command],
            capture_output=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 2
        lines = done.stderr.decode("utf-8").strip().split("\n")
        assert len(lines) == 1
        assert "unexpected" not in lines[0]
