"""Where checkpoints lie: a note for later, whose loss or whose corrupting blocks nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgeformer.checkpoints import source_index
from edgeformer.checkpoints.checkpoint import Checkpoint, open_checkpoint
from edgeformer_runtime.bundle.manifest import Classification, Manifest, Source
from edgeformer_runtime.errors import InputError
from tests.edgeformer.checkpoints.bert_checkpoints import edit_config, save_bert

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
    with pytest.raises(InputError, match="was not found on this machine"):
        source_index.find(replace(SOURCE, weights_sha256="2" * 64))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"1": 2}', b'{"' + b"1" * 64 + b'": ["x"]}', b"[" * 100_000, b'"x"',
     b"NaN", b'{"' + b"1" * 64 + b'": "a\\u0000b"}'],
)  # fmt: skip
def test_a_corrupted_index_holds_nothing_and_is_written_again(
    content: bytes, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    index(tmp_path).parent.mkdir(parents=True)
    index(tmp_path).write_bytes(content)
    with pytest.raises(InputError, match="was not found on this machine"):
        source_index.find(SOURCE)
    assert source_index.remember(checkpoint) == ()
    assert source_index.find(SOURCE) == checkpoint.folder
    assert json.loads(index(tmp_path).read_text())[SOURCE.weights_sha256] == str(checkpoint.folder)


@pytest.mark.parametrize("corrupt", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["a pipe", "no end"])
def test_an_index_that_is_no_file_is_not_read(
    corrupt: Callable[[Path], None], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    index(tmp_path).parent.mkdir(parents=True)
    corrupt(index(tmp_path))
    assert source_index.remember(checkpoint) == ()
    assert source_index.find(SOURCE) == checkpoint.folder


@pytest.mark.parametrize("corrupt", ["file in the place of the cache", "folder in the place of the index", "no home"])
def test_a_cache_that_cannot_be_written_is_a_note(
    corrupt: str, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    match corrupt:
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


def test_a_bundles_source_has_the_bundles_labels(tmp_path: Path) -> None:
    """The user named them with --labels, as the config's id2label has gaps; it is not asked for again."""
    folder = save_bert(tmp_path / "bert", num_labels=3)
    weights = open_checkpoint(folder).source
    edit_config(folder, id2label={"0": "a", "2": "c"})

    def manifest(*labels: str) -> Manifest:
        head = Classification(labels, "softmax")
        named = SimpleNamespace(source=weights, task="text-classification", postprocessing=head, name="it")
        return cast(Manifest, named)

    assert source_index.open_source(manifest("a", "b", "c"), str(folder)).labels == ("a", "b", "c")
    edit_config(folder, id2label={"0": "a", "1": "c"})
    with pytest.raises(InputError, match=r"expected 2 labels, as the checkpoint's config\.json has, found 3"):
        source_index.open_source(manifest("a", "b", "c"), str(folder))
