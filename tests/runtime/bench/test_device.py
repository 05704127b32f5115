"""What a machine tells of itself, from the files of a pretended Raspberry Pi and others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from edgeformer_runtime.bench import device
from edgeformer_runtime.bench.device import (
    Counter,
    Device,
    Gauge,
    State,
    find_meter,
    pmic_watts,
    state_now,
    this_device,
    versions,
)
from edgeformer_runtime.bench.report import new_report

CPU = "sys/devices/system/cpu"


def machine(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def raspberry(tmp_path: Path) -> Path:
    return machine(
        tmp_path,
        {
            "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
            "proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 108.00\n\nRevision\t: d04170\nModel\t\t: Raspberry Pi 5\n",
            "proc/meminfo": "MemTotal:        8255552 kB\nMemFree: 1 kB\n",
            "proc/loadavg": "0.52 0.58 0.59 1/467 1234\n",
            "etc/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "61250\n",
            "sys/class/thermal/thermal_zone1/temp": "",  # asleep
            f"{CPU}/cpu0/cpufreq/scaling_governor": "ondemand\n",
            f"{CPU}/cpu0/cpufreq/scaling_cur_freq": "2400000\n",
            f"{CPU}/cpu10/cpufreq/scaling_cur_freq": "1500000\n",
            f"{CPU}/cpu2/cpufreq/scaling_cur_freq": "1600000\n",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "50004\n",
        },
    )


def test_a_raspberry_pi(raspberry: Path) -> None:
    device = this_device(raspberry)
    assert device.model == "Raspberry Pi 5 Model B Rev 1.0"
    assert device.governor == "ondemand" and device.memory_bytes == 8255552 * 1024
    assert device.os.startswith("Debian GNU/Linux 12 (bookworm), ")
    assert state_now(raspberry) == State(
        temperatures_c={"cpu-thermal 0": 61.25},
        clocks_mhz=(2400.0, 1600.0, 1500.0),
        load_average=0.52,
        limits=("throttled", "under-voltage since boot", "throttled since boot"),
    )


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    device = this_device(tmp_path)
    assert (device.model, device.memory_bytes, device.governor) == (None, None, None) and device.os
    assert state_now(tmp_path) == State({}, (), None, ())
    assert find_meter(tmp_path) is None


def test_a_virtual_machine_tells_its_clock_in_cpuinfo(tmp_path: Path) -> None:
    machine(tmp_path, {"proc/cpuinfo": "model name\t: AMD EPYC\ncpu MHz\t\t: 2596.134\n\ncpu MHz\t\t: 2600.0\n"})
    assert state_now(tmp_path).clocks_mhz == (2596.134, 2600.0)
    assert this_device(tmp_path).cpu == "AMD EPYC"


def test_versions_name_what_is_installed() -> None:
    found = versions()
    assert {"python", "numpy", "edgeformer-runtime"} <= set(found)


def test_notes_say_what_to_doubt() -> None:
    device = Device(None, None, "aarch64", 4, None, "Linux", "ondemand")
    before = State({}, (), 3.5, ())
    after = State({}, (), 4.0, ("throttled", "under-voltage since boot"))
    assert new_report(device, {}, (before, after), 30, ()).notes == (
        "other processes were busy: a load of 3.5 on 4 cores before",
        "the clock's governor is ondemand: performance gives steadier times",
        "the board holds its clock down: throttled",
    )


def test_rapl_counts_joules_and_begins_again(tmp_path: Path) -> None:
    zone = "sys/class/powercap/intel-rapl:0"
    machine(
        tmp_path,
        {
            "sys/class/powercap/intel-rapl:1/name": "psys",
            f"{zone}/name": "package-0\n",
            f"{zone}/energy_uj": "9000000\n",
            f"{zone}/max_energy_range_uj": "10000000\n",
        },
    )
    meter = find_meter(tmp_path)
    assert isinstance(meter, Counter) and meter.name == "RAPL package-0"
    clock = iter((100.0, 102.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device.time, "perf_counter", lambda: next(clock))
        watts = meter.watts_during(lambda: (tmp_path / zone / "energy_uj").write_text("1000000"))
    assert watts == 1.0  # from 9 J over 10 J to 1 J, in 2 s


def test_a_board_with_an_energy_sensor(tmp_path: Path) -> None:
    machine(tmp_path, {"sys/class/hwmon/hwmon2/name": "amd_energy\n", "sys/class/hwmon/hwmon2/energy1_input": "5"})
    meter = find_meter(tmp_path)
    assert isinstance(meter, Counter) and meter.name == "hwmon amd_energy"


def test_a_battery_is_read_while_it_is_discharged(tmp_path: Path) -> None:
    battery = "sys/class/power_supply/BAT0"
    machine(
        tmp_path,
        {
            f"{battery}/status": "Discharging\n",
            f"{battery}/current_now": "500000",
            f"{battery}/voltage_now": "12000000",
        },
    )
    meter = find_meter(tmp_path)
    assert isinstance(meter, Gauge) and meter.name == "battery BAT0"
    assert meter.watts_during(lambda: None) == 6.0
    (tmp_path / battery / "status").write_text("Charging\n")
    assert find_meter(tmp_path) is None


def test_the_rails_of_a_raspberry_pi_5() -> None:
    answer = (
        "   3V7_WL_SW_A current(0)=0.10000000A\n   VDD_CORE_A current(7)=2.00000000A\n"
        "   3V7_WL_SW_V volt(8)=3.70000000V\n   VDD_CORE_V volt(15)=0.90000000V\n   EXT5V_V volt(24)=5.10000000V\n"
    )
    assert pmic_watts(answer) == pytest.approx(0.37 + 1.8)
    assert pmic_watts('error=1 error_msg="Command not registered"') is None


def test_a_gauge_that_goes_silent_says_so() -> None:
    assert Gauge("none", lambda: None).watts_during(lambda: None) is None
