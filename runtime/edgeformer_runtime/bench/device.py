"""The machine that measures: what it is, and how warm and how busy it is before and after."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

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
