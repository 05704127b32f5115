"""The command line: JSON for scripts, exit codes, and one line for each error."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Timer

import pytest

from edgeformer_runtime.cli import app
from edgeformer_runtime.cli.console import run_app


class Call:
    """Runs the command line inside this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            run_app(app.app, [str(argument) for argument in arguments])
        captured = self._capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    return Call(capsys)


def test_run_json(call: Call, tiny_onnx: Path) -> None:
    code, out, err = call("run", tiny_onnx, "hello", "turn the lights off", "--json")
    assert (code, err) == (0, "")
    first, second = json.loads(out)
    assert list(first) == ["input", "labels", "scores"]
    assert (first["input"], second["input"]) == ("hello", "turn the lights off")
    assert first["scores"] == sorted(first["scores"], reverse=True)
    assert sum(first["scores"]) == pytest.approx(1)


def test_run_pairs_token_ids_and_stdin(call: Call, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, out, _ = call("run", tiny_onnx, "hello", "--pair", "turn", "--json")
    assert json.loads(out)[0]["input"] == ["hello", "turn"]
    _, out, _ = call("run", tiny_onnx, "2,9,3", "--token-ids", "--json")
    (by_ids,) = json.loads(out)
    assert by_ids["input"] == [2, 9, 3]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"hello\r\n\nturn\xe2\x80\xa8off")))
    _, out, _ = call("run", tiny_onnx, "-")
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["line"] for answer in answers] == [1, 2, 3]
    assert [answer["input"] for answer in answers] == ["hello", "", "turn\u2028off"]
    assert answers[0]["scores"] == by_ids["scores"]


def test_run_table_and_note(call: Call, tiny_onnx: Path) -> None:
    code, out, err = call("run", tiny_onnx, "hello " * 40, "[bold]brackets[/bold]")
    assert code == 0
    assert "lights 0." in out
    assert "[bold]brackets[/bold]" in out
    assert err == "note: input 0 was too long for the bundle and lost its end\n"


def test_verify(call: Call, tiny_onnx: Path) -> None:
    code, out, err = call("verify", tiny_onnx, "--json")
    document = json.loads(out)
    assert (code, err, document["ok"], document["first_diverging"]) == (0, "", True, None)
    assert [stage["name"] for stage in document["stages"]] == ["preprocess", "seq_8", "seq_16", "answer"]
    code, out, err = call("verify", tiny_onnx)
    assert (code, err) == (0, "")
    assert "executed by onnxruntime" in out


def test_verify_that_fails(call: Call, tiny_onnx: Path, tmp_path: Path) -> None:
    from shutil import copytree

    from tiny_bundle import seal, word_piece

    from edgeformer_runtime.bundle.manifest import parse

    copy = Path(copytree(tiny_onnx, tmp_path / "copy"))
    (copy / "tokenizer.json").write_text(word_piece().replace('"turn":4', '"turn":5').replace('"the":5', '"the":4'))
    seal(copy, parse((copy / "manifest.json").read_bytes()))
    code, out, err = call("verify", copy, "--json")
    assert code == 1
    assert json.loads(out)["first_diverging"] == "preprocess"
    assert err == f"{copy}: diverges from the reference, first at the stage preprocess\n"


def test_bench_json(call: Call, tiny_onnx: Path) -> None:
    code, out, err = call("bench", tiny_onnx, "--rounds", 1, "--threads", 2, "--json")
    assert (code, err) == (0, "")
    ((row,),) = (report["rows"] for report in json.loads(out)["reports"])
    assert (row["engine"], row["threads"], row["ratio_to_first"]) == ("onnx", 2, 1.0)


@pytest.mark.slow
def test_bench_table(call: Call, tiny_onnx: Path) -> None:
    code, out, err = call("bench", tiny_onnx, "--rounds", 6, "--threads", "1,2", "--program", "all", "--batch", 2)
    assert (code, err) == (0, "")
    assert out.count("tiny.onnx.fp32") == 4 and out.count("seq_8") == 2


def test_inspect(call: Call, tiny: Path) -> None:
    code, out, _ = call("inspect", tiny)
    assert code == 0
    assert "input_ids int32 1x8" in out
    code, out, _ = call("inspect", tiny, "--json")
    document = json.loads(out)
    assert document["manifest"] == json.loads((tiny / "manifest.json").read_text())
    assert document["size_bytes"] > 256


def test_images(call: Call, tiny_image_onnx: Path) -> None:
    photos = [str(tiny_image_onnx / "vectors" / name) for name in ("noise.png", "ramp.png")]
    code, out, err = call("run", tiny_image_onnx, *photos, "--json")
    assert (code, err) == (0, "")
    answers = json.loads(out)
    assert [answer["input"] for answer in answers] == photos
    assert all(sorted(answer["labels"]) == ["blue", "green", "red"] for answer in answers)
    code, out, err = call("run", tiny_image_onnx, photos[0], "--top", "1")
    assert (code, err) == (0, "")
    assert answers[0]["labels"][0] in out
    assert answers[0]["labels"][1] not in out
    code, out, _ = call("inspect", tiny_image_onnx)
    assert code == 0
    assert "image, bicubic, short side to 26, center crop to 24x16 RGB" in out
    code, out, _ = call("verify", tiny_image_onnx, "--json")
    assert (code, json.loads(out)["ok"]) == (0, True)
    code, out, _ = call("bench", tiny_image_onnx, "--rounds", 1, "--json")
    assert code == 0
    assert json.loads(out)["reports"][0]["rows"][0]["size_bytes"] == (tiny_image_onnx / "model.onnx").stat().st_size


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["x.png", "--pair", "x"], "tiny_image takes images: expected their paths, found --pair"),
        (["1,2", "--token-ids"], "tiny_image takes images: expected their paths, found --token-ids"),
        (["-"], "tiny_image takes images: expected their paths, found -"),
        (["nowhere.png"], "cannot read the image 'nowhere.png'"),
        (["MANIFEST"], "is not an image: expected one of JPEG, PNG"),
        (["x.png", "--top", "0"], "--top"),
    ],
)
def test_inputs_that_are_no_images(call: Call, tiny_image_onnx: Path, arguments: list[str], problem: str) -> None:
    given = [str(tiny_image_onnx / "manifest.json") if argument == "MANIFEST" else argument for argument in arguments]
    code, out, err = call("run", tiny_image_onnx, *given)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert problem in err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["fly"], "No such command 'fly'"),
        (["run"], "Missing argument"),
        (["run", "BUNDLE"], "expected texts, or - for a text per line of stdin, or --input FILE"),
        (["run", "nowhere", "x"], "no bundle at nowhere: expected a bundle's folder or zip"),
        (["inspect", "nowhere\nland"], "no bundle at nowhere land"),
        (["run", "BUNDLE", "x", "--threads", "0"], "--threads"),
        (["run", "BUNDLE", "x", "--wings"], "No such option"),
        (["run", "BUNDLE", "1,x", "--token-ids"], "expected token ids with commas"),
        (["run", "BUNDLE", "1,99", "--token-ids"], "token id 99 is out of range: this model's are 0 to 11"),
        (["run", "BUNDLE", "1", "--token-ids", "--pair", "x"], "exclude each other"),
        (["run", "BUNDLE", "bad \udcff argument"], "not valid Unicode"),
        (["bench", "BUNDLE", "--program", "seq_9"], "unknown program 'seq_9'"),
        (["bench", "BUNDLE", "--threads", "two"], "expected --threads as numbers with commas"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(call: Call, tiny_onnx: Path, arguments: list[str], problem: str) -> None:
    given = [str(tiny_onnx) if argument == "BUNDLE" else argument for argument in arguments]
    code, out, err = call(*given)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert problem in err
    assert err.count("\n") == 1
    code, _, err = call(*given, "--debug")
    assert code == 2
    assert "Traceback" in err


def test_internal_errors_and_interrupts(call: Call, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, expected in (
        (KeyboardInterrupt(), (130, "error: interrupted\n")),
        (PermissionError(13, "Permission denied", "/x"), (2, "error: /x: Permission denied\n")),
        (ZeroDivisionError("a\nb"), (2, "error: unexpected ZeroDivisionError: a b (--debug shows where")),
    ):

        def fail(*_: object, error: BaseException = error, **__: object) -> None:
            raise error

        monkeypatch.setattr("edgeformer_runtime.bundle.bundle.Bundle.open", fail)
        code, _, err = call("inspect", tiny)
        assert code == expected[0]
        assert err.startswith(expected[1])
        assert err.count("\n") == 1


def test_help_without_arguments(call: Call) -> None:
    code, out, _ = call()
    assert code == 0
    for word in ("run", "verify", "bench", "inspect", "--debug"):
        assert word in out


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo terminals")
def test_a_bar_in_a_terminal_ends(tiny_onnx: Path) -> None:
    """Bars write to stderr, so stderr must not be redirected to them."""
    reader, terminal = os.openpty()
    script = "import sys; from edgeformer_runtime.cli.app import main; main()"
    command = [sys.executable, "-c", script, "verify", str(tiny_onnx)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=terminal) as process:
        os.close(terminal)
        killer = Timer(120, process.kill)  # a bar that recurses would never end
        killer.start()
        shown = b""
        with suppress(OSError):  # the other end is closed
            while part := os.read(reader, 1 << 16):
                shown += part
        assert process.wait() == 0
        killer.cancel()
    os.close(reader)
    assert b"verifying" in shown
