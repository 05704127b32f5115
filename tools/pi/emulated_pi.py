"""A Raspberry Pi's system in a folder, and aarch64 Python in it, run by qemu's user emulation."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tools import debian
from tools.pi.cpu_files import write_cpu_files

PYTHON_VERSION = "3.11"
RECIPE = debian.RootRecipe(
    suite="bookworm",
    packages=("python3", "libstdc++6", "libgomp1", "libatomic1"),
    architecture="arm64",
    variant="extract",
    revision=1,
)
"""Raspberry Pi OS of 64 bits is Debian with other defaults: this is the same Python and the same C library."""

EMULATED_PI = "pi-root"
"""The root's folder in the cache."""

EMULATOR = ("qemu-aarch64-static", "-cpu", "cortex-a76")
"""The core of a Raspberry Pi 5."""

LONGEST_S = 900.0
"""What one run in emulation may take. qemu's user emulation sometimes leaves a process of several threads waiting."""

# qemu cannot start the programs that an emulated process starts, unless the kernel is told about their format. So
# Python must take this script for itself when it starts another Python.
_LAUNCHER = """#!/bin/sh
# Runs the root's Python in emulation; arguments go to it.
root=$(dirname "$(readlink -f "$0")")
exec {emulator} -L "$root" "$root/usr/bin/python{version}" "$@"
"""
_STARTUP = (
    "import os, sys; sys.executable = sys._base_executable = os.path.join(os.path.dirname(sys.prefix), 'python')\n"
)


@dataclass(frozen=True)
class EmulatedPi:
    """A root with Python.

    Attributes:
        root: the folder that holds the system. Programs in emulation see its files first, then this machine's.
    """

    root: Path

    @property
    def python(self) -> Path:
        """The command that runs aarch64 Python."""
        return self.root / "python"

    @property
    def site_packages(self) -> Path:
        """Where packages lie that pip installs for all users."""
        return self.root / "usr" / "local" / "lib" / f"python{PYTHON_VERSION}" / "dist-packages"

    def run(
        self, *arguments: str | Path, within_s: float = LONGEST_S, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run Python in this folder, and end what it started.

        Args:
            arguments: of Python.
            within_s: how long it may take.
            environment: variables besides this process's.

        Returns:
            The exit status, and all that was printed, as `stdout`. A run that took too long was killed, which its
            status (negative) and the last line of `stdout` say.
        """
        # A file, not a pipe: a process that emulation left hanging would keep the pipe open for ever.
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as printed:
            process = subprocess.Popen(
                [self.python, *arguments],
                env=clean_environment() | environment,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            late = ""
            try:
                process.wait(within_s)
            except subprocess.TimeoutExpired:
                late = f"\nstopped after {within_s:.0f} s"
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            printed.seek(0)
            return subprocess.CompletedProcess(process.args, process.returncode, printed.read() + late)


def clean_environment() -> dict[str, str]:
    """This process's variables without those that lead Python to another environment's packages."""
    strange = ("PYTHON", "VIRTUAL_ENV", "LD_")
    return {name: value for name, value in os.environ.items() if not name.startswith(strange)}


def open_pi() -> EmulatedPi:
    """The emulated Pi without any Python packages, made where it is missing.

    Raises:
        SetupError: not root, no mirror of Debian, or a tool that failed.
    """
    debian.install({EMULATOR[0]: "qemu-user-static"})
    return EmulatedPi(debian.open_root(EMULATED_PI, RECIPE, _finish))


def _finish(root: Path) -> None:
    """Add what an unpacked system lacks: the processor's files, and the launcher."""
    write_cpu_files(root)
    launcher = root / "python"
    launcher.write_text(_LAUNCHER.format(emulator=" ".join(EMULATOR), version=PYTHON_VERSION), encoding="utf-8")
    launcher.chmod(0o755)
    (root / "usr" / "lib" / "python3" / "dist-packages" / "emulated.pth").write_text(_STARTUP, encoding="utf-8")
