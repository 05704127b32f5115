"""Checkpoints that several tests open."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.edgeformer.checkpoints.bert_checkpoints import save_bert


@pytest.fixture(scope="session")
def intents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "intents"
    return save_bert(folder, id2label={0: "no", 1: "yes", 2: "maybe"})


@pytest.fixture
def bert(intents: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may corrupt."""
    return Path(shutil.copytree(intents, tmp_path / "intents"))
