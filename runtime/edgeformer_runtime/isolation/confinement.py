"""Takes from this process what answering needs not: network, other files, other processes, memory without end.

Linux has all of it: resource limits, Landlock (from 5.13) for files, seccomp for system calls. Elsewhere on Unix there
are resource limits alone; on Windows nothing. Only the standard library is imported here: threads that libraries start
before would stay unconfined.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

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
    in_force = ["limits"]
    libraries = [PACKAGE, sys.prefix, sys.base_prefix, *(entry for entry in sys.path if entry)]
    if restrict_files([*paths, *libraries, *SYSTEM_PATHS]):
        in_force.append("landlock")
    if restrict_calls():
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
    Programs are not found: `ctypes` would look for libraries with a compiler, which torch's import does not survive.
    """
    import tempfile

    from edgeformer_runtime.delivery import cache_folder

    tempfile.tempdir = os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.sep
    if sys.platform != "win32":  # where libraries, too, are found by it
        os.environ["PATH"] = ""
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


_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture

_VERSION_FLAG = 1

_PATH_BENEATH = 1

_NO_NEW_PRIVILEGES = 38

# LANDLOCK_ACCESS_FS_*: bit 0 runs files, 1 writes, 2 reads, 3 lists folders, 4 to 12 remove and make, then one more
# with versions 2 (refer), 3 (truncate) and 5 (ioctl).
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3

_FILE_ACCESS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}

_FILE_ACCESS_SINCE_5 = (1 << 16) - 1

_TCP = 0b11
"""To bind and to connect, from version 4."""

_SCOPES = 0b11
"""Abstract sockets and signals, from version 6."""


def restrict_files(paths: Iterable[str]) -> bool:
    """Let this thread, and threads that it starts, read these files and folders, and write nothing.

    Returns:
        Whether the kernel can.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION_FLAG))
    if version < 1:
        return False
    access = _FILE_ACCESS.get(version, _FILE_ACCESS_SINCE_5)
    attributes = struct.pack("<QQQ", access, _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    attributes = attributes[: 24 if version >= 6 else 16 if version >= 4 else 8]
    rules = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    if rules < 0:
        return False
    try:
        for path in dict.fromkeys(map(os.path.realpath, paths)):
            _allow(libc, rules, path)
        libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        return bool(libc.syscall(_RESTRICT_SELF, ctypes.c_int(rules), ctypes.c_uint(0)) == 0)
    finally:
        os.close(rules)


def _allow(libc: ctypes.CDLL, rules: int, path: str) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # not every system has every path
        return
    try:
        access = _READ_FILE | _READ_FOLDER if Path(path).is_dir() else _READ_FILE
        rule = struct.pack("<Qi", access, descriptor)
        libc.syscall(_ADD_RULE, ctypes.c_int(rules), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint(0))
    finally:
        os.close(descriptor)


# seccomp: a Linux process gives up system calls for good. What is refused fails with EPERM, as for lack of a right.


_SET_MODE_FILTER, _ALL_THREADS = 1, 1

_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000

# Offsets in struct seccomp_data.
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06

_X32 = 0x40000000

_CLONE_THREAD = 0x00010000

# O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND, and O_TMPFILE's own bit, alike on both architectures.
_WRITES = 0o1 | 0o2 | 0o100 | 0o1000 | 0o2000 | 0o20000000

# AUDIT_ARCH, the number of seccomp itself, and of the calls below, by the machine's name.
_MACHINES: dict[str, tuple[int, int]] = {"x86_64": (0xC000003E, 317), "aarch64": (0xC00000B7, 277)}

_NUMBERS: dict[str, dict[str, int]] = {
    "x86_64": {
        "open": 2, "openat": 257, "openat2": 437, "clone": 56, "clone3": 435, "tgkill": 234, "creat": 85,
        "socket": 41, "connect": 42, "accept": 43, "sendto": 44, "sendmsg": 46, "bind": 49, "listen": 50,
        "socketpair": 53, "accept4": 288, "sendmmsg": 307, "fork": 57, "vfork": 58, "execve": 59, "execveat": 322,
        "kill": 62, "tkill": 200, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297, "pidfd_open": 434,
        "pidfd_send_signal": 424, "pidfd_getfd": 438, "ptrace": 101, "process_vm_readv": 310,
        "process_vm_writev": 311, "shmget": 29, "msgget": 68, "semget": 64, "mq_open": 240, "rename": 82,
        "renameat": 264, "renameat2": 316, "mkdir": 83, "mkdirat": 258, "rmdir": 84, "link": 86, "linkat": 265,
        "unlink": 87, "unlinkat": 263, "symlink": 88, "symlinkat": 266, "chmod": 90, "fchmod": 91, "fchmodat": 268,
        "fchmodat2": 452, "chown": 92, "fchown": 93, "lchown": 94, "fchownat": 260, "truncate": 76, "mknod": 133,
        "mknodat": 259, "utime": 132, "utimes": 235, "utimensat": 280, "setxattr": 188, "mount": 165, "umount2": 166,
        "chroot": 161, "pivot_root": 155, "move_mount": 429, "open_tree": 428, "fsopen": 430, "unshare": 272,
        "setns": 308, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "io_uring_setup": 425,
        "io_uring_enter": 426, "io_uring_register": 427, "add_key": 248, "request_key": 249, "keyctl": 250,
        "init_module": 175, "finit_module": 313, "kexec_load": 246, "open_by_handle_at": 304, "personality": 135,
        "setuid": 105, "setgid": 106, "setsid": 112, "setpgid": 109, "ioperm": 173, "iopl": 172,
    },
    "aarch64": {
        "openat": 56, "openat2": 437, "clone": 220, "clone3": 435, "tgkill": 131, "socket": 198, "connect": 203,
        "accept": 202, "sendto": 206, "sendmsg": 211, "bind": 200, "listen": 201, "socketpair": 199, "accept4": 242,
        "sendmmsg": 269, "execve": 221, "execveat": 281, "kill": 129, "tkill": 130, "rt_sigqueueinfo": 138,
        "rt_tgsigqueueinfo": 240, "pidfd_open": 434, "pidfd_send_signal": 424, "pidfd_getfd": 438, "ptrace": 117,
        "process_vm_readv": 270, "process_vm_writev": 271, "shmget": 194, "msgget": 186, "semget": 190,
        "mq_open": 180, "renameat": 38, "renameat2": 276, "mkdirat": 34, "linkat": 37, "unlinkat": 35,
        "symlinkat": 36, "fchmod": 52, "fchmodat": 53, "fchmodat2": 452, "fchown": 55, "fchownat": 54, "truncate": 45,
        "mknodat": 33, "utimensat": 88, "setxattr": 5, "mount": 40, "umount2": 39, "chroot": 51, "pivot_root": 41,
        "move_mount": 429, "open_tree": 428, "fsopen": 430, "unshare": 97, "setns": 268, "bpf": 280,
        "perf_event_open": 241, "userfaultfd": 282, "io_uring_setup": 425, "io_uring_enter": 426,
        "io_uring_register": 427, "add_key": 217, "request_key": 218, "keyctl": 219, "init_module": 105,
        "finit_module": 273, "kexec_load": 104, "open_by_handle_at": 265, "personality": 92, "setuid": 146,
        "setgid": 144, "setsid": 157, "setpgid": 154,
    },
}  # fmt: skip

_SPECIAL = ("open", "openat", "openat2", "clone", "clone3", "tgkill")
"""Calls that are refused in part, or that libraries know how to do without: clone3 and openat2 take their flags from
memory, where a filter cannot look."""


def restrict_calls() -> bool:
    """Refuse the calls of the table in all threads, and those that write to files or start processes.

    Returns:
        Whether the kernel can, and this machine is one of the table's.
    """
    machine = platform.machine()
    if machine not in _MACHINES or struct.calcsize("P") != 8:
        return False
    architecture, seccomp = _MACHINES[machine]
    program = b"".join(_program(architecture, _NUMBERS[machine], os.getpid()))
    memory = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("<HxxxxxxQ", len(program) // 8, ctypes.addressof(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        return False
    arguments = (ctypes.c_uint(_SET_MODE_FILTER), ctypes.c_uint(_ALL_THREADS), header)
    return bool(libc.syscall(ctypes.c_long(seccomp), *arguments) == 0)


def _program(architecture: int, numbers: dict[str, int], process: int) -> list[bytes]:
    """Instructions of classic BPF."""
    refused = _return(_ERRNO | errno.EPERM)
    unknown = _return(_ERRNO | errno.ENOSYS)
    lines = [
        _line(_LOAD, _ARCHITECTURE),
        _line(_EQUAL, architecture, yes=1),
        _return(_KILL),
        _line(_LOAD, _NUMBER),
        _line(_AT_LEAST, _X32, no=1),
        refused,
    ]
    for name in ("clone3", "openat2"):
        lines += [_line(_EQUAL, numbers[name], no=1), unknown]
    for name, argument in (("open", 1), ("openat", 2)):
        if name in numbers:
            lines += _if_argument(numbers[name], argument, _line(_ANY_BIT, _WRITES, no=1), refused)
    # Threads may be started, processes not; signals go to this process alone.
    lines += _if_argument(numbers["clone"], 0, _line(_ANY_BIT, _CLONE_THREAD, yes=1), refused)
    lines += _if_argument(numbers["tgkill"], 0, _line(_EQUAL, process, yes=1), refused)
    for name, number in numbers.items():
        if name not in _SPECIAL:
            lines += [_line(_EQUAL, number, no=1), refused]
    return [*lines, _return(_ALLOW)]


def _if_argument(number: int, argument: int, test: bytes, refused: bytes) -> list[bytes]:
    """Of one call: `test` jumps over the refusal or falls into it; the argument's lower half has all that is asked."""
    return [
        _line(_EQUAL, number, no=4),
        _line(_LOAD, _ARGUMENTS + 8 * argument),
        test,
        refused,
        _return(_ALLOW),
    ]


def _line(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("<HBBI", code, yes, no, value)


def _return(value: int) -> bytes:
    return _line(_RETURN, value)


# A benchmark's contender that confines its own process: what is measured has no pipe in between.


def isolated_run(
    path: str, program: str, threads: int, required: dict[str, Any] | None = None, batch: int = 1
) -> Callable[[], object]:
    """`workload.bundle_run` in a process that keeps nothing but the bundle; arguments as there.

    A zip is unpacked before: afterwards nothing can be written.
    """
    from edgeformer_runtime.bundle.bundle import Bundle
    from edgeformer_runtime.bundle.signature import Requirement
    from edgeformer_runtime.isolation.process import Limits

    bundle = Bundle.open(path, Requirement.from_json(required), allow_refused=True)
    confine(Limits().memory_for(bundle.size_bytes), [str(bundle.folder.resolve()), *readable_folders()])

    from edgeformer_runtime.bench.workload import open_run
    from edgeformer_runtime.process import stay_silent

    stay_silent()
    return open_run(bundle, program, threads, batch)
