"""`edgeformer-runtime run` of speech: what it prints, writes and refuses, with a model that recognises tones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import RATE, tone_transcriber, tones

from edgeformer_runtime.cli import app, run
from edgeformer_runtime.cli.console import run_app
from edgeformer_runtime.pipelines.transcript import Transcript


class Call:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            run_app(app.app, ["run", "BUNDLE", *map(str, arguments)])
        captured = self._capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setattr("edgeformer_runtime.load", lambda *_, **__: tone_transcriber())
    return Call(capsys)


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    import soundfile

    folder = tmp_path_factory.mktemp("talks")
    paths = [folder / "one.wav", folder / "two.wav"]
    for path, text in zip(paths, ("abc", "d e"), strict=True):
        soundfile.write(path, tones(text), RATE)
    return paths


def test_commands_print_text(call: Call, talks: list[Path]) -> None:
    assert call(talks[0]) == (0, "a\nb\nc\n", "")
    assert call(talks[0], "--no-timestamps") == (0, "a b c\n", "")
    assert call(*talks) == (0, f"{talks[0]}: a b c\n{talks[1]}: d e\n", "")
    code, out, _ = call(*talks, "--json", "--words", "--no-timestamps")
    first, second = json.loads(out)
    assert (code, first["input"], first["text"], second["text"]) == (0, str(talks[0]), "a b c", "d e")
    assert [word["text"] for word in first["segments"][0]["words"]] == ["a", "b", "c"]


def test_commands_tell_what_is_doubtful(call: Call, talks: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    sure = run._with_progress

    def doubtful(*arguments: Any) -> Transcript:
        found = sure(*arguments)
        return replace(found, segments=tuple(replace(each, doubtful=True) for each in found.segments))

    monkeypatch.setattr(run, "_with_progress", doubtful)
    code, out, err = call(talks[0], "--no-timestamps")
    assert (code, out) == (0, "a b c\n")
    assert err.startswith(f"note: {talks[0]}: doubtful at 0.0 to ") and err.count("\n") == 1
    code, out, _ = call(talks[0], "--json")
    assert (code, json.loads(out)[0]["segments"][0]["doubtful"]) == (0, True)


def test_commands_tell_what_is_clipped(call: Call, tmp_path: Path) -> None:
    import soundfile

    path = tmp_path / "loud.wav"
    soundfile.write(path, np.clip(tones("abc") * 1000, -1, 1), RATE)
    code, out, err = call(path, "--no-timestamps")
    assert (code, out) == (0, "a b c\n")
    assert "% of its samples are at full scale: record it at a lower level" in err and err.count("\n") == 1


def test_commands_take_clips_and_lines(call: Call, talks: list[Path]) -> None:
    assert call(talks[0], "--clip-timestamps", "0.7,1.4", "--hotwords", "Anna") == (0, "b\n", "")
    message = "error: --clip-timestamps: expected seconds with commas, as 0,30,60,90, found '1:30'\n"
    assert call(talks[0], "--clip-timestamps", "1:30") == (2, "", message)
    _, out, _ = call(talks[0], "--no-timestamps", "--format", "srt", "--max-line-width", 3, "--max-line-count", 2)
    assert out.splitlines()[2:4] == ["a b", "c"] or out.splitlines()[2:4] == ["a", "b c"]


def test_commands_write_subtitles(call: Call, talks: list[Path], tmp_path: Path) -> None:
    code, out, _ = call(talks[0], "--format", "srt")
    assert code == 0
    assert out.startswith("1\n00:00:00,")
    assert out.count(" --> ") == 3
    folder = tmp_path / "new" / "subtitles"
    code, out, _ = call(*talks, "--format", "vtt", "--out", folder, "--beam-size", 2)
    assert (code, out) == (0, f"{folder / 'one.vtt'}\n{folder / 'two.vtt'}\n")
    assert (folder / "two.vtt").read_text().startswith("WEBVTT\n\n00:00:00.")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--pair", "x"], "tones takes audio: expected paths of files, found --pair"),
        (["--top", "2"], "found --top"),
        (["-"], "found -"),
        (["--language", "xx"], "this model knows English only"),
        (["--task", "sing"], "unknown task 'sing': expected one of transcribe, translate"),
        (["--format", "doc"], "unknown --format 'doc': expected one of txt, srt, vtt, json"),
        (["two.wav", "--format", "srt"], "--format srt of 2 files needs a folder for them: give --out"),
        (["one.wav", "--out", "x"], "two inputs would be written to x/one.txt"),
        (["--json", "--format", "srt"], "--json excludes --format and --out"),
    ],
)
def test_commands_refuse(call: Call, talks: list[Path], arguments: list[str], problem: str) -> None:
    code, out, err = call(talks[0], *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert problem in err


def test_files_that_are_not_there(call: Call) -> None:
    assert call("nowhere.wav")[:2] == (2, "")


def test_texts_take_no_options_of_audio(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    from tiny_bundle import TinyEngine

    from edgeformer_runtime import load

    monkeypatch.setattr("edgeformer_runtime.load", lambda *_, **__: load(tiny, engine=TinyEngine()))
    code, out, err = Call(capsys)("hello", "--words")
    assert (code, out) == (2, "")
    assert "tiny takes texts: expected them without options for images or audio, found --words" in err
