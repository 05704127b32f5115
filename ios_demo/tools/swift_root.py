"""Swift for `make ios` on Linux: a Debian system in a folder of the user's cache, made once and entered with chroot."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from tools import debian

RECIPE = debian.RootRecipe("trixie", ("swiftlang", "libc6-dev", "libstdc++-14-dev", "git"))
"""Debian's Swift (6.0) with SwiftPM, XCTest and swift-format, what its linker needs, and what fetches packages."""

REPOSITORY_INSIDE = "/repository"
BUILD_INSIDE = "/build"

# Where the standard output of a command goes: an open file, or the code of subprocess (PIPE, DEVNULL).
Output = IO[bytes] | int | None


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
    return SwiftRoot(debian.open_root("ios-root", RECIPE, _make_folders), repository)


def _make_folders(root: Path) -> None:
    for inside in (REPOSITORY_INSIDE, BUILD_INSIDE):
        (root / inside.removeprefix("/")).mkdir()
