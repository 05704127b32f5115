"""What `--on` takes, and the wheel that is sent."""

from __future__ import annotations

import csv
import hashlib
import subprocess
import sys
import zipfile
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from edgeformer.bench.adb import AdbHost
from edgeformer.bench.command import open_host
from edgeformer.bench.ssh import SshHost, write_runtime_wheel
from edgeformer_runtime.bench.report import SCHEMA
from edgeformer_runtime.errors import InputError


@pytest.mark.parametrize("on", ["ssh://pi@raspberrypi", "ssh://raspberrypi.local:2222", "ssh://pi@[fe80::1]:22"])
def test_ssh(on: str) -> None:
    host = open_host(on)
    assert isinstance(host, SshHost) and host.name == on


@pytest.mark.parametrize("on", ["adb://R58M12ABCDE", "adb://emulator-5554", "adb://192.168.1.7:5555"])
def test_adb(on: str) -> None:
    host = open_host(on)
    assert isinstance(host, AdbHost) and host.name == on


@pytest.mark.parametrize(
    "on",
    [
        *("raspberrypi", "http://raspberrypi", "ssh://", "ssh://-oProxyCommand=true", "ssh://a@b@c", "ssh://pi@host:0"),
        *("ssh://pi@host:99999", "ssh://pi@host/folder", "ssh://pi:secret@host", "ssh://a b", "ssh://host;true"),
        *("adb://", "adb://-s", "adb://a b", "local://x", "ssh:/pi", "ssh://pi@[zz]"),
    ],
)
def test_what_names_no_machine(on: str) -> None:
    with pytest.raises(InputError, match="expected"):
        open_host(on)


def test_the_wheel_is_what_pip_installs(tmp_path: Path) -> None:
    wheel = write_runtime_wheel(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (record,) = (name for name in names if name.endswith("/RECORD"))
        for name, digest, size in csv.reader(archive.read(record).decode().splitlines()):
            if name != record:
                data = archive.read(name)
                assert size == str(len(data))
                assert digest == "sha256=" + urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            names.remove(name)
    assert not names
    (tmp_path / "again").mkdir()
    assert write_runtime_wheel(tmp_path / "again").read_bytes() == wheel.read_bytes()
    target = tmp_path / "target"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
        str(wheel),
    ]
    subprocess.run(pip, check=True)
    assert (target / "edgeformer_runtime" / SCHEMA).is_file()
    assert (target / "bin" / "edgeformer-runtime").is_file()
