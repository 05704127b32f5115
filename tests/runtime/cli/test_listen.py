"""`listen`: sentences from files, pipes and microphones, for people and programs."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
from decoding.scripted import RATE, tone_transcriber, tones

from edgeformer_runtime.cli import app, listen
from edgeformer_runtime.cli.console import run_app
from edgeformer_runtime.pipelines.speech_stream import StreamOptions, TranscriptStream

Listen = Callable[..., tuple[int, str, str]]

TALK = np.concatenate((np.zeros(RATE), tones("abc"), np.zeros(20 * RATE), tones("de"), np.zeros(RATE))).astype("f4")
"""Two sentences, with twenty seconds of silence between them."""


@pytest.fixture(autouse=True)
def free_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TranscriptStream, "clock", staticmethod(lambda: 0.0))


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Listen:
    monkeypatch.setattr("edgeformer_runtime.load", lambda *_, **__: tone_transcriber())

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            run_app(app.app, ["listen", "BUNDLE", *map(str, arguments)])
        captured = capfd.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    path = tmp_path / "talk.wav"
    soundfile.write(path, TALK, RATE)
    return path


def pcm(samples: np.ndarray) -> bytes:
    return (samples * 32767).astype("<i2").tobytes()


def test_sentences_of_a_file(call: Listen, talk: Path) -> None:
    assert call("--from", talk) == (0, "a b c\nd e\n", "")
    assert call("--from", talk, "--once") == (0, "a b c\n", "")
    code, out, _ = call("--from", talk, "--json")
    first, second = map(json.loads, out.splitlines())
    assert code == 0
    assert list(first) == ["text", "start", "end", "language", "segments"]
    assert (first["text"], second["text"], first["language"]) == ("a b c", "d e", "en")
    assert first["start"] == pytest.approx(1, abs=0.3) and first["end"] == pytest.approx(2.8, abs=0.3)
    assert second["start"] == pytest.approx(23.1, abs=0.3)
    assert [segment["text"] for segment in second["segments"]] == ["d", "e"]


def test_a_sentence_is_told_when_its_pause_is_long_enough() -> None:
    """In time of the audio, whatever the machine: a sentence waits for its pause and 0.2 s at most."""
    heard = 0.0
    told = []

    def blocks() -> Any:
        nonlocal heard
        for start in range(0, len(TALK), RATE // 50):
            heard = (start + RATE // 50) / RATE
            yield TALK[start : start + RATE // 50]

    ear = listen.Ear(tone_transcriber(), None, StreamOptions(1.0, 0.5, 0.5))
    guesses = []
    for found in ear.hear(blocks()):
        if isinstance(found, listen.Sentence):
            told.append((found.text, heard))
        else:
            guesses.append(found.partial)
    (first, first_at), (second, second_at) = told
    assert (first, second) == ("a b c", "d e")
    ends = 1 + 2 * 0.7 + 0.4, 1 + 3 * 0.7 + 20 + 0.7 + 0.4
    assert first_at - ends[0] < 0.7 and second_at - ends[1] < 0.7
    assert guesses[0] == "a"


def test_guesses(call: Listen, talk: Path) -> None:
    _, out, err = call("--from", talk, "--partials")
    assert out == "a b c\nd e\n"
    assert err.splitlines()[0] == "... a"
    _, out, _ = call("--from", talk, "--partials", "--json")
    assert json.loads(out.splitlines()[0]) == {"partial": "a", "stable": "", "seconds": 1.5}


def test_raw_samples_on_stdin(call: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    def stdin(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    stdin(pcm(TALK) + b"\1")  # half a sample at the end
    assert call("--from", "-") == (0, "a b c\nd e\n", "")
    stdin(pcm(np.repeat(TALK, 3)))
    assert call("--from", "-", "--rate", 48000) == (0, "a b c\nd e\n", "")
    stdin(b"")
    assert call("--from", "-") == (0, "", "")


def test_commands_get_each_sentence(call: Listen, talk: Path, tmp_path: Path) -> None:
    program = tmp_path / "act"
    program.write_text(f'#!/bin/sh\nprintf "%s|" "$@" >> {tmp_path}/said\necho acted\nexit 3\n')
    program.chmod(0o755)
    code, out, err = call("--from", talk, "--command", f"{program} --say 'to me'")
    assert (tmp_path / "said").read_text() == "--say|to me|a b c|--say|to me|d e|"
    assert (code, out.count("acted")) == (0, 2)
    assert err == f"note: {program} ended with 3\n" * 2


def test_no_sentence_is_an_option(tmp_path: Path) -> None:
    program = tmp_path / "act"
    program.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/said\n')
    program.chmod(0o755)
    listen.Command(str(program))("-- --delete $(reboot)")
    assert (tmp_path / "said").read_text() == "delete $(reboot)\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--from", "missing.wav"), "cannot read the audio missing.wav: No such file or directory"),
        (("--rate", 8000), "--rate belongs to raw samples: expected --from - with it"),
        (("--from", "x.wav", "--device", "hw:1"), "--device names a microphone: expected none with --from x.wav"),
        (("--from", "-", "--command", "no-such-program"), "--command: no program 'no-such-program' is found"),
        (("--from", "-", "--command", "'"), '--command "\'": No closing quotation'),
    ],
)
def test_what_cannot_be_heard(call: Listen, arguments: tuple[object, ...], message: str) -> None:
    assert call(*arguments) == (2, "", f"error: {message}\n")


def test_other_bundles_are_refused(capsys: pytest.CaptureFixture[str], tiny_onnx: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        run_app(app.app, ["listen", str(tiny_onnx), "--from", "-"])
    expected = "error: listen: expected a bundle for speech-recognition, found one for text-classification\n"
    assert (caught.value.code, capsys.readouterr().err) == (2, expected)


# Microphones


@pytest.fixture
def arecord(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that records a talk, and then fails as a microphone that is pulled out."""
    (tmp_path / "talk.raw").write_bytes(pcm(TALK))
    program = tmp_path / "arecord"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\ncat {tmp_path}/talk.raw\necho "No such device" >&2\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(listen, "find_spec", lambda _: None)
    return tmp_path / "asked"


def test_arecord(call: Listen, arecord: Path) -> None:
    code, out, err = call("--device", "hw:1", "--once")
    assert (code, out) == (0, "a b c\n")
    assert err == "listening to the ALSA device hw:1 (Ctrl-C ends it)\n"
    assert arecord.read_text() == "-q -t raw -f S16_LE -c 1 -r 16000 -D hw:1\n"
    code, out, err = call()
    assert (code, out) == (2, "a b c\nd e\n")
    assert err.splitlines()[-1] == "error: the microphone has gone: arecord: No such device"


def test_no_microphone(call: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "find_spec", lambda _: None)
    monkeypatch.setattr(listen.shutil, "which", lambda _: None)
    code, _, err = call()
    assert code == 2
    assert err.startswith("error: microphone: expected the program arecord (apt install alsa-utils) or the package")


class FakeSounddevice(ModuleType):
    """PortAudio with a microphone that knows 48 kHz alone."""

    PortAudioError = RuntimeError

    def __init__(self) -> None:
        super().__init__("sounddevice")
        self.opened: list[dict[str, Any]] = []

    def query_devices(self, device: Any, _kind: str) -> dict[str, Any]:
        if device == 7:
            raise ValueError("No input device matching 7")
        return {"name": "USB microphone", "default_samplerate": 48000.0}

    def check_input_settings(self, **settings: Any) -> None:
        if settings["samplerate"] != 48000:
            raise self.PortAudioError("Invalid sample rate")

    def RawInputStream(self, callback: Any, finished_callback: Any, **settings: Any) -> Any:
        self.opened.append(settings)
        data = pcm(np.repeat(TALK, 3))
        size = 2 * settings["blocksize"]

        def record() -> None:
            for start in range(0, len(data), size):
                callback(data[start : start + size], size // 2, None, None)
            finished_callback()

        threading.Thread(target=record).start()
        return nullcontext()


def test_sounddevice(call: Listen, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeSounddevice()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    monkeypatch.setattr(listen, "find_spec", lambda _: fake)
    code, out, err = call("--device", "3")
    assert (code, out) == (2, "a b c\nd e\n")
    assert err.splitlines() == ["listening to USB microphone (Ctrl-C ends it)", "error: the microphone has gone"]
    (opened,) = fake.opened
    assert opened == {"device": 3, "channels": 1, "dtype": "int16", "samplerate": 48000, "blocksize": 4800}
    assert call("--device", "7") == (2, "", "error: microphone: No input device matching 7\n")


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(listen, "MOST_WAITING_SECONDS", 1.0)
    waiting = listen.Waiting(RATE)
    block = bytes(RATE // 5)  # 0.1 s
    for _ in range(30):
        waiting.put(block)
    waiting.end("it has gone")
    taken = waiting.taken()
    assert sum(len(next(taken)) for _ in range(10)) == 10 * len(block)
    assert capsys.readouterr().err.startswith("note: 2.0 s were lost: this machine is slower than speech")
    with pytest.raises(listen.InputError, match="it has gone"):
        next(taken)
    waiting.put(block)
    assert next(waiting.taken()) == block
