"""A bundle that its conversion's gates refused: loaded by nobody who does not say so, open to who looks into it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_bundle import make_onnx, manifest, seal
from typer.testing import CliRunner

from edgeformer_runtime import load
from edgeformer_runtime.bundle.bundle import Bundle, pack
from edgeformer_runtime.bundle.manifest import REFUSED_FILE
from edgeformer_runtime.cli.app import app
from edgeformer_runtime.cli.tables import LONGEST_REFUSAL, refusals
from edgeformer_runtime.errors import BundleError

WHY = "answers: 60 of 111 are others though the source is sure of them"


@pytest.fixture
def refused(tmp_path: Path) -> Path:
    folder = make_onnx(tmp_path / "tiny")
    with Bundle.open(folder) as bundle:
        sealed = bundle.manifest
    (folder / REFUSED_FILE).write_text(json.dumps({"problems": [WHY]}))
    seal(folder, sealed)
    return folder


def test_it_is_loaded_only_if_the_caller_says_so(refused: Path, tmp_path: Path) -> None:
    for opening in (Bundle.open, load, lambda path: pack(path, tmp_path / "tiny.zip")):
        with pytest.raises(BundleError, match=r"gates of its conversion refused this bundle .*--allow-refused"):
            opening(refused)
    assert not (tmp_path / "tiny.zip").exists()
    with load(refused, allow_refused=True) as pipeline:
        assert len(pipeline("turn the lights off").labels) == 3


def test_the_commands_that_answer_want_to_be_told(refused: Path) -> None:
    ended = CliRunner().invoke(app, ["run", str(refused), "turn the lights off"])
    assert isinstance(ended.exception, BundleError)
    ended = CliRunner().invoke(app, ["run", str(refused), "turn the lights off", "--allow-refused"])
    assert ended.exit_code == 0, ended.output


def test_the_commands_that_explain_open_it(refused: Path) -> None:
    ended = CliRunner().invoke(app, ["inspect", str(refused)])
    assert ended.exit_code == 0 and "answers: 60 of 111" in " ".join(ended.output.split())
    assert CliRunner().invoke(app, ["verify", str(refused)]).exit_code == 0


def test_its_reason_is_readable_and_obeyed_by_no_terminal(tiny: Path) -> None:
    why = "off on {'text': \"What's the weather in Zürich, 北京?\"} \u202e\x1b[2J" + "x" * 500
    (tiny / REFUSED_FILE).write_text(json.dumps({"problems": [why]}))
    seal(tiny, manifest())
    with Bundle.open(tiny, allow_refused=True) as bundle:
        (said,) = refusals(bundle)
    assert said.startswith("off on {'text': \"What's the weather in Zürich, 北京?\"} \\u202e\\u001b[2Jxxx")
    assert said.endswith("x...") and len(said) == LONGEST_REFUSAL


@pytest.mark.parametrize("content", [b"", b"[]", b'{"problems": 3}', b'{"problems": [3]}', b"\xff", b"[" * 100_000])
def test_whatever_the_file_holds_it_marks_the_bundle(tiny: Path, content: bytes) -> None:
    (tiny / REFUSED_FILE).write_bytes(content)
    seal(tiny, manifest())
    with pytest.raises(BundleError, match="refused this bundle"):
        Bundle.open(tiny)
    ended = CliRunner().invoke(app, ["inspect", str(tiny)])
    assert ended.exit_code == 0 and "refused" in ended.output


def test_verify_says_what_the_gates_said(refused: Path) -> None:
    ended = CliRunner().invoke(app, ["verify", str(refused)])
    assert f"note: its conversion's gates refused this bundle: {WHY}" in " ".join(ended.output.split())
