"""`make torch-range`: the built-in classifiers converted beside the oldest and the newest torch that is admitted.

    python -m tools.torch_range [VERSION...]

Each version is installed into build/torch-range, over this environment's other packages. A converted bundle has passed
its gates: the engine's outputs equal those of this torch. If an index has CUDA's builds alone, a version takes 5 GB.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement

from edgeformer.convert.target import TARGETS
from edgeformer.zoo import ZOO
from tools.code_key import REPOSITORY

VERSIONS = ("2.11.0", "2.14.1")
"""The ends of the range that the core admits."""

FOLDER = REPOSITORY / "build" / "torch-range"
OPTIONS = ("--precision", "fp32", "--precision", "dynamic-int8", "--seq-len", "32")


def main(versions: Sequence[str]) -> int:
    """Print a row for each version and target; the exit code: 0 all convert, 1 one does not, 2 no such version."""
    failed = False
    for version in versions:
        packages = FOLDER / version
        if not (packages / "torch").is_dir():
            print(f"installing torch {version}...", flush=True)
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", str(packages)]
            if subprocess.run([*command, f"torch=={version}"], check=False).returncode:
                return 2
        for target in TARGETS:
            problem = convert_beside(packages, target) if admits(target, version) else "not admitted by this extra"
            print(f"torch {version:8} {target:12} {problem or 'ok'}", flush=True)
            failed = failed or bool(problem and admits(target, version))
    return 1 if failed else 0


def admits(extra: str | None, version: str) -> bool:
    """Whether an extra of the core, or with None the core itself, takes that version of torch."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needs = map(Requirement, project["optional-dependencies"].get(extra, ()) if extra else project["dependencies"])
    return all(version in need.specifier for need in needs if need.name == "torch")


def convert_beside(packages: Path, target: str) -> str:
    """Convert every model of the zoo to a target, with the packages of a folder before this environment's.

    Returns:
        The last line of what went wrong; empty if nothing did.
    """
    environment = os.environ | {"PYTHONPATH": str(packages), "OMP_NUM_THREADS": "1"}
    command = Path(sys.executable).with_name("edgeformer")
    for name in ZOO:
        with tempfile.TemporaryDirectory() as out:
            done = subprocess.run(
                [command, "convert", name, "--target", target, *OPTIONS, "--out", out],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
        if done.returncode:
            return f"{name}: {done.stdout.strip().splitlines()[-1]}"
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or VERSIONS))
