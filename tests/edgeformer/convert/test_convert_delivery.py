"""Bundles at their places: what a new one replaces, what is said of it, and what kills and signals leave."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeformer.convert.bundle_writer import check_destination, deliver
from edgeformer_runtime import delivery
from edgeformer_runtime.bundle.bundle import Bundle, pack
from edgeformer_runtime.delivery import clear_dead, work_folder
from edgeformer_runtime.errors import InputError
from tests.runtime.tiny_bundle import make_without_model

posix = pytest.mark.skipif(not delivery.available(), reason="this system has no locks that end with their process")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_without_model(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def delivered(original: Path, out: Path, *, zipped: bool = False) -> list[str]:
    with work_folder(out) as work:
        shutil.copytree(original, work / "tiny")
        with Bundle.open(work / "tiny") as bundle:
            return deliver(bundle, out / "tiny", zipped)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_old_zip_does_not_stay_beside_a_new_folder(original: Path, out: Path) -> None:
    assert delivered(original, out, zipped=True) == []
    assert names(out) == ["tiny", "tiny.zip"]
    (note,) = delivered(original, out)
    assert note.startswith(f"{out / 'tiny.zip'} was of the bundle that is replaced, and is removed")
    assert names(out) == ["tiny"]
    assert delivered(original, out) == []


def test_a_signature_that_is_dropped_is_said(original: Path, out: Path) -> None:
    delivered(original, out)
    (out / "tiny" / "manifest.sig").write_bytes(bytes(64))
    (note,) = delivered(original, out)
    assert note == f"the bundle that {out / 'tiny'} replaces was signed: sign this one, too, with edgeformer sign"
    (out / "tiny" / "manifest.sig").write_bytes(bytes(64))
    pack(out / "tiny", out / "tiny.zip")
    shutil.rmtree(out / "tiny")
    assert [note for note in delivered(original, out, zipped=True) if "was signed" in note]
    with Bundle.open(out / "tiny.zip") as bundle:
        assert not bundle.signature.signed


def test_what_is_no_bundle_is_not_replaced(original: Path, out: Path) -> None:
    (out / "tiny.zip").write_bytes(b"notes")
    check_destination(out / "tiny", zipped=False)
    assert delivered(original, out) == [f"{out / 'tiny.zip'} is no bundle's zip, and stays as it is"]
    with pytest.raises(InputError, match=r"tiny\.zip exists and is not a bundle's zip"):
        check_destination(out / "tiny", zipped=True)
    (out / "file").touch()
    (out / "folder").mkdir()
    check_destination(out / "folder", zipped=True)
    (out / "folder" / "thesis.tex").touch()
    for name in ("file", "folder"):
        with pytest.raises(InputError, match=f"{name} exists and is not a bundle"):
            check_destination(out / name, zipped=False)


DELIVERER = """
import shutil, sys
from pathlib import Path
from edgeformer.convert.bundle_writer import deliver
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.delivery import alone, work_folder
original, out = Path(sys.argv[1]), Path(sys.argv[2])
print("ready", flush=True)
while True:
    with work_folder(out) as work, alone(out / "tiny"):
        shutil.copytree(original, work / "tiny")
        deliver(Bundle.open(work / "tiny"), out / "tiny", zipped=True)
"""

SIGNER = """
import sys
from pathlib import Path
from edgeformer.signing import sign_bundle
key, out = Path(sys.argv[1]), Path(sys.argv[2])
print("ready", flush=True)
number = int(sys.argv[3])
while True:
    number += 1
    sign_bundle(out / "tiny", key, number)
    sign_bundle(out / "tiny.zip", key, number)
"""


def killed(script: str, *arguments: object, after: float) -> None:
    process = subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    time.sleep(after)
    process.kill()
    process.communicate()


@posix
@pytest.mark.slow
def test_a_killed_delivery_leaves_a_bundle_at_its_place(original: Path, out: Path) -> None:
    delivered(original, out, zipped=True)
    generator = random.Random(0)
    for _ in range(5):
        killed(DELIVERER, original, out, after=generator.uniform(0, 0.1))
        for name in ("tiny", "tiny.zip"):
            Bundle.open(out / name).close()
    clear_dead(out)
    assert names(out) == ["tiny", "tiny.zip"]


@posix
@pytest.mark.slow
def test_a_killed_signing_leaves_a_signed_bundle_of_some_release(original: Path, out: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    from edgeformer.signing import make_keys, sign_bundle

    public = make_keys(tmp_path / "release.pem")
    delivered(original, out, zipped=True)
    for name in ("tiny", "tiny.zip"):
        sign_bundle(out / name, tmp_path / "release.pem", 1)
    generator, newest = random.Random(1), 1
    for _ in range(5):
        killed(SIGNER, tmp_path / "release.pem", out, newest, after=generator.uniform(0, 0.1))
        for name in ("tiny", "tiny.zip"):
            with Bundle.open(out / name, public, require_name="tiny", require_version=1) as bundle:
                newest = max(newest, bundle.release or 0)
    sign_bundle(out / "tiny", tmp_path / "release.pem", newest)
    assert names(out) == ["tiny", "tiny.zip"]


COMMAND = """
import sys, time
from pathlib import Path
import typer
from edgeformer_runtime.cli.console import run_app
from edgeformer_runtime.delivery import alone, work_folder
app = typer.Typer()

@app.command()
def work(out: Path) -> None:
    with work_folder(out, create=True) as folder, alone(out / "x"):
        (folder / "half").touch()
        print("ready", flush=True)
        time.sleep(60)

run_app(app, [sys.argv[1]])
"""


@posix
@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("SIGTERM", 143, "error: ended by SIGTERM\n"),
        ("SIGHUP", 129, "error: ended by SIGHUP\n"),
        ("SIGINT", 130, "error: interrupted\n"),
    ],
)
def test_signals_clear_up(tmp_path: Path, name: str, code: int, said: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(tmp_path / "new" / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As a shell starts it; a run in the background of another one, or under nohup, may have signals ignored.
        preexec_fn=lambda: signal.signal(getattr(signal, name), signal.SIG_DFL),
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(getattr(signal, name))
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr.strip()) == (code, said.strip())
    assert names(tmp_path) == []


@posix
def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """As under nohup."""
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
