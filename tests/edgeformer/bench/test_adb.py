"""Benchmarks on a phone, against a stand-in that follows adb's command line."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeformer.bench import adb
from edgeformer.bench.adb import NOTE, AdbHost
from edgeformer.bench.command import Request
from edgeformer_runtime.bench.contender import Sweep
from edgeformer_runtime.bench.device import State
from edgeformer_runtime.bundle.bundle import Bundle, pack
from edgeformer_runtime.bundle.signature import Requirement
from edgeformer_runtime.errors import BundleError, EngineError, InputError
from tests.edgeformer.bench import stand_in_adb
from tests.runtime.tiny_bundle import make_without_model

SERIAL = "R58M00000AB"


class Phone:
    """The stand-in's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.set()

    def set(self, **how: Any) -> None:
        """How the phone is; without arguments all is well."""
        fine = {"serial": SERIAL, "state": "device", "app": True, "start": "measures"}
        (self.folder / "phone.json").write_text(json.dumps(fine | how))

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "calls.jsonl").read_text().splitlines()]

    @property
    def files(self) -> list[str]:
        return [path.name for path in (self.folder / "root").rglob("*") if path.is_file()]


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Phone:
    folder = tmp_path / "phone"
    folder.mkdir()
    script = tmp_path / "bin" / "adb"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} {stand_in_adb.__file__} {folder} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(adb, "POLL_SECONDS", 0.05)
    return Phone(folder)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_without_model(tmp_path / "tiny")


def measure(*bundles: Path, **request: Any) -> Any:
    return AdbHost(f"adb://{SERIAL}", SERIAL).measure(
        Request(bundles, request.pop("sweep", Sweep()), 30, **request), lambda _: None
    )


def test_a_report_of_the_app(phone: Phone, bundle: Path, tmp_path: Path) -> None:
    pack(bundle, tmp_path / "packed.zip")
    report = measure(bundle, tmp_path / "packed.zip")
    assert report.on == f"adb://{SERIAL}" and report.notes == (NOTE,) and report.rounds == 0
    device = report.device
    assert (device.model, device.cpu, device.machine, device.cores) == ("Example Phone 7", "SM0000", "arm64-v8a", 2)
    assert device.os == "Android 14, API 34"
    assert report.before == report.after == State({"battery": 28.5}, (1800.0, 2400.0), None, ())
    assert report.versions == {"onnxruntime": "1.29.0", "org.edgeformer.demo": "0.1.0"}
    first, second = report.rows
    assert (first.name, second.name) == ("tiny", "packed")
    assert (first.ratio_to_first, second.ratio_to_first) == (1.0, 2.0)
    assert (first.latency_ms.median, first.latency_ms.runs, first.latency_ms.median_interval) == (2.0, 100, None)
    assert (first.threads, first.program, first.private_mb) == (4, "seq_16", 12.25)
    with Bundle.open(bundle) as opened:
        assert first.bundle_sha256 == second.bundle_sha256 == opened.manifest_sha256
    assert not phone.files


def test_the_command_line(phone: Phone, bundle: Path) -> None:
    """Every call names the phone; no bundle of the app's own is touched."""
    measure(bundle)
    assert all(call[:2] == ["-s", SERIAL] for call in phone.calls)
    (push,) = (call for call in phone.calls if call[2] == "push")
    target = push[4].removeprefix("/sdcard/Android/data/org.edgeformer.demo/files/bundles/")
    assert target.startswith("bench-") and target.endswith("-0.zip") and "/" not in target
    commands = [call[3].split()[:2] for call in phone.calls if call[2] == "shell"]
    assert commands[-2:] == [["am", "force-stop"], ["rm", "-f"]]


@pytest.mark.parametrize(
    ("how", "error", "problem"),
    [
        ({"serial": "other"}, InputError, f"adb://{SERIAL} cannot be reached: error: device '{SERIAL}' not found"),
        ({"state": "unauthorized"}, InputError, "cannot be reached: error: device unauthorized"),
        ({"app": False}, InputError, "the demo app is not installed on the phone"),
        ({"full": True}, InputError, "tiny could not be pushed.*No space left on device"),
        ({"start": "denied"}, InputError, "the Bench screen did not start.*not exported"),
        ({"start": "dies"}, EngineError, "the app ended without a report"),
        ({"start": "hangs"}, EngineError, "no report after 0 s"),
        ({"broken": [0]}, EngineError, "tiny: the engine cannot open model.bin"),
        ({"report": {"bundles": []}}, BundleError, "not a report of the Bench screen"),
        ({"report": {"bundles": "many"}}, BundleError, "not a report of the Bench screen"),
    ],
)
def test_what_goes_wrong(
    phone: Phone, bundle: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any], error: type, problem: str
) -> None:
    phone.set(**how)
    if how.get("start") == "hangs":
        monkeypatch.setattr(adb, "SECONDS_PER_BUNDLE", 0.0)
    with pytest.raises(error, match=problem):
        measure(bundle)
    assert not phone.files


def test_what_the_app_cannot_do(phone: Phone, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="its own number of threads"):
        measure(bundle, sweep=Sweep(threads=(1, 2)))
    with pytest.raises(InputError, match="checks no signatures"):
        measure(bundle, required=Requirement((bundle,)))
    monkeypatch.setenv("PATH", str(phone.folder))
    with pytest.raises(InputError, match="no adb here"):
        measure(bundle)


def test_the_stand_in_is_strict(phone: Phone) -> None:
    """Otherwise it would prove nothing."""
    import subprocess

    for arguments in (["devices"], ["-s", SERIAL, "shell", "reboot"], ["-s", SERIAL, "push", "--fast", "a", "/b"]):
        assert subprocess.run(["adb", *arguments], capture_output=True).returncode == 1
    outside = subprocess.run(["adb", "-s", SERIAL, "shell", "rm -f /sdcard/DCIM/photo.jpg"], capture_output=True)
    assert outside.returncode == 1 and phone.calls
