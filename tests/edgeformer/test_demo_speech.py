"""`demo --speech` as far as it goes without converting: what it refuses before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeformer.cli import app
from edgeformer_runtime.cli.console import run_app


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--speech", "--out", "OUT", "missing.wav"), "no audio file at missing.wav"),
        (("--speech", "--out", "OUT", "TEXT"), "is not an audio file: expected wav, flac, ogg or mp3"),
        (("--speech", "--out", "OUT", "--weights", "no/such-model-anywhere"), "no checkpoint 'no/such-model-anywhere'"),
        (("--speech", "--out", "OUT", "--weights", "clinc150-mobilebert"), "speech-recognition"),
        (("--out", "OUT", "TEXT"), "files and --weights are for the demo of speech"),
        (("--out", "OUT", "--weights", "my/whisper"), "files and --weights are for the demo of speech"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "text.wav").write_text("no audio")
    places = {"OUT": str(tmp_path / "dist"), "TEXT": str(tmp_path / "text.wav")}
    with pytest.raises(SystemExit) as exit_:
        run_app(app, ["demo", *(places.get(argument, argument) for argument in arguments)])
    assert exit_.value.code == 2
    errors = capfd.readouterr().err.strip().splitlines()
    assert message in errors[-1] and errors[-1].startswith("error: ")
    assert not (tmp_path / "dist").exists()
