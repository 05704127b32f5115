"""Mutated bundles by the thousand: they open or are refused in one line; no crash, no hang, nothing written outside."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mutations import Files, corrupted, corrupted_zip, usable_in_a_folder, zipped
from tiny_speech_bundle import NoiseEngine, make_speech_without_model

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.cli.tables import bundle_table
from edgeformer_runtime.errors import EdgeFormerError
from edgeformer_runtime.verify.verify import verify

MUTATIONS = int(os.environ.get("EDGEFORMER_FUZZ", "1000"))
"""How many bundles; more take longer: EDGEFORMER_FUZZ=100000 pytest tests/runtime/bundle/test_fuzz_bundles.py."""

HANG_SECONDS = 20


class Hang(BaseException):
    """A bundle kept the reader busy."""


@contextmanager
def guarded() -> Iterator[None]:
    """Turn a hang into a failure."""

    def stop(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANG_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def originals(
    tiny_original: Path,
    tiny_embedder: Path,
    tiny_image_original: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> list[Files]:
    """A bundle of each task."""
    speech = make_speech_without_model(tmp_path_factory.mktemp("bundles") / "tiny_speech")
    return [content(folder) for folder in (tiny_original, tiny_embedder, tiny_image_original, speech)]


def content(folder: Path) -> Files:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def written(files: Files, place: Path, generator: random.Random) -> Path:
    """The bundle on disk: a folder, a zip, or a zip with a corrupted header."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    if generator.random() < 0.5:
        folder = place / "bundle"
        folder.mkdir()
        for name, data in files.items():
            path = folder / name
            if usable_in_a_folder(name) and not path.is_dir() and not any(p.is_file() for p in path.parents):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        return folder
    path = place / "bundle.zip"
    data = zipped(files)
    path.write_bytes(corrupted_zip(data, generator) if generator.random() < 0.4 else data)
    return path


def use(path: Path) -> str:
    """Do what `inspect` and `verify` do; returns how it ended."""
    try:
        with Bundle.open(path) as bundle:
            bundle_table(bundle)
            return "ok" if verify(bundle, NoiseEngine(bundle.manifest.programs)).ok else "diverges"
    except EdgeFormerError as error:
        message = str(error)
        assert message
        assert "\n" not in message
        assert len(message) < 1000
        return type(error).__name__


def test_mutated_bundles(originals: list[Files], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary, place = tmp_path / "temporary", tmp_path / "place"
    temporary.mkdir()
    (tmp_path / "outside.bin").write_bytes(b"untouched")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.chdir(tmp_path)
    ends: Counter[str] = Counter()
    for seed in range(MUTATIONS):
        generator = random.Random(seed)
        files = corrupted(generator.choice(originals), generator)
        path = written(files, place, generator)
        before = content(place)
        try:
            with guarded():
                ends[use(path)] += 1
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
        assert content(place) == before, f"seed {seed} changed its own files"
        assert not list(temporary.iterdir()), f"seed {seed} left files behind"
        assert sorted(each.name for each in tmp_path.iterdir()) == ["outside.bin", "place", "temporary"]
    assert (tmp_path / "outside.bin").read_bytes() == b"untouched"
    # The mutations are neither all harmless nor all refused at the door: some reach the vectors and the answer.
    assert ends["BundleError"] > MUTATIONS / 2
    assert ends["ok"] + ends["diverges"] > MUTATIONS / 50
