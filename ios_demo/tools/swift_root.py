"""Swift for `make ios` on Linux: a Debian system in a folder of the user's cache, made once and entered with chroot."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

SUITE = "trixie"
PACKAGES = ("swiftlang", "libc6-dev", "libstdc++-14-dev")
"""Debian's Swift (6.0) with SwiftPM, XCTest and swift-format, and what its linker needs."""

STAMP = "edgeformer-root.json"
"""Inside the root, last of all: what it was made from. A root without it, or with another one, is made anew."""

REPOSITORY_INSIDE = "/repository"
BUILD_INSIDE = "/build"

# Where the standard output of a command goes: an open file, or the code of subprocess (PIPE, DEVNULL).
Output = IO[bytes] | int | None


class SetupError(Exception):
    """What `make ios` needs and does not find, in one line that says what to do."""


def cache_folder() -> Path:
    """Where roots and build products are kept between runs: EDGEFORMER_CACHE, or ~/.cache/edgeformer."""
    return Path(os.environ.get("EDGEFORMER_CACHE") or Path.home() / ".cache" / "edgeformer").resolve()


class SwiftRoot:
    """A Debian root with Swift, in which commands see the repository, read-only, at `REPOSITORY_INSIDE`.

    Build products lie at `BUILD_INSIDE` and are kept between runs.

    Attributes:
        folder: the root's own folder, seen from outside.
    """

    def __init__(self, folder: Path, repository: Path) -> None:
        """Use `open_root`, which makes the root."""
        self.folder = folder
        self._repository = repository

    def run(
        self,
        command: Sequence[str],
        *,
        inside: str = REPOSITORY_INSIDE,
        environment: Mapping[str, str] | None = None,
        stdout: Output = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the root, in a mount namespace of its own, so that nothing stays mounted.

        Args:
            command: the command and its arguments.
            inside: the working folder, a path in the root.
            environment: variables besides PATH, HOME and LANG.
            stdout: as in `subprocess.run`; standard error goes with it.
        """
        variables = {"PATH": "/usr/bin:/bin", "HOME": "/root", "LANG": "C.UTF-8"} | dict(environment or {})
        script = (
            'mount --rbind /proc "$1/proc" && mount --bind "$2" "$1$3" && mount -o remount,bind,ro "$1$3"'
            ' && root=$1 && inside=$4 && shift 4 && exec chroot "$root" /usr/bin/env -i -C "$inside" "$@"'
        )
        folders = [str(self.folder), str(self._repository), REPOSITORY_INSIDE, inside]
        assignments = [f"{name}={value}" for name, value in variables.items()]
        return subprocess.run(
            [
                "unshare",
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                script,
                "sh",
                *folders,
                *assignments,
                *command,
            ],
            stdout=stdout,
            stderr=None if stdout is None else subprocess.STDOUT,
            text=True,
            check=False,
        )


def open_root(repository: Path) -> SwiftRoot:
    """The root, made where it is missing or was made from other packages; one process at a time makes it.

    Raises:
        SetupError: not root, no mirror, or a tool that failed.
    """
    if os.geteuid() != 0:
        raise SetupError("expected to run as root, for chroot: use a container or sudo, or open ios_demo in Xcode")
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / "ios-root"
    with _locked(cache / "ios-root.lock"):
        if not _is_current(folder):
            _make(folder)
    return SwiftRoot(folder, repository)


def _wanted() -> dict[str, object]:
    return {"suite": SUITE, "packages": list(PACKAGES)}


def _is_current(folder: Path) -> bool:
    stamp = folder / STAMP
    return stamp.is_file() and json.loads(stamp.read_text(encoding="utf-8")) == _wanted()


def _make(folder: Path) -> None:
    """Make the root beside its place and rename it into place."""
    _install_mmdebstrap()
    mirror = debian_mirror()
    partial = folder.with_name(folder.name + ".partial")
    for old in (partial, folder):
        if old.exists():
            shutil.rmtree(old)
    print(f"Making a Debian root with {', '.join(PACKAGES)} in {folder} (1 to 3 minutes)...", flush=True)
    source = f"deb {mirror} {SUITE} main"
    _call(["mmdebstrap", "--quiet", "--variant=apt", f"--include={','.join(PACKAGES)}", SUITE, str(partial), source])
    for inside in (REPOSITORY_INSIDE, BUILD_INSIDE):
        (partial / inside.removeprefix("/")).mkdir()
    for packages in (partial / "var/cache/apt/archives").glob("*.deb"):
        packages.unlink()
    (partial / STAMP).write_text(json.dumps(_wanted()), encoding="utf-8")
    partial.rename(folder)


def debian_mirror() -> str:
    """The address of Debian's main archive: EDGEFORMER_DEBIAN_MIRROR, or the one in this machine's apt sources.

    Raises:
        SetupError: neither states one.
    """
    stated = os.environ.get("EDGEFORMER_DEBIAN_MIRROR")
    if stated:
        return stated
    if shutil.which("apt-get"):
        columns = "$(LABEL)|$(REPO_URI)"
        found = subprocess.run(
            ["apt-get", "indextargets", "--format", columns, "Created-By: Packages"],
            capture_output=True,
            text=True,
            check=False,
        )
        for line in found.stdout.splitlines():
            label, _, address = line.partition("|")
            if label == "Debian":
                return address
    raise SetupError("no Debian archive in this machine's apt sources: set EDGEFORMER_DEBIAN_MIRROR to one")


def _install_mmdebstrap() -> None:
    if shutil.which("mmdebstrap"):
        return
    if not shutil.which("apt-get"):
        raise SetupError("mmdebstrap is not installed and there is no apt-get to install it: install it, or use Debian")
    _call(["apt-get", "update", "--quiet"])
    _call(["apt-get", "install", "--quiet", "--yes", "--no-install-recommends", "mmdebstrap"])


def _call(command: Sequence[str]) -> None:
    """Run a tool; its output appears only where it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stdout)
        raise SetupError(f"{command[0]} failed with {done.returncode}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
