"""Energy, where the device tells: counters of joules (RAPL, hwmon), or readings of watts (Pi 5, batteries)."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgeformer_runtime.bench.device import ROOT, ask_firmware

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
        """`range_uj`: at which value it begins again from zero; None: never."""
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
