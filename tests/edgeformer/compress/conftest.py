"""What recipes are tried on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.edgeformer.compress import tiny


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a classifier and a teacher."""
    folder = tmp_path_factory.mktemp("compress")
    tiny.save_texts(folder / "texts.json")
    tiny.save_classifier(folder / "student")
    tiny.save_bert(folder / "teacher")
    tiny.save_bert(folder / "bare", classifier=False)
    return folder
