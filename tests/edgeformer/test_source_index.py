"""Where checkpoints lie: a note for later, whose loss or whose spoiling blocks nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgeformer import source_index
from edgeformer.checkpoints import Checkpoint
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.manifest import Source

SOURCE = Source("local:it", None, "1" * 64)


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "it"
    folder.mkdir()
    return cast(Checkpoint, SimpleNamespace(source=SOURCE, folder=folder))


def index(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "edgeformer" / "sources.json"


def test_what_is_noted_is_found(checkpoint: Checkpoint, tmp_path: Path) -> None:
    assert source_index.remember(checkpoint) == ()
    assert source_index.find(SOURCE) == checkpoint.folder
    assert index(tmp_path).parent.stat().st_mode & 0o077 == 0
    assert [path.name for path in index(tmp_path).parent.iterdir()] == ["sources.json"]
    with pytest.raises(InputError, match="not known here"):
        source_index.find(replace(SOURCE, weights_sha256="2" * 64))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"1": 2}', b'{"' + b"1" * 64 + b'": ["x"]}', b"[" * 100_000, b'"x"',
     b"NaN", b'{"' + b"1" * 64 + b'": "a\\u0000b"}'],
)  # fmt: skip
def test_a_spoiled_index_holds_nothing_and_is_written_again(
    content: bytes, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    index(tmp_path).parent.mkdir(parents=True)
    index(tmp_path).write_bytes(content)
    with pytest.raises(InputError, match="not known here"):
        source_index.find(SOURCE)
    assert source_index.remember(checkpoint) == ()
    assert source_index.find(SOURCE) == checkpoint.folder
    assert json.loads(index(tmp_path).read_text())[SOURCE.weights_sha256] == str(checkpoint.folder)


@pytest.mark.parametrize("spoil", ["file in the place of the cache", "folder in the place of the index", "no home"])
def test_a_cache_that_cannot_be_written_is_a_note(
    spoil: str, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    match spoil:
        case "file in the place of the cache":
            (tmp_path / "cache").write_bytes(b"")
        case "folder in the place of the index":
            (index(tmp_path) / "inner").mkdir(parents=True)
        case _:
            monkeypatch.setenv("XDG_CACHE_HOME", "relative")
            monkeypatch.setenv("HOME", "relative")
    notes: Any = source_index.remember(checkpoint)
    assert len(notes) == 1
    assert "name it with --source later" in notes[0]
