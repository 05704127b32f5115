"""The values of `--on`: which machine measures."""

from __future__ import annotations

import re
from collections.abc import Callable

from edgeformer.bench.adb import AdbHost
from edgeformer.bench.request import Host
from edgeformer.bench.ssh import SshHost
from edgeformer_runtime.bench.report import LOCAL
from edgeformer_runtime.errors import InputError

MAX_PORT = 65535
EXPECTED = f"{LOCAL}, ssh://user@host[:port] or adb://SERIAL"

# What no shell and no option parser can misread; IPv6 addresses stand in brackets.
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_ADDRESS = rf"(?:{_NAME}|\[[0-9A-Fa-f:.]+\])"
_SSH = re.compile(rf"(?P<user>{_NAME}@)?(?P<host>{_ADDRESS})(?::(?P<port>[0-9]{{1,5}}))?")
_ADB = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")


def open_host(on: str, remote_runtime: str | None = None) -> Host:
    """The machine that a value of `--on` names, other than this one.

    Args:
        on: "ssh://user@host[:port]" or "adb://SERIAL".
        remote_runtime: of ssh: the command `edgeformer-runtime` as it is called there; None: it is installed for the
            measurement.

    Raises:
        InputError: it names no machine.
    """
    scheme, separator, rest = on.partition("://")
    make = _SCHEMES.get(scheme)
    if not separator or make is None:
        raise InputError(f"expected --on as {EXPECTED}, found {on!r}")
    return make(on, rest, remote_runtime)


def _ssh(on: str, rest: str, remote_runtime: str | None) -> Host:
    found = _SSH.fullmatch(rest.removesuffix("/"))
    if found is None or (found["port"] and not 1 <= int(found["port"]) <= MAX_PORT):
        raise InputError(f"expected ssh://user@host[:port], found {on!r}")
    address = (found["user"] or "") + found["host"].strip("[]")
    return SshHost(on, address, int(found["port"]) if found["port"] else None, remote_runtime)


def _adb(on: str, rest: str, _: str | None) -> Host:
    if not _ADB.fullmatch(rest):
        raise InputError(f"expected adb://SERIAL, as `adb devices` lists them, found {on!r}")
    return AdbHost(on, rest)


_SCHEMES: dict[str, Callable[[str, str, str | None], Host]] = {"ssh": _ssh, "adb": _adb}
