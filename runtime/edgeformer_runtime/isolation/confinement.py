"""Takes from this process what answering needs not: network, other files, other processes, memory without end.

Linux has all of it: resource limits, Landlock (from 5.13) for files, seccomp for system calls. Elsewhere on Unix there
are resource limits alone; on Windows nothing. Only the standard library is imported here: threads that libraries start
before would stay unconfined.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

MAX_OPEN_FILES = 512

PACKAGE = str(Path(__file__).resolve().parents[1])
"""This package, which an editable installation finds beside `sys.path`."""

# What Python and the engines' libraries read of the system, beside their own folders.
SYSTEM_PATHS = (
    "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo", "/lib", "/lib64", "/etc/ld.so.cache",
    "/etc/localtime", "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys/vm",
    "/sys/devices/system", "/sys/fs/cgroup", "/dev/null", "/dev/urandom", "/dev/zero",
)  # fmt: skip


def confine(memory_bytes: int, paths: Iterable[str]) -> list[str]:
    """Confine this process for the rest of its life.

    Args:
        memory_bytes: of private memory.
        paths: files and folders that it may read, beside Python's and the system's libraries.

    Returns:
        What is in force, by name: "limits", "landlock", "seccomp".
    """
    if sys.platform == "win32":
        return []
    _set_limits(memory_bytes)
    if sys.platform != "linux":
        return ["limits"]
    from edgeformer_runtime.isolation import landlock, seccomp

    in_force = ["limits"]
    libraries = [PACKAGE, sys.prefix, sys.base_prefix, *(entry for entry in sys.path if entry)]
    if landlock.restrict_files([*paths, *libraries, *SYSTEM_PATHS]):
        in_force.append("landlock")
    if seccomp.restrict_calls():
        in_force.append("seccomp")
    return in_force


def _set_limits(memory_bytes: int) -> None:
    import resource

    os.umask(0o077)
    wanted = {
        # Private memory; address space, which files that are mapped count to, is bounded where that cannot be.
        resource.RLIMIT_DATA if sys.platform == "linux" else resource.RLIMIT_AS: memory_bytes,
        # Weights are cached in anonymous files.
        resource.RLIMIT_FSIZE: memory_bytes,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: MAX_OPEN_FILES,
    }
    for limit, value in wanted.items():
        _, hard = resource.getrlimit(limit)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(limit, (value, value))
        except (OSError, ValueError):  # macOS refuses some
            continue


def readable_folders() -> list[str]:
    """What an engine reads beside the bundle and the libraries: where ExecuTorch's shim may lie. Python's `tempfile`
    and torch get a name for temporary files, which they want when they are imported, though nothing can be written.
    """
    import tempfile

    from edgeformer_runtime.cache import cache_folder

    tempfile.tempdir = os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.sep
    chosen = os.environ.get("EDGEFORMER_EXECUTORCH", "")
    # `builds_folder`, whose package imports numpy, which starts threads.
    return [str(cache_folder() / "executorch"), *([chosen] if Path(chosen).is_absolute() else [])]


def bound_processor_time(seconds: float) -> None:
    """End this process when it has used so many further seconds of processor time: nobody may be left to end it."""
    if sys.platform == "win32":
        return
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime + seconds) + 2
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
