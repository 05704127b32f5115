"""Builds of the shim: what is known of each, and where they are."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from edgeformer_runtime.cache import cache_folder, who_can_replace
from edgeformer_runtime.errors import EngineError

SOURCE = Path(__file__).with_name("shim.cpp")
LIBRARY_NAME = "libedgeformer_executorch.so"
RECORD_NAME = "build.json"
AGAIN = "edgeformer-runtime build-executorch"
"""What makes a build that fits."""


@dataclass(frozen=True)
class Record:
    """What a build was made from. Equal records are equal builds.

    Attributes:
        executorch: the version of the libraries.
        compiler: the compiler's name and version, in its own words.
        machine: what it runs on, as `uname -m` names it.
        source_sha256: of the shim's source.
    """

    executorch: str
    compiler: str
    machine: str
    source_sha256: str

    @property
    def folder_name(self) -> str:
        """Where in a user's cache this build belongs: one folder for each record."""
        key = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]
        return f"{self.executorch}-{self.machine}-{key}"

    def to_json(self) -> str:
        """The text of `build.json`."""
        return json.dumps(asdict(self), sort_keys=True, indent=2) + "\n"


@dataclass(frozen=True)
class Build:
    """A build: a folder with the shim, and ExecuTorch's libraries beside it."""

    folder: Path
    record: Record

    @property
    def library(self) -> Path:
        """The shim itself."""
        return self.folder / LIBRARY_NAME

    def to_json(self) -> dict[str, str | int]:
        """The build for scripts: its folder, its record, and its size in bytes."""
        size = sum(path.stat().st_size for path in self.folder.iterdir())
        return {"folder": str(self.folder), "size_bytes": size, **asdict(self.record)}


@cache
def source_sha256() -> str:
    """The hash of the shim's source, in hexadecimal: a build of another source speaks another interface."""
    return hashlib.sha256(SOURCE.read_bytes()).hexdigest()


def builds_folder() -> Path:
    """Where this user's builds are; it need not exist."""
    return cache_folder() / "executorch"


def read_build(folder: Path) -> Build:
    """The build in a folder, if it fits this machine and this version of the package.

    Raises:
        EngineError: it is none, or does not fit.
    """
    try:
        record = Record(**json.loads((folder / RECORD_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise EngineError(f"{folder}: expected a folder that `{AGAIN} --out` has written") from None
    if record.source_sha256 != source_sha256():
        raise EngineError(f"{folder}: built by another version of edgeformer-runtime: {AGAIN}")
    if record.machine != platform.machine():
        raise EngineError(f"{folder}: built for {record.machine}, this machine is {platform.machine()}: {AGAIN}")
    return Build(folder, record)


def find_build() -> Build | None:
    """This user's build for this machine and version of the package, of several the newest; None: there is none.

    Raises:
        EngineError: another user could have put a library there.
    """
    fitting = []
    for path in builds_folder().glob(f"*/{RECORD_NAME}"):
        try:
            fitting.append((path.stat().st_mtime_ns, read_build(path.parent)))
        except EngineError:
            continue  # made for another machine, or by another version of the package
    if not fitting:
        return None
    build = max(fitting, key=lambda each: each[0])[1]
    check_private(build)
    return build


def check_private(build: Build) -> None:
    """Refuse a build that another user can replace: its libraries' code would run as this user.

    Raises:
        EngineError: names what is open to others.
    """
    for path in (*build.folder.glob("*.so*"), build.folder):
        reason = who_can_replace(path)
        if reason is not None:
            raise EngineError(f"the shim is not loaded: {reason}: chmod go-w it, remove {build.folder}, and {AGAIN}")
