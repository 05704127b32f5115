"""`make pi`: the runtime's wheel and the real aarch64 wheels in an emulated Raspberry Pi, compared with this machine.

    python -m tools.pi

Runs the runtime's own tests there, verifies bundles of text, images and speech, compares what their programs compute,
and counts the instructions of an answer. Times in emulation mean nothing and are not reported. The report is
build/pi-report.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools.code_key import REPOSITORY
from tools.conversions import bundles
from tools.debian import SetupError
from tools.pi import shims
from tools.pi.bundles import MODELS, convolutions, tiny_litert
from tools.pi.comparison import Comparison, compare_files
from tools.pi.emulated_pi import RECIPE, EmulatedPi, open_pi
from tools.pi.emulated_tests import run_tests
from tools.pi.instructions import NOT_SAID, Counted, compared_bundles, count_instructions
from tools.pi.wheels import install_runtime, versions

REPORT = REPOSITORY / "build" / "pi-report.json"
CONCURRENT = 2
OUTPUTS = Path(__file__).with_name("outputs.py")
SHOWN = ("numpy", "ai-edge-litert", "onnxruntime", "executorch", "tokenizers", "pillow", "soundfile", "soxr")
"""Packages whose versions the report states."""


def main() -> int:
    """Check everything; the exit code: 0 all is well, 1 a check failed, 2 it cannot run here."""
    # Emulation takes one core: the tests run while models are converted, and bundles are verified two by two.
    try:
        with ThreadPoolExecutor(CONCURRENT) as pool:
            with _step("root and wheels"):
                pi = open_pi()
                install_runtime(pi)
            tests = pool.submit(run_tests, pi, tiny_litert())
            with _step("bundles, beside the runtime's tests"):
                exact = convolutions()
                made = {**bundles(MODELS), exact: "static-int8"}
                for_executorch = bundles(shims.MODELS)
                tested = _tell("tests", tests.result())
            with _step("verify"):
                command = pi.site_packages / "bin" / "edgeformer-runtime"
                done = pool.map(lambda path: pi.run(command, "verify", path), made)
                verified = {path.name: _tell(path.name, each) for path, each in zip(made, done, strict=True)}
        with _step("compare"):
            compared = _compare(pi, made, exact)
        with _step("ExecuTorch without torch"):
            compared += shims.compare_shims(pi, for_executorch)
        with _step("count instructions"):
            counted = count_instructions(pi, compared_bundles(), shims.build(pi.site_packages, shims.COMPILER))
    except SetupError as error:
        print(f"make pi: {error}", file=sys.stderr)
        return 2
    ok = tested and all(verified.values()) and all(each.ok for each in compared)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(_report(pi, tested, verified, compared, counted), indent=2) + "\n", encoding="utf-8")
    for comparison in compared:
        print(
            f"  {'ok' if comparison.ok else 'FAILED':6} {comparison.bundle:34} differs by {comparison.difference:.1e}"
            f" (at most {comparison.tolerance:.0e}) in {comparison.worst}"
        )
    for each in counted:
        print(f"  {each.bundle:34} {each.instructions / 1e6:8.1f} million instructions an answer, {each.ratio:.2f}")
    print(f"  {NOT_SAID}")
    print(f"{'ok' if ok else 'failed'}: {REPORT.relative_to(REPOSITORY)}")
    return 0 if ok else 1


@contextmanager
def _step(name: str) -> Iterator[None]:
    begin = time.monotonic()
    print(f"{name}...", flush=True)
    yield
    print(f"  {name}: {time.monotonic() - begin:.0f} s", flush=True)


def _tell(name: str, done: subprocess.CompletedProcess[str]) -> bool:
    """Whether a run in emulation went well; all that it printed where it did not, else pytest's last line."""
    ok = done.returncode == 0
    last = done.stdout.strip().splitlines()[-1] if name == "tests" and done.stdout else ""
    print(f"  ok {name} {last}".rstrip() if ok else f"  FAILED {name}\n{done.stdout}", flush=True)
    return ok


def _compare(pi: EmulatedPi, made: Mapping[Path, str], exact: Path) -> list[Comparison]:
    """What the bundles' programs compute here and there.

    Raises:
        SetupError: an engine failed on one of the machines.
    """
    with tempfile.TemporaryDirectory(prefix="edgeformer-pi-") as scratch:
        here, there = Path(scratch, "here"), Path(scratch, "there")
        for folder in (here, there):
            folder.mkdir()
        command = [sys.executable, *map(str, (OUTPUTS, here, *made))]
        done_here = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        done_there = pi.run(OUTPUTS, there, *made)
        for where, done in (("here", done_here), ("on the emulated Pi", done_there)):
            if done.returncode:
                raise SetupError(f"{OUTPUTS.name} failed {where}: {done.stdout.strip()}")
        return [
            compare_files(
                path.name, precision, here / f"{path.name}.npz", there / f"{path.name}.npz", exact=path == exact
            )
            for path, precision in made.items()
        ]


def _report(
    pi: EmulatedPi,
    tested: bool,
    verified: Mapping[str, bool],
    compared: list[Comparison],
    counted: list[Counted],
) -> dict[str, Any]:
    installed = versions(pi.site_packages)
    return {
        "system": f"Debian {RECIPE.suite}, {RECIPE.architecture}, emulated",
        "packages": {name: version for name, version in installed.items() if name.lower() in SHOWN},
        "tests": tested,
        "verified": dict(verified),
        "comparisons": [each.to_json() for each in compared],
        "instructions": [each.to_json() for each in counted],
    }


if __name__ == "__main__":
    sys.exit(main())
