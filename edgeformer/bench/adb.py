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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeformer_runtime.bench.contender import Sweep
from edgeformer_runtime.bench.device import Device, State
from edgeformer_runtime.bench.report import CONFIDENCE, MAX_BYTES, Quantiles, Report, Row, from_json, to_json
from edgeformer_runtime.bundle.bundle import Bundle, pack
from edgeformer_runtime.bundle.signature import NO_REQUIREMENT
from edgeformer_runtime.bundle.strict_json import load_file
from edgeformer_runtime.errors import BundleError, EngineError, InputError

if TYPE_CHECKING:
    from edgeformer.bench.command import Request, Tell

# The report of the demo app's Bench screen, as a report like all others.


APP = "org.edgeformer.demo"

NOTE = "measured by the app, one bundle after the other: no intervals, and a phone that gets warm gets slow"


@dataclass(frozen=True)
class Phone:
    """What a phone says of itself; empty texts where it says nothing."""

    manufacturer: str
    model: str
    soc: str
    release: str
    api: str
    abi: str
    cores: int
    app_version: str | None


def read_report(
    raw: Any, on: str, phone: Phone, states: tuple[State, State], shown: dict[str, str], digests: dict[str, str]
) -> Report:
    """The app's JSON (BenchReport.kt) as a report.

    Args:
        raw: parsed JSON.
        on: the machine, as it was asked for.
        phone: what it is.
        states: before and after.
        shown: the bundle's own name for each name that the app knows; the first is what ratios refer to.
        digests: of the bundles, by the names that the app knows.

    Raises:
        BundleError: the JSON is not what the app writes.
        EngineError: the app could not measure a bundle.
    """
    where = f"what {on} sent"
    try:
        found = {row["name"]: row for row in raw["bundles"]}
        failed = next((row for row in found.values() if "error" in row), None)
        if failed is not None:
            raise EngineError(f"{on}: {shown.get(failed['name'], failed['name'])}: {failed['error']}")
        chosen = {name: found[name] for name in shown}
        first = next(iter(chosen.values()))["latency_ms"]["median"]
        rows = tuple(_row(row, shown[name], digests[name], first) for name, row in chosen.items())
        engines = [str(row["executed_by"]).rpartition(" ") for row in chosen.values()]
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise BundleError(f"{where}: not a report of the Bench screen: {error!r}") from None
    versions = {engine: version for engine, _, version in engines}
    if phone.app_version is not None:
        versions[APP] = phone.app_version
    report = Report(on, _device(phone), versions, *states, 0, CONFIDENCE, rows, (NOTE,))
    return from_json(to_json([report]), where)[0]  # the app's values are checked like everybody's


def _device(phone: Phone) -> Device:
    return Device(
        model=f"{phone.manufacturer} {phone.model}".strip() or None,
        cpu=phone.soc or None,
        machine=phone.abi,
        cores=phone.cores,
        memory_bytes=None,
        os=f"Android {phone.release}, API {phone.api}",
        governor=None,
    )


def _row(row: dict[str, Any], name: str, digest: str, first_ms: float) -> Row:
    latency = row["latency_ms"]
    return Row(
        name=name,
        engine=row["engine"],
        precision=row["precision"],
        program=row["program"],
        threads=row["threads"],
        batch=1,
        size_bytes=row["size_bytes"],
        bundle_sha256=digest,
        latency_ms=Quantiles(latency["median"], latency["p90"], latency["runs"], None, None),
        cpu_ms=None,
        load_ms=row["load_ms"],
        peak_rss_mb=None,
        private_mb=row["memory_mb"],
        arena_mb=None,
        energy=None,
        ratio_to_first=latency["median"] / first_ms,
        ratio_interval=None,
    )


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
            raise InputError(f"{self.name}: the app checks no signatures: run edgeformer verify on this machine first")
        if request.isolated:
            raise InputError(f"{self.name}: the app always runs bundles in its own process: leave out --isolated")
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
                f"{self.name}: the demo app is not installed on the phone: run `make android`, then install its APK "
                "with adb"
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
