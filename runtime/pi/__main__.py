"""`make pi`: the runtime's wheel and the real aarch64 wheels in an emulated Raspberry Pi, compared with this machine.

    python -m runtime.pi

Runs the runtime's own tests there, verifies bundles of text, images and speech, and compares what their programs
compute. Times in emulation mean nothing and are not reported. The report is build/pi-report.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from build_tools.code_key import REPOSITORY
from build_tools.debian import SetupError
from runtime.pi.bundles import bundles, convolutions
from runtime.pi.comparison import Comparison, compare_files
from runtime.pi.emulated_pi import RECIPE, EmulatedPi, open_pi
from runtime.pi.emulated_tests import TESTS, run_tests
from runtime.pi.shims import check_executorch
from runtime.pi.wheels import install_runtime, versions

REPORT = REPOSITORY / "build" / "pi-report.json"
OUTPUTS = Path(__file__).with_name("outputs.py")
SHOWN = ("numpy", "ai-edge-litert", "onnxruntime", "executorch", "tokenizers", "pillow", "soundfile", "soxr")
"""Packages whose versions the report states."""


def main() -> int:
    """Check everything; the exit code: 0 all is well, 1 a check failed, 2 it cannot run here."""
    try:
        with _step("root and wheels"):
            pi = open_pi()
            install_runtime(pi)
        with _step("bundles"):
            made = {**bundles(), convolutions(): "static-int8"}
        with _step(f"the runtime's tests ({len(TESTS)} files and folders)"):
            tested = run_tests(pi)
        with _step("verify"):
            verified = {path.name: _verify(pi, path) for path in made}
        with _step("compare"):
            compared = _compare(pi, made)
        with _step("ExecuTorch without torch"):
            compared += check_executorch(pi)
    except SetupError as error:
        print(f"make pi: {error}", file=sys.stderr)
        return 2
    ok = tested and all(verified.values()) and all(each.ok for each in compared)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(_report(pi, tested, verified, compared), indent=2) + "\n", encoding="utf-8")
    for comparison in compared:
        print(
            f"  {'ok' if comparison.ok else 'FAILED':6} {comparison.bundle:34} differs by {comparison.difference:.1e}"
            f" (at most {comparison.tolerance:.0e}) in {comparison.worst}"
        )
    print(f"{'ok' if ok else 'failed'}: {REPORT.relative_to(REPOSITORY)}")
    return 0 if ok else 1


@contextmanager
def _step(name: str) -> Iterator[None]:
    begin = time.monotonic()
    print(f"{name}...", flush=True)
    yield
    print(f"  {name}: {time.monotonic() - begin:.0f} s", flush=True)


def _verify(pi: EmulatedPi, path: Path) -> bool:
    """Run `edgeformer-runtime verify` there."""
    print(f"  {path.name}", flush=True)
    command = pi.site_packages / "bin" / "edgeformer-runtime"
    return pi.run([command, "verify", path]).returncode == 0


def _compare(pi: EmulatedPi, made: Mapping[Path, str]) -> list[Comparison]:
    """What the bundles' programs compute here and there.

    Raises:
        SetupError: an engine failed on one of the machines.
    """
    with tempfile.TemporaryDirectory(prefix="edgeformer-pi-") as scratch:
        here, there = Path(scratch, "here"), Path(scratch, "there")
        for folder in (here, there):
            folder.mkdir()
        done_here = subprocess.run([sys.executable, OUTPUTS, here, *made], stdout=subprocess.DEVNULL, check=False)
        done_there = pi.run([OUTPUTS, there, *made])
        if done_here.returncode or done_there.returncode:
            raise SetupError(f"{OUTPUTS.name} failed {'here' if done_here.returncode else 'on the emulated Pi'}")
        exact = convolutions()
        return [
            compare_files(
                path.name, precision, here / f"{path.name}.npz", there / f"{path.name}.npz", exact=path == exact
            )
            for path, precision in made.items()
        ]


def _report(pi: EmulatedPi, tested: bool, verified: Mapping[str, bool], compared: list[Comparison]) -> dict[str, Any]:
    installed = versions(pi.site_packages)
    return {
        "system": f"Debian {RECIPE.suite}, {RECIPE.architecture}, emulated",
        "packages": {name: version for name, version in installed.items() if name.lower() in SHOWN},
        "tests": tested,
        "verified": dict(verified),
        "comparisons": [each.to_json() for each in compared],
    }


if __name__ == "__main__":
    sys.exit(main())
