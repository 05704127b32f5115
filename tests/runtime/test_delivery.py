"""Outputs appear whole or not at all, also where the process is killed, and the next run clears what it left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeformer_runtime import delivery
from edgeformer_runtime.delivery import PREFIX, alone, clear_dead, put, replacing, work_folder
from edgeformer_runtime.errors import InputError

posix = pytest.mark.skipif(not delivery.available(), reason="this system has no locks that end with their process")


def make(folder: Path, content: str) -> Path:
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_text(content)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["exchange", "two renames"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "two renames":
        monkeypatch.setattr(delivery, "_exchange", lambda *_: False)
    return str(request.param)


@pytest.mark.usefixtures("system")
def test_an_output_replaces_another(tmp_path: Path) -> None:
    place = tmp_path / "out" / "bundle"
    for content in ("first", "second", "third"):
        with work_folder(place.parent, create=True) as work:
            put(make(work / "bundle", content), place)
        assert (place / "b").read_text() == content
        assert names(place.parent) == ["bundle"]


@pytest.mark.usefixtures("system")
def test_files_and_links(tmp_path: Path) -> None:
    target = tmp_path / "target.html"
    target.write_text("old")
    (tmp_path / "link.html").symlink_to(target)
    with replacing(tmp_path / "link.html") as fresh:
        fresh.write_text("new")
    assert (tmp_path / "link.html").is_symlink()
    assert target.read_text() == "new"
    with work_folder(tmp_path) as work:
        put(make(work / "target.html", "folder"), target)
    assert (target / "a").read_text() == "folder"
    assert names(tmp_path) == ["link.html", "target.html"]


def test_an_error_leaves_everything_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), work_folder(tmp_path / "new" / "out", create=True) as work:
        make(work / "bundle", "x")
        raise RuntimeError
    assert names(tmp_path) == []
    with pytest.raises(InputError, match="cannot write into"), work_folder(tmp_path / "nowhere"):
        pass
    (tmp_path / "page").write_text("old")
    with pytest.raises(RuntimeError), replacing(tmp_path / "page") as fresh:
        fresh.write_text("half")
        raise RuntimeError
    assert (tmp_path / "page").read_text() == "old"
    assert names(tmp_path) == ["page"]


def test_modes_are_the_umasks(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "page") as fresh:
            fresh.write_text("x")
        with work_folder(tmp_path) as work:
            put(make(work / "bundle", "x"), tmp_path / "bundle")
    finally:
        os.umask(before)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("page", "bundle", "bundle/a")]
    assert modes == [0o640, 0o750, 0o640]


@posix
def test_a_run_keeps_others_away(tmp_path: Path) -> None:
    place = tmp_path / "bundle"
    with alone(place):
        with pytest.raises(InputError, match=rf"another run \(process {os.getpid()}\) is writing it"), alone(place):
            pass
        with alone(tmp_path / "other"), work_folder(tmp_path):
            clear_dead(tmp_path)
        assert names(tmp_path) == [f"{PREFIX}bundle.lock"], "what is in use stays"
    assert names(tmp_path) == []


@posix
@pytest.mark.usefixtures("system")
def test_what_a_dead_run_left_is_cleared(tmp_path: Path) -> None:
    place = make(tmp_path / "bundle", "old")
    alive = work_folder(tmp_path)
    kept = alive.__enter__()
    (kept / "busy").touch()
    # Killed between the two renames of a system that knows no exchange.
    dead = tmp_path / f"{PREFIX}dead"
    (dead / "old").mkdir(parents=True)
    place.rename(dead / "old" / "bundle")
    (tmp_path / f"{PREFIX}gone.lock").write_text("1")
    (tmp_path / f"{PREFIX}early").mkdir()
    with work_folder(tmp_path):
        assert (place / "a").read_text() == "old"
    assert names(tmp_path) == sorted([kept.parent.name, "bundle"])
    assert (kept / "busy").exists()
    alive.__exit__(None, None, None)
    assert names(tmp_path) == ["bundle"]


WRITER = """
import sys
from pathlib import Path
from edgeformer_runtime import delivery
if sys.argv[2] == "two renames":
    delivery._exchange = lambda *_: False
place = Path(sys.argv[1])
print("ready", flush=True)
for number in range(1_000_000):
    with delivery.work_folder(place.parent) as work, delivery.alone(place):
        (work / "bundle").mkdir()
        for name in "ab":
            (work / "bundle" / name).write_text(str(number))
        delivery.put(work / "bundle", place)
"""


@posix
@pytest.mark.parametrize("how", ["exchange", "two renames"])
def test_kills_lose_nothing(tmp_path: Path, how: str) -> None:
    """What stands at the place is always one whole output; the next run clears all that was left."""
    place = make(tmp_path / "bundle", "old")
    generator = random.Random(0)
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(place), how], stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        time.sleep(generator.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if how == "two renames":
            clear_dead(tmp_path)
        assert (place / "a").read_text() == (place / "b").read_text()
    with work_folder(tmp_path):
        pass
    assert names(tmp_path) == ["bundle"]


def test_a_file_does_not_take_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"folder is a folder: expected a file's name"), replacing(tmp_path / "folder"):
        pytest.fail("nothing is made for it")
    assert (tmp_path / "folder" / "thesis.tex").exists()
