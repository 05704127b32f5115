"""Writes requirements.lock: the environment that has passed the tests, package by package with the hashes of its files.

    python -m tools.lock

torch is not in it: which of its builds a machine takes is up to that machine's index, and so is the file's hash. It is
installed by version, behind everything that it depends on. Needs uv.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from tools.debian import SetupError

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
INPUTS = ("-e ./runtime[full,serve,trust,onnx]", "-e .[all,dev]", "setuptools>=77", "wheel")
OURS = ("edgeformer", "edgeformer-runtime")
OUTSIDE = ("torch", *OURS)
PYTHON, PLATFORM = "3.11", "x86_64-manylinux_2_28"

HEAD = f"""\
# Made by `make lock` for Python {PYTHON} on Linux x86-64, to install with --no-deps --require-hashes.
"""


def write_lock() -> None:
    """Resolve the extras of both packages to what is installed here, and write it down with hashes.

    Raises:
        SetupError: uv is not here, or finds no solution.
    """
    if shutil.which("uv") is None:
        raise SetupError("the lock is made by uv: pip install uv")
    with tempfile.TemporaryDirectory() as work:
        wanted, installed = Path(work, "wanted.in"), Path(work, "installed.txt")
        wanted.write_text("\n".join(INPUTS) + "\n", encoding="utf-8")
        installed.write_text("".join(_installed()), encoding="utf-8")
        command = ["uv", "pip", "compile", str(wanted), "--constraint", str(installed), "--generate-hashes", "--quiet"]
        command += ["--python-version", PYTHON, "--python-platform", PLATFORM]
        # No address of an index and no path: who installs chooses where from.
        command += ["--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
        for name in OUTSIDE:
            command += ["--no-emit-package", name]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode:
        raise SetupError(f"uv found no solution: {' '.join(found.stderr.split())}")
    packages = [line for line in found.stdout.splitlines() if not line.startswith("#")]
    LOCK.write_text(HEAD + "\n".join(packages) + "\n", encoding="utf-8")
    print(f"{LOCK.name}: {sum('==' in line for line in packages)} packages")


def _installed() -> list[str]:
    """This environment as constraints."""
    found = {each.metadata["Name"].lower().replace("_", "-"): each.version for each in metadata.distributions()}
    return [f"{name}=={version.partition('+')[0]}\n" for name, version in sorted(found.items()) if name not in OURS]


if __name__ == "__main__":
    try:
        write_lock()
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
