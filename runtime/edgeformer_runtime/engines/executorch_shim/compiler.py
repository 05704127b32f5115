"""The system's C++ compiler, and what it makes of the shim's source."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeformer_runtime.engines.executorch_shim.builds import SOURCE
from edgeformer_runtime.engines.executorch_shim.package import Package
from edgeformer_runtime.errors import EngineError

_CANDIDATES = ("g++", "clang++", "c++")
_FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra")
# What executorch-config.cmake of the wheel asks of those who include its headers.
_DEFINITIONS = ("-DC10_USING_CUSTOM_GENERATED_MACROS", "-DET_EVENT_TRACER_ENABLED", "-DET_USE_THREADPOOL")
# Kernels and delegates register themselves when they are loaded, so they are needed though nothing refers to them.
# They lie beside the shim. No symbol may stay open, so that nothing is needed but these libraries and the system's.
_LINKING = ("-Wl,--no-as-needed", "-Wl,-rpath,$ORIGIN", "-Wl,-z,defs")


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler.

    Attributes:
        command: how it is called; CXX may hold arguments, too.
        version: the first line that it says of itself.
        machine: what it makes code for, as `uname -m` names it.
    """

    command: tuple[str, ...]
    version: str
    machine: str


def find_compiler() -> Compiler:
    """CXX, or the first of g++, clang++ and c++ that is installed.

    Raises:
        EngineError: there is none, or it does not start.
    """
    stated = os.environ.get("CXX")
    command = (
        tuple(shlex.split(stated)) if stated else next(((name,) for name in _CANDIDATES if shutil.which(name)), ())
    )
    if not command:
        raise EngineError("no C++ compiler found: sudo apt-get install g++ (Debian, Raspberry Pi OS), or set CXX")
    version = _run([*command, "--version"]).splitlines()[0]
    return Compiler(command, version, _run([*command, "-dumpmachine"]).partition("-")[0].strip())


def compile_shim(compiler: Compiler, package: Package, library: Path) -> None:
    """Compile and link the shim against a package's headers and libraries.

    Raises:
        EngineError: the compiler makes code for another machine than the package's, or fails.
    """
    if compiler.machine != package.machine:
        raise EngineError(
            f"executorch's libraries are for {package.machine}, {compiler.command[0]} makes code for"
            f" {compiler.machine}: take the wheel for {compiler.machine}, or set CXX to a compiler for"
            f" {package.machine} (of Debian: {package.machine}-linux-gnu-g++)"
        )
    headers = package.root / "include"
    folders = (headers, headers / "executorch" / "runtime" / "core" / "portable_type" / "c10")
    includes = [part for folder in folders for part in ("-isystem", str(folder))]
    libraries = [str(path) for path in package.libraries]
    _run([*compiler.command, *_FLAGS, *_DEFINITIONS, *includes, str(SOURCE), "-o", str(library), *_LINKING, *libraries])


def _run(command: Sequence[str]) -> str:
    """A compiler's output. Raises EngineError with its first complaint."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise EngineError(f"{command[0]} cannot be started: {error}: set CXX to a C++ compiler") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        reason = next((line for line in lines if "error" in line), lines[-1])
        raise EngineError(f"{command[0]} failed: {reason}")
    return done.stdout
