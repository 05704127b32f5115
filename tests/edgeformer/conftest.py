"""Checkpoints that several tests open, and a bundle of one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgeformer.convert.convert import ConvertOptions, convert
from tests.checkpoint_factory import save_whisper
from tests.conftest import MakeOnce
from tests.edgeformer.checkpoints.bert_checkpoints import save_bert


@pytest.fixture(scope="session")
def intents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "intents"
    return save_bert(folder, id2label={0: "no", 1: "yes", 2: "maybe"})


@pytest.fixture
def bert(intents: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may corrupt."""
    return Path(shutil.copytree(intents, tmp_path / "intents"))


@pytest.fixture(scope="session")
def whisper(make_once: MakeOnce) -> Path:
    """A multilingual Whisper of two narrow layers."""
    return make_once("whisper", lambda folder: save_whisper(folder / "whisper")) / "whisper"


@pytest.fixture(scope="session")
def whisper_bundle(whisper: Path, make_once: MakeOnce) -> Path:
    """The same in ONNX at fp32, for 2.5 seconds and for its whole window."""

    def make(folder: Path) -> None:
        (row,) = convert(ConvertOptions(str(whisper), folder, ("onnx",), audio_seconds=(2.5,), name="small"))
        assert row.ok, row.problems

    return make_once("whisper-bundle", make) / "small.onnx.fp32"
