"""The machine that measures: what it is, and how warm and how busy it is before and after."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Protocol

ROOT = Path("/")

PACKAGES = (
    "edgeformer-runtime",
    "ai-edge-litert",
    "tflite-runtime",
    "onnxruntime",
    "executorch",
    "numpy",
    "openvino",
    "torch",
    "transformers",
    "faster-whisper",
    "ctranslate2",
    "pywhispercpp",
    "ncnn",
)
"""Whose versions are reported, where they are installed."""

# Bits of a Raspberry Pi's `vcgencmd get_throttled`, as its documentation numbers them.
_THROTTLED = {
    0: "under-voltage",
    1: "clock capped",
    2: "throttled",
    3: "soft temperature limit",
    16: "under-voltage since boot",
    17: "clock capped since boot",
    18: "throttled since boot",
    19: "soft temperature limit since boot",
}
_COMMAND_SECONDS = 5


@dataclass(frozen=True)
class Device:
    """What a machine is, as far as it tells; never its name in a network.

    Attributes:
        model: of the board, the phone or the computer; None: unknown.
        cpu: of the first processor; None: unknown.
        machine: the architecture, as "aarch64".
        cores: how many processors this process may use.
        memory_bytes: of the machine; None: unknown.
        os: its name and version.
        governor: which policy sets the first processor's clock, as "ondemand"; None: unknown.
    """

    model: str | None
    cpu: str | None
    machine: str
    cores: int
    memory_bytes: int | None
    os: str
    governor: str | None


@dataclass(frozen=True)
class State:
    """How a machine is at one moment, as far as it tells.

    Attributes:
        temperatures_c: of each sensor by its name, in degrees Celsius.
        clocks_mhz: of each processor.
        load_average: processes that ran or waited, over the last minute; None: unknown.
        limits: what holds a Raspberry Pi's clock down, or did so since it was started.
    """

    temperatures_c: dict[str, float]
    clocks_mhz: tuple[float, ...]
    load_average: float | None
    limits: tuple[str, ...]


def this_device(root: Path = ROOT) -> Device:
    """The machine that this process runs on; `root` is where its system files are read."""
    cpuinfo = _text(root / "proc/cpuinfo") or ""
    model = _text(root / "proc/device-tree/model") or _text(root / "sys/devices/virtual/dmi/id/product_name")
    return Device(
        model=model or _field(cpuinfo, "Model"),
        cpu=_field(cpuinfo, "model name") or _field(cpuinfo, "Hardware") or platform.processor() or None,
        machine=platform.machine(),
        cores=len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1,
        memory_bytes=_memory_bytes(_text(root / "proc/meminfo") or ""),
        os=_system(root),
        governor=_text(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
    )


def state_now(root: Path = ROOT) -> State:
    """How the machine is at this moment; `root` is where its system files are read."""
    load = _text(root / "proc/loadavg")
    return State(
        temperatures_c=dict(_temperatures(root)),
        clocks_mhz=tuple(_clocks(root)),
        load_average=None if load is None else float(load.split()[0]),
        limits=_limits(root),
    )


def versions() -> dict[str, str]:
    """The installed ones of `PACKAGES`, and Python's own."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def ask_firmware(*question: str) -> str | None:
    """What a Raspberry Pi's `vcgencmd` answers; None where there is none, or it does not know."""
    if shutil.which("vcgencmd") is None:
        return None
    try:
        done = subprocess.run(
            ["vcgencmd", *question], capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _temperatures(root: Path) -> Iterator[tuple[str, float]]:
    """Sensors in millidegrees; some cannot be read while they sleep."""
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        value = _number(zone / "temp")
        if value is not None:
            name = _text(zone / "type") or "zone"
            yield f"{name} {zone.name.removeprefix('thermal_zone')}", value / 1e3


def _clocks(root: Path) -> Iterator[float]:
    """In MHz; virtual machines have no cpufreq, but x86 tells in /proc/cpuinfo."""
    files = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
    found = [_number(file) for file in sorted(files, key=lambda file: int(file.parts[-3][3:]))]
    if found:
        yield from (value / 1e3 for value in found if value is not None)
    else:
        yield from map(float, re.findall(r"(?m)^cpu MHz\s*:\s*([0-9.]+)$", _text(root / "proc/cpuinfo") or ""))


def _limits(root: Path) -> tuple[str, ...]:
    firmware = _text(root / "sys/devices/platform/soc/soc:firmware/get_throttled")
    if firmware is None:
        answer = ask_firmware("get_throttled") if root == ROOT else None
        firmware = None if answer is None else answer.strip().rpartition("=")[2]
    if firmware is None:
        return ()
    bits = int(firmware, 16)
    return tuple(name for bit, name in _THROTTLED.items() if bits >> bit & 1)


def _system(root: Path) -> str:
    release = _text(root / "etc/os-release") or ""
    name = re.search(r'(?m)^PRETTY_NAME="?([^"\n]*)', release)
    kernel = f"{platform.system()} {platform.release()}"
    return f"{name[1]}, {kernel}" if name else kernel


def _memory_bytes(meminfo: str) -> int | None:
    found = _field(meminfo, "MemTotal")
    return None if found is None else int(found.split()[0]) * 1024


def _field(text: str, key: str) -> str | None:
    found = re.search(rf"(?m)^{key}\s*:\s*(.*\S)", text)
    return found[1] if found else None


def _number(file: Path) -> float | None:
    text = _text(file)
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _text(file: Path) -> str | None:
    """A system file's text without what surrounds it; None where it is missing, empty or not for us."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip("\0 \n\t") or None
    except OSError:
        return None


# Energy, where the device tells: counters of joules (RAPL, hwmon), or readings of watts (Pi 5, batteries).


BUSY_SECONDS = 1.0
"""How long each contender runs without a pause while energy is measured; as long as the idle machine is looked at."""

SAMPLE_SECONDS = 0.1


@dataclass(frozen=True)
class Energy:
    """What a contender took, of the whole of what the meter sees.

    Attributes:
        meter: what measured, as "RAPL package-0".
        joules_per_run: the machine's idle power included.
        watts: the mean while it ran without a pause.
        idle_watts: the mean while nothing of ours ran, right before.
    """

    meter: str
    joules_per_run: float
    watts: float
    idle_watts: float


class Meter(Protocol):
    """Tells the mean power while something happens."""

    name: str

    def watts_during(self, action: Callable[[], object]) -> float | None:
        """The mean power in watts from the action's begin to its end; None: it could not be read this time."""


class Counter:
    """A counter of microjoules that a driver keeps."""

    def __init__(self, name: str, file: Path, range_uj: int | None) -> None:
        """`range_uj`: at which value it starts again from zero; None: never."""
        self.name = name
        self._file = file
        self._range_uj = range_uj

    def watts_during(self, action: Callable[[], object]) -> float:
        """See `Meter`. The counter may pass its end once meanwhile."""
        before, start = self._microjoules(), time.perf_counter()
        action()
        used, seconds = self._microjoules() - before, time.perf_counter() - start
        if used < 0 and self._range_uj is not None:
            used += self._range_uj
        return used / 1e6 / seconds

    def _microjoules(self) -> int:
        return int(self._file.read_text())


class Gauge:
    """Readings of the power at one moment, taken again and again while something happens."""

    def __init__(self, name: str, read_watts: Callable[[], float | None]) -> None:
        """`read_watts`: the power now, or None where it could not be read this time."""
        self.name = name
        self._read_watts = read_watts

    def watts_during(self, action: Callable[[], object]) -> float | None:
        """See `Meter`. The readings are taken beside the action."""
        readings: list[float] = []
        done = threading.Event()

        def watch() -> None:
            while True:
                watts = self._read_watts()
                if watts is not None:
                    readings.append(watts)
                if done.wait(SAMPLE_SECONDS):
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            action()
        finally:
            done.set()
            watcher.join()
        return sum(readings) / len(readings) if readings else None


def find_meter(root: Path = ROOT) -> Meter | None:
    """The best meter that this machine has and lets us read; `root` is where its system files are read."""
    for zone in sorted((root / "sys/class/powercap").glob("*-rapl:*")):
        if (zone / "name").is_file() and (zone / "name").read_text().startswith("package"):
            limit = zone / "max_energy_range_uj"
            name = f"RAPL {(zone / 'name').read_text().strip()}"
            if _readable(zone / "energy_uj"):
                return Counter(name, zone / "energy_uj", int(limit.read_text()) if _readable(limit) else None)
    for file in sorted((root / "sys/class/hwmon").glob("hwmon*/energy*_input")):
        if _readable(file):
            return Counter(f"hwmon {(file.parent / 'name').read_text().strip()}", file, None)
    if root == ROOT and read_pmic_watts() is not None:
        return Gauge("PMIC of the board", read_pmic_watts)
    for supply in sorted((root / "sys/class/power_supply").glob("*")):
        read = _battery(supply)
        if read() is not None:
            return Gauge(f"battery {supply.name}", read)
    return None


def read_pmic_watts() -> float | None:
    """The power of all rails that a Raspberry Pi 5 measures; None on other machines."""
    answer = ask_firmware("pmic_read_adc")
    return None if answer is None else pmic_watts(answer)


def pmic_watts(answer: str) -> float | None:
    """Volts times amperes over the rails of `vcgencmd pmic_read_adc`, whose lines are `NAME_A current(7)=0.0123A`."""
    values = {name: float(value) for name, value in re.findall(r"(\w+_[AV]) \w+\(\d+\)=([0-9.]+)[AV]", answer)}
    rails = [
        values[name] * values[f"{name[:-2]}_V"] for name in values if name[-1] == "A" and f"{name[:-2]}_V" in values
    ]
    return sum(rails) if rails else None


def _battery(supply: Path) -> Callable[[], float | None]:
    """A battery's power while it is discharged: from its own figure, or from current and voltage, in micro units."""

    def read() -> float | None:
        try:
            if (supply / "status").read_text().strip() != "Discharging":
                return None
            if (supply / "power_now").is_file():
                return abs(int((supply / "power_now").read_text())) / 1e6
            current, voltage = (int((supply / name).read_text()) for name in ("current_now", "voltage_now"))
        except (OSError, ValueError):
            return None
        return abs(current) * voltage / 1e12

    return read


def _readable(file: Path) -> bool:
    """RAPL's counter is for root alone on most systems."""
    try:
        int(file.read_text())
    except (OSError, ValueError):
        return False
    return True
