"""What the kernel of a Raspberry Pi 5 says of its processor, for libraries that ask for it in /proc and /sys."""

from __future__ import annotations

from pathlib import Path

CORES = 4
FEATURES = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
"""Of a Cortex-A76; `asimddp` are the dot products that int8 kernels use."""

MODEL = "Raspberry Pi 5 Model B Rev 1.0"

_CORE = f"""processor\t: {{core}}
BogoMIPS\t: 108.00
Features\t: {FEATURES}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""

# Level, type, size, and whether all cores share it.
_CACHES = (
    (1, "Data", "64K", False),
    (1, "Instruction", "64K", False),
    (2, "Unified", "512K", False),
    (3, "Unified", "2048K", True),
)


def write_cpu_files(root: Path) -> None:
    """Write /proc/cpuinfo and /sys/devices/system/cpu below a folder.

    XNNPACK's cpuinfo reads them: without them LiteRT crashes in its constructor, as the files of the machine that
    emulates describe another processor.
    """
    files = {"proc/cpuinfo": "".join(_CORE.format(core=core) for core in range(CORES)) + f"Model\t\t: {MODEL}\n"}
    cpu = "sys/devices/system/cpu"
    every = f"0-{CORES - 1}"
    files |= {f"{cpu}/{name}": every for name in ("possible", "present", "online")}
    files[f"{cpu}/kernel_max"] = str(CORES - 1)
    for core in range(CORES):
        folder = f"{cpu}/cpu{core}"
        files[f"{folder}/topology/physical_package_id"] = "0"
        files[f"{folder}/topology/core_id"] = str(core)
        lists = ("cluster_cpus_list", "core_siblings_list", "package_cpus_list")
        files |= {f"{folder}/topology/{name}": every for name in lists}
        files |= {f"{folder}/cpufreq/cpuinfo_max_freq": "2400000", f"{folder}/cpufreq/cpuinfo_min_freq": "1500000"}
        for index, (level, kind, size, shared) in enumerate(_CACHES):
            cache = f"{folder}/cache/index{index}"
            files |= {f"{cache}/level": str(level), f"{cache}/type": kind, f"{cache}/size": size}
            files[f"{cache}/shared_cpu_list"] = every if shared else str(core)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")
