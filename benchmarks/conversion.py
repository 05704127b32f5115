"""CPU seconds of a conversion, beside another commit's.

    python -m benchmarks.conversion COMMIT CHECKPOINT [--rounds N] [OPTIONS OF convert]

Both convert in turns, each time in a process of its own that finds only the code of its commit. The commits share the
environment's packages. A conversion counts whole, with its gates.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.first_answer import unpacked
from tools.code_key import REPOSITORY

PACKAGES = ("edgeformer", "converters/edgeformer_converters", "runtime/edgeformer_runtime")
SCRIPT = "from edgeformer.cli import main; main()"


def convert_s(source: Path, options: list[str], out: Path) -> float:
    """CPU seconds of one conversion with the code in a folder."""
    path = os.pathsep.join(str(source / each) for each in ("", "converters", "runtime"))
    command = [sys.executable, "-s", "-c", SCRIPT, "convert", *options, "--out", str(out)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": path}, cwd=out)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commit", help="the other commit")
    parser.add_argument("checkpoint", help="what `convert` takes, by an absolute path where it is a folder")
    parser.add_argument("--rounds", type=int, default=1)
    arguments, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="edgeformer-conversion-") as scratch:
        other = unpacked(arguments.commit, PACKAGES, Path(scratch))
        found: dict[str, list[float]] = {"this tree": [], arguments.commit: []}
        for number in range(arguments.rounds):
            for name, source in (("this tree", REPOSITORY), (arguments.commit, other)):
                out = Path(scratch) / f"{number}.{len(found[name])}.{source.name}"
                out.mkdir()
                found[name].append(convert_s(source, [arguments.checkpoint, *options], out))
    here, there = (statistics.median(each) for each in found.values())
    print(f"this tree: {here:.1f} s CPU; {arguments.commit}: {there:.1f} s CPU; ratio {here / there:.2f}")


if __name__ == "__main__":
    main()
