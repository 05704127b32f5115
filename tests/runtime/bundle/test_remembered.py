"""Bundles that were loaded before are not hashed again, but for every reason there is to do so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

import pytest

import edgeformer_runtime
from edgeformer_runtime.bundle import bundle as bundles
from edgeformer_runtime.bundle import folder as remembered
from edgeformer_runtime.bundle.bundle import Bundle, pack
from edgeformer_runtime.errors import BundleError

ROWS = {"seq_8": {"input_ids": 30}}
"""What the checks of model files found in the bundle of a note."""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="nothing is remembered where ctime is no time of change")


@pytest.fixture(autouse=True)
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of notes, in a cache of the test's own; files count as settled as soon as they are written."""
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(remembered, "SETTLED_S", -60.0)
    return cache / "edgeformer" / "checked"


@pytest.fixture
def known(tiny: Path) -> Path:
    """A bundle with a note."""
    remember(tiny)
    assert Bundle.open(tiny, remembered=True).rows == ROWS
    return tiny


def remember(folder: Path) -> None:
    """As `load` does, once it has looked through the model files."""
    with Bundle.open(folder, remembered=True) as opened:
        opened.rows = ROWS
        opened.remember()


def test_model_files_that_were_not_looked_through_are_no_reason_for_a_note(tiny: Path) -> None:
    with Bundle.open(tiny) as opened:
        opened.remember()
    assert not is_known(tiny)


def is_known(folder: Path) -> bool:
    with Bundle.open(folder, remembered=True) as opened:
        return opened.known


def test_a_known_bundle_is_not_hashed_again(known: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hashed(*_: object) -> NoReturn:
        raise AssertionError("it was hashed")

    monkeypatch.setattr(bundles, "_compare_hashes", hashed)
    assert is_known(known)
    with pytest.raises(AssertionError, match="it was hashed"):  # as `verify`, `sign` and all others open bundles
        Bundle.open(known)


def test_a_name_is_no_matter(known: Path) -> None:
    assert is_known(known.rename(known.with_name("renamed")))


def test_a_change_is_seen_whatever_is_set_back(known: Path) -> None:
    file = known / "tokenizer.json"
    before = file.stat()
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    time.sleep(0.02)  # a tick of the file system's clock, for the SETTLED_S that is left out here
    with file.open("r+b") as opened:
        opened.write(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    with pytest.raises(BundleError, match=r"tokenizer\.json: its SHA-256 differs"):
        Bundle.open(known, remembered=True)


@pytest.mark.parametrize("name", ["manifest.json", "tokenizer.json"])
def test_another_file_in_a_files_place_is_seen(known: Path, name: str) -> None:
    file = known / name
    before = file.stat()
    copy = known.with_name("copy")
    copy.write_bytes(file.read_bytes())
    os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
    copy.replace(file)
    assert not is_known(known)


def test_an_extra_file_is_refused_as_ever(known: Path) -> None:
    (known / "extra").write_bytes(b"")
    with pytest.raises(BundleError, match="extra file 'extra'"):
        Bundle.open(known, remembered=True)


def test_a_copy_is_another_bundle(known: Path, tmp_path: Path) -> None:
    pack(known, tmp_path / "packed.zip")
    with Bundle.open(tmp_path / "packed.zip", remembered=True) as opened:
        assert not opened.known
        opened.remember()
    assert not is_known(tmp_path / "packed.zip")


def test_other_code_believes_nothing(known: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "__version__", "0.0.9")
    assert not is_known(known)
    monkeypatch.undo()


def test_an_old_note_does_not_count(known: Path, notes: Path) -> None:
    (note,) = notes.iterdir()
    age_s = remembered.VALID_S
    os.utime(note, (time.time() - age_s - 60,) * 2)
    assert not is_known(known)
    os.utime(note, (time.time() + 3600,) * 2)  # the clock was set back
    assert not is_known(known)
    os.utime(note, (time.time() - age_s + 60,) * 2)
    assert is_known(known)


@pytest.mark.parametrize("open_to_others", ["note", "folder"])
def test_a_note_that_others_can_write_does_not_count(known: Path, notes: Path, open_to_others: str) -> None:
    (note,) = notes.iterdir()
    (note if open_to_others == "note" else notes).chmod(0o777)
    assert not is_known(known)
    (note if open_to_others == "note" else notes).chmod(0o700)
    assert is_known(known)


@pytest.mark.parametrize("text", ["", "nonsense", "[" * 100_000, "{}", '{"code": [], "files": {}}', "\0", "1" * 9999])
def test_a_corrupted_note_does_not_count(known: Path, notes: Path, text: str) -> None:
    (note,) = notes.iterdir()
    note.write_text(text)
    assert not is_known(known)


@pytest.mark.parametrize("rows", [None, 5, "x", [], {"seq_8": 3}, {"seq_8": {"input_ids": "9"}}, {"seq_8": {"x": 0}}])
def test_a_note_with_other_findings_does_not_count(known: Path, notes: Path, rows: object) -> None:
    (note,) = notes.iterdir()
    note.write_text(json.dumps(json.loads(note.read_text()) | {"rows": rows}))
    assert not is_known(known)


def test_what_has_just_been_written_is_not_noted(tiny: Path, notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "SETTLED_S", 60.0)
    remember(tiny)
    assert not notes.exists()


def test_where_no_note_can_be_written_all_goes_on(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tiny / "manifest.json"))
    remember(tiny)
    assert not is_known(tiny)


def test_the_oldest_notes_go(known: Path, notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MAX_NOTES", 3)
    for number in range(5):
        (notes / f"{number}.json").write_text("{}")
        os.utime(notes / f"{number}.json", (1000 + number,) * 2)
    with Bundle.open(known) as opened:
        opened.rows = ROWS
        opened.remember()
    assert sorted(path.name for path in notes.iterdir())[:2] == ["3.json", "4.json"]
    assert len(list(notes.iterdir())) == 3
    assert is_known(known)


def test_load_remembers_what_it_answered_from(tiny_onnx: Path, notes: Path) -> None:
    long = " ".join(["lights"] * 5000)
    with edgeformer_runtime.load(tiny_onnx) as first:
        assert not first.bundle.known
        expected = [first(text) for text in ("turn the lights off", long)]
    with edgeformer_runtime.load(tiny_onnx) as second:
        assert second.bundle.known
        found = [second(text) for text in ("turn the lights off", long)]
    with edgeformer_runtime.load(tiny_onnx, recheck=True) as third:
        assert not third.bundle.known
    assert [(each.labels, each.scores, each.truncated) for each in found] == [
        (each.labels, each.scores, each.truncated) for each in expected
    ]
    assert found[1].truncated
    (note,) = notes.iterdir()
    assert set(json.loads(note.read_text())["files"]) == {
        str(path.relative_to(tiny_onnx)) for path in tiny_onnx.rglob("*") if path.is_file()
    }


def test_an_answer_does_not_need_what_is_slow_to_import(tiny_onnx: Path) -> None:
    """Once a bundle is known. onnxruntime itself imports some of it, so an engine of nothing but zeros answers."""
    script = f"""
import sys
import numpy
before = set(sys.modules)
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.pipelines import open_pipeline
from edgeformer_runtime.engines import open_engine
bundle = Bundle.open({str(tiny_onnx)!r}, remembered=True)
class Zeros:
    def run(self, program, inputs):
        (spec,) = next(each for each in bundle.manifest.programs if each.name == program).outputs
        return {{spec.name: numpy.zeros(spec.shape, spec.dtype)}}
open_pipeline(bundle, Zeros())("lights")
print(bundle.known, *sorted(set(sys.modules) - before))
"""
    with edgeformer_runtime.load(tiny_onnx):
        pass
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    was_known, *imported = done.stdout.split()
    assert was_known == "True"
    slow = {"hashlib", "zipfile", "tempfile", "shutil", "email", "importlib.metadata", "importlib.resources", "difflib"}
    assert not (slow | {"jsonschema", "safetensors", "typer", "rich", "socket"}) & set(imported)
