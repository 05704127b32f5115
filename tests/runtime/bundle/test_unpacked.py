"""One private copy of a zip for all who have it open, in however many processes; what killed ones leave is cleared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from edgeformer_runtime import delivery
from edgeformer_runtime.bundle.bundle import Bundle, pack
from edgeformer_runtime.errors import BundleError

pytestmark = pytest.mark.skipif(not delivery.available(), reason="this system has no locks that end with their process")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture
def packed(tiny: Path, tmp_path: Path) -> Path:
    pack(tiny, tmp_path / "tiny.zip")
    return tmp_path / "tiny.zip"


def copies(temporary: Path) -> list[str]:
    return sorted(path.name for home in temporary.iterdir() for path in home.iterdir() if path.is_dir())


OPEN = """
import sys
from edgeformer_runtime.bundle.bundle import Bundle
bundle = Bundle.open(sys.argv[1])
print(bundle.path("model.bin"), flush=True)
sys.stdin.read()
"""


def opened_elsewhere(path: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", OPEN, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_all_share_one_copy(packed: Path, temporary: Path) -> None:
    first, second = Bundle.open(packed), Bundle.open(packed)
    process, there = opened_elsewhere(packed)
    assert first.path("model.bin") == second.path("model.bin") == there
    assert len(copies(temporary)) == 1
    first.close()
    process.communicate("")
    assert second.read_bytes("model.bin") == bytes(range(256))
    second.close()
    assert not list(temporary.iterdir())


def test_a_copy_outlives_who_made_it(packed: Path, temporary: Path) -> None:
    process, there = opened_elsewhere(packed)
    with Bundle.open(packed) as bundle:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert bundle.path("model.bin") == there
        assert bundle.read_bytes("model.bin") == bytes(range(256))
    assert not list(temporary.iterdir())


def test_other_content_has_another_copy(tiny: Path, packed: Path, tmp_path: Path, temporary: Path) -> None:
    (tiny / "manifest.sig").write_bytes(bytes(64))
    pack(tiny, tmp_path / "signed.zip")
    with Bundle.open(packed) as plain, Bundle.open(tmp_path / "signed.zip") as signed:
        assert plain.path("model.bin") != signed.path("model.bin")
        assert len(copies(temporary)) == 2
        assert set(signed.members()) - set(plain.members()) == {"manifest.sig"}


def test_a_corrupted_zip_is_refused_beside_a_good_copy(packed: Path, tmp_path: Path, temporary: Path) -> None:
    data = packed.read_bytes()
    at = data.index(bytes(range(256)))
    (tmp_path / "corrupted.zip").write_bytes(data[:at] + b"x" + data[at + 1 :])
    with Bundle.open(packed) as bundle:
        with pytest.raises(BundleError, match=r"model\.bin"):
            Bundle.open(tmp_path / "corrupted.zip")
        assert bundle.read_bytes("model.bin") == bytes(range(256))
    assert not list(temporary.iterdir())


def test_killed_processes_leave_nothing_for_long(tiny: Path, packed: Path, tmp_path: Path, temporary: Path) -> None:
    for _ in range(3):
        process, there = opened_elsewhere(packed)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert there.exists()
    (there.parent.parent / f"{'0' * 64}.unfinished").mkdir()
    (there.parent.parent / f"{'0' * 64}.lock").touch()
    pack(tiny, tmp_path / "other.zip")
    with Bundle.open(tmp_path / "other.zip"):
        assert len(copies(temporary)) == 1
    assert not list(temporary.iterdir())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_removes_nothing(packed: Path) -> None:
    with Bundle.open(packed) as bundle:
        child = os.fork()
        if child == 0:
            bundle.close()
            os._exit(0)
        os.waitpid(child, 0)
        assert bundle.read_bytes("model.bin") == bytes(range(256))


@pytest.mark.parametrize("what", ["mode", "link", "file"])
def test_a_folder_that_others_reach_is_not_used(packed: Path, temporary: Path, tmp_path: Path, what: str) -> None:
    home = temporary / f"edgeformer-{os.getuid()}"
    if what == "mode":
        home.mkdir(mode=0o777)
        home.chmod(0o777)
    elif what == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        home.symlink_to(tmp_path / "elsewhere")
    else:
        home.touch()
    with pytest.raises(BundleError, match="expected a folder of this user alone"):
        Bundle.open(packed)
