"""A phone behind adb: the demo app's Bench screen measures, started by an intent; its report is pulled.

Bundles are pushed into the app's own folder under names that no other bundle has, and removed afterwards.
"""

from __future__ import annotations

import re
import secrets
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from edgeformer.bench.android_report import APP, Phone, read_report
from edgeformer.bench.request import Request, Tell
from edgeformer_runtime.bench.bundles import Sweep
from edgeformer_runtime.bench.device import State
from edgeformer_runtime.bench.report import MAX_BYTES, Report
from edgeformer_runtime.bundle.bundle import Bundle, pack
from edgeformer_runtime.bundle.requirement import NO_REQUIREMENT
from edgeformer_runtime.bundle.strict_json import load_file
from edgeformer_runtime.errors import EngineError, InputError

SCREEN = f"{APP}/{APP}.BenchActivity"
FILES = f"/sdcard/Android/data/{APP}/files"
POLL_SECONDS = 2.0
SECONDS_PER_BUNDLE = 180.0

_PROPERTIES = {
    "manufacturer": "ro.product.manufacturer",
    "model": "ro.product.model",
    "soc": "ro.soc.model",
    "release": "ro.build.version.release",
    "api": "ro.build.version.sdk",
    "abi": "ro.product.cpu.abi",
}
_CLOCKS = "cat /sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq 2>/dev/null"


class AdbHost:
    """See `Host`."""

    def __init__(self, name: str, serial: str) -> None:
        """`serial`: as `adb devices` lists it."""
        self.name = name
        self._adb = ("adb", "-s", serial)

    def measure(self, request: Request, tell: Tell) -> Report:
        """See `Host`."""
        if request.sweep != Sweep():
            raise InputError(f"{self.name}: the app measures the largest program with its own number of threads, alone")
        if request.required != NO_REQUIREMENT:
            raise InputError(f"{self.name}: the app checks no signatures: verify them here")
        if request.isolated:
            raise InputError(f"{self.name}: the app runs bundles in its own process: expected no --isolated")
        if shutil.which("adb") is None:
            raise InputError(f"{self.name}: there is no adb here: install Android's platform tools")
        tell(f"{self.name}: connecting")
        phone = self._phone()
        token = secrets.token_hex(8)
        names = {f"bench-{token}-{index}": path for index, path in enumerate(request.bundles)}
        report = f"{FILES}/bench/{token}.json"
        try:
            tell(f"{self.name}: sending bundles")
            self._push(names)
            before = self._state()
            tell(f"{self.name}: measuring")
            self._start(token, list(names))
            raw = self._pull(report, SECONDS_PER_BUNDLE * len(names))
            after = self._state()
        finally:
            pushed = [f"{FILES}/bundles/{name}.zip" for name in names]
            self._shell("am", "force-stop", APP)
            self._shell("rm", "-f", report, *pushed)
        shown = {name: path.resolve().name.removesuffix(".zip") for name, path in names.items()}
        return read_report(raw, self.name, phone, (before, after), shown, _digests(names))

    def _phone(self) -> Phone:
        """What the phone is, once it is known that it is there and has the app."""
        state = self._call("get-state")
        if state.returncode or state.stdout.strip() != "device":
            raise InputError(f"{self.name} cannot be reached: {_last_line(state.stdout + state.stderr)}")
        if "package:" not in self._shell("pm", "path", APP).stdout:
            raise InputError(
                f"{self.name}: the demo app is not installed there: make android, then adb install its APK"
            )
        found = {key: self._shell("getprop", name).stdout.strip() for key, name in _PROPERTIES.items()}
        version = re.search(r"versionName=(\S+)", self._shell("dumpsys", "package", APP).stdout)
        cores = re.findall(r"(?m)^processor\s*:", self._shell("cat", "/proc/cpuinfo").stdout)
        return Phone(**found, cores=max(1, len(cores)), app_version=version[1] if version else None)

    def _state(self) -> State:
        """The battery's temperature and the clocks, as far as a shell may see them."""
        tenths = re.search(r"(?m)^\s*temperature: (-?\d+)$", self._shell("dumpsys", "battery").stdout)
        clocks = re.findall(r"(?m)^\d+$", self._shell(_CLOCKS).stdout)
        return State(
            temperatures_c={"battery": int(tenths[1]) / 10} if tenths else {},
            clocks_mhz=tuple(int(clock) / 1e3 for clock in clocks),
            load_average=None,
            limits=(),
        )

    def _push(self, names: dict[str, Path]) -> None:
        with tempfile.TemporaryDirectory() as work:
            for name, path in names.items():
                file = path
                if not path.is_file():
                    file = Path(work) / f"{name}.zip"
                    pack(path, file)
                done = self._call("push", str(file), f"{FILES}/bundles/{name}.zip")
                if done.returncode:
                    raise InputError(
                        f"{self.name}: {path.name} could not be pushed: {_last_line(done.stdout + done.stderr)}"
                    )

    def _start(self, token: str, names: list[str]) -> None:
        """Show the Bench screen, which measures these bundles alone and writes the report of that name."""
        self._shell("input", "keyevent", "KEYCODE_WAKEUP")
        extras = ["--es", "report", token, "--es", "bundles", ",".join(names)]
        done = self._shell("am", "start", "-W", "-S", "-n", SCREEN, *extras)
        said = done.stdout + done.stderr
        if done.returncode or "Error" in said or "Exception" in said:  # am ends with 0 whatever happens
            raise InputError(f"{self.name}: the Bench screen did not start, is the app too old? {_last_line(said)}")

    def _pull(self, report: str, seconds: float) -> Any:
        """The report, when it is there: the app gives it its name when it is complete."""
        deadline = time.monotonic() + seconds
        while "ready" not in self._shell(f"[ -f {shlex.quote(report)} ] && echo ready").stdout:
            if not self._shell("pidof", APP).stdout.strip():
                raise EngineError(f"{self.name}: the app ended without a report: a bundle may need too much memory")
            if time.monotonic() > deadline:
                raise EngineError(f"{self.name}: no report after {seconds:.0f} s: is the phone locked?")
            time.sleep(POLL_SECONDS)
        with tempfile.TemporaryDirectory() as work:
            local = Path(work) / "report.json"
            done = self._call("pull", report, str(local))
            if done.returncode:
                raise EngineError(f"{self.name}: no report came back: {_last_line(done.stdout + done.stderr)}")
            return load_file(local, f"what {self.name} sent", MAX_BYTES)

    def _shell(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the phone; a single argument is a line of its shell."""
        line = command[0] if len(command) == 1 else shlex.join(command)
        return self._call("shell", line)

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._adb, *arguments], capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL
        )


def _digests(names: dict[str, Path]) -> dict[str, str]:
    """The hash of each bundle's manifest, by the name that it was pushed under."""
    found = {}
    for name, path in names.items():
        with Bundle.open(path) as bundle:
            found[name] = bundle.manifest_sha256
    return found


def _last_line(said: str) -> str:
    lines = said.strip().splitlines()
    return lines[-1].strip() if lines else "it does not say why"
