"""The runtime in the emulated Pi: its own wheel, built here, and the published aarch64 wheels of what it needs."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import tomllib
from importlib.metadata import distributions
from pathlib import Path

from tools import debian
from tools.pi.emulated_pi import PYTHON_VERSION, EmulatedPi

RUNTIME = Path(__file__).resolve().parents[2] / "runtime"
EXTRAS = ("full", "onnx", "trust")
TEST_PACKAGES = ("pytest", "hypothesis", "onnx")
WITHOUT_DEPENDENCIES = ("executorch",)
"""Its Python part needs torch; what its libraries do without is for a shim over them."""

STAMP = "edgeformer-wheels.json"
"""Beside the packages, last of all: what they were chosen from. Others are fetched anew."""

# Every platform tag that a C library of glibc 2.36, Debian bookworm's, can load.
_PLATFORMS = (*(f"manylinux_2_{minor}_aarch64" for minor in range(36, 16, -1)), "manylinux2014_aarch64")


def install_runtime(pi: EmulatedPi) -> None:
    """Install the runtime's wheel, and the packages that it needs where these are not there yet.

    Packages have the versions of this environment, so that nothing but the machine differs.

    Raises:
        SetupError: a package has no wheel for aarch64, or pip failed.
    """
    with debian.locked(pi.root / "wheels.lock"), tempfile.TemporaryDirectory(prefix="edgeformer-wheel-") as scratch:
        wheel = _build_wheel(Path(scratch))
        if not _is_current(pi):
            _install_packages(pi, wheel, Path(scratch))
        _pip_install(pi.site_packages, "--upgrade", "--no-deps", str(wheel))


def _build_wheel(scratch: Path) -> Path:
    """The wheel, from a copy of the sources, so that the build leaves nothing in the checkout."""
    sources = scratch / "runtime"
    unwanted = shutil.ignore_patterns("build", "*.egg-info", "__pycache__", "pi")
    shutil.copytree(RUNTIME, sources, ignore=unwanted)
    debian.call(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(scratch / "wheel"), str(sources)]
    )
    (wheel,) = (scratch / "wheel").iterdir()
    return wheel


def _install_packages(pi: EmulatedPi, wheel: Path, scratch: Path) -> None:
    """All packages anew, beside their place and renamed into it."""
    print("Fetching aarch64 wheels (about 40 s)...", flush=True)
    constraints = scratch / "constraints.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in versions().items()))
    fresh = pi.site_packages.with_name("fresh-packages")
    shutil.rmtree(fresh, ignore_errors=True)
    limits = ("--constraint", str(constraints))
    _pip_install(fresh, *limits, f"{wheel}[{','.join(EXTRAS)}]", *TEST_PACKAGES)
    # Nothing of its Python is imported there.
    _pip_install(fresh, *limits, "--no-deps", "--no-compile", *WITHOUT_DEPENDENCIES)
    (fresh / STAMP).write_text(json.dumps(_chosen()), encoding="utf-8")
    shutil.rmtree(pi.site_packages, ignore_errors=True)
    fresh.rename(pi.site_packages)


def _pip_install(folder: Path, *arguments: str) -> None:
    """Run this environment's pip, which needs no emulation, for Python on aarch64."""
    platforms = [f"--platform={platform}" for platform in _PLATFORMS]
    python = ["--python-version", PYTHON_VERSION, "--implementation", "cp", "--only-binary=:all:"]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder)]
    debian.call([*pip, *platforms, *python, *arguments])


def versions(folder: Path | None = None) -> dict[str, str]:
    """The version of every published package of a folder, or of this environment; without suffixes that name builds."""
    found = distributions() if folder is None else distributions(path=[str(folder)])
    published = {each.name: each.version.partition("+")[0] for each in found}
    return {name: version for name, version in sorted(published.items()) if not name.startswith("edgeformer")}


def _chosen() -> dict[str, object]:
    """What decides which packages are installed, beside the versions of those here."""
    project = tomllib.loads((RUNTIME / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {
        "dependencies": project["dependencies"],
        "extras": project["optional-dependencies"],
        "others": [*TEST_PACKAGES, *WITHOUT_DEPENDENCIES],
    }


def _is_current(pi: EmulatedPi) -> bool:
    stamp = pi.site_packages / STAMP
    if not stamp.is_file() or json.loads(stamp.read_text(encoding="utf-8")) != _chosen():
        return False
    here = versions()
    return all(here.get(name, version) == version for name, version in versions(pi.site_packages).items())
