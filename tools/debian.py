"""Debian, for what builds need besides Python packages: its archive, its packages, whole systems in folders."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

STAMP = "edgeformer-root.json"
"""Inside a root, last of all: what it was made from. A root without it, or with another one, is made anew."""


class SetupError(Exception):
    """What a build needs and does not find, in one line that says what to do."""


@dataclass(frozen=True)
class RootRecipe:
    """What a root is made from.

    Attributes:
        suite: the release of Debian, as "bookworm".
        packages: besides what `variant` brings.
        architecture: as Debian names it.
        variant: of mmdebstrap: "apt" is a system to chroot into, "extract" unpacks the packages and configures nothing.
        revision: rises when `finish` of `open_root` writes something else.
    """

    suite: str
    packages: tuple[str, ...]
    architecture: str = "amd64"
    variant: str = "apt"
    revision: int = 1


def cache_folder() -> Path:
    """Where roots, packages and build products are kept between runs: EDGEFORMER_CACHE, or ~/.cache/edgeformer."""
    return Path(os.environ.get("EDGEFORMER_CACHE") or Path.home() / ".cache" / "edgeformer").resolve()


def mirror() -> str:
    """The address of Debian's main archive: EDGEFORMER_DEBIAN_MIRROR, or the one in this machine's apt sources.

    Raises:
        SetupError: neither states one.
    """
    stated = os.environ.get("EDGEFORMER_DEBIAN_MIRROR")
    if stated:
        return stated.rstrip("/")
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
                return address.rstrip("/")
    raise SetupError("no Debian archive in this machine's apt sources: set EDGEFORMER_DEBIAN_MIRROR to one")


def install(programs: dict[str, str]) -> None:
    """Install the Debian packages of those programs that this machine lacks.

    Args:
        programs: the package of each program, or of a file by its path.

    Raises:
        SetupError: there is no apt-get, or it failed.
    """
    missing = {program: package for program, package in programs.items() if not _is_here(program)}
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise SetupError(
            f"{', '.join(missing)}: not installed, and there is no apt-get to install it: install it, or use Debian"
        )
    print(f"Installing {', '.join(sorted(set(missing.values())))}...", flush=True)
    call(["apt-get", "update", "--quiet"])
    call(["apt-get", "install", "--quiet", "--yes", "--no-install-recommends", *sorted(set(missing.values()))])


def _is_here(program: str) -> bool:
    return Path(program).exists() if program.startswith("/") else shutil.which(program) is not None


def open_root(name: str, recipe: RootRecipe, finish: Callable[[Path], None] = lambda _: None) -> Path:
    """A Debian system in a folder of the cache, made where it is missing or was made from something else.

    One process at a time makes it, beside its place, and renames it into place.

    Args:
        name: of the folder.
        recipe: what it is made from.
        finish: adds to the new root before it is renamed.

    Raises:
        SetupError: not root, no mirror, or a tool that failed.
    """
    if os.geteuid() != 0:
        raise SetupError("expected to run as root, to make a Debian system: use a container or sudo")
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / name
    with locked(cache / f"{name}.lock"):
        if not is_current(folder, recipe):
            _make(folder, recipe, finish)
    return folder


def is_current(folder: Path, recipe: RootRecipe) -> bool:
    """Whether a folder holds a complete root of that recipe."""
    stamp = folder / STAMP
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == _stamp(recipe)


def _stamp(recipe: RootRecipe) -> str:
    return json.dumps(asdict(recipe), sort_keys=True)


def _make(folder: Path, recipe: RootRecipe, finish: Callable[[Path], None]) -> None:
    install({"mmdebstrap": "mmdebstrap"})
    source = f"deb {mirror()} {recipe.suite} main"
    partial = folder.with_name(folder.name + ".partial")
    for old in (partial, folder):
        if old.exists():
            shutil.rmtree(old)
    print(f"Making a Debian root with {', '.join(recipe.packages)} in {folder}...", flush=True)
    options = [f"--architectures={recipe.architecture}", f"--variant={recipe.variant}"]
    call(
        [
            "mmdebstrap",
            "--quiet",
            *options,
            f"--include={','.join(recipe.packages)}",
            recipe.suite,
            str(partial),
            source,
        ]
    )
    for package in (partial / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()
    finish(partial)
    (partial / STAMP).write_text(_stamp(recipe), encoding="utf-8")
    partial.rename(folder)


def call(command: Sequence[str]) -> None:
    """Run a tool; its output appears only where it fails.

    Raises:
        SetupError: it failed.
    """
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stdout)
        raise SetupError(f"{Path(command[0]).name} failed with {done.returncode}")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
