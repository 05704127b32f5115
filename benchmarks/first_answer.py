"""From the start of a process to its first text answer, beside ai-edge-litert and tokenizers by hand.

    python -m benchmarks.first_answer BUNDLE [--against COMMIT] [--rounds N] [--json FILE]

A contender answers once in a fresh process for each round. The rounds are interleaved and the first one, which fills
the page cache, writes bytecode and lets the runtime remember the bundle, does not count. Figures are medians of wall
and CPU seconds; ratios are to LiteRT by hand, whose file and tokenizer are the bundle's own. `--against` adds the
runtime of another commit, which runs in the same environment.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.intervals import prediction_interval
from tools.code_key import REPOSITORY

WORKER = Path(__file__).with_name("footprint_worker.py")
TEXT = "turn the lights off"
BY_HAND = "ai-edge-litert by hand"
REPEATS, ROUNDS = 5, 7


@dataclass(frozen=True)
class Contender:
    """Whose process answers: `worker` is its name in `footprint_worker.py`, `source` the folder of its runtime."""

    name: str
    worker: str
    source: Path


@dataclass(frozen=True)
class Spent:
    """Seconds from the start of a process to its answer, by the clock, and of CPU to its end."""

    wall_s: float
    cpu_s: float


def first_answer(contender: Contender, bundle: Path, scratch: Path) -> Spent:
    """One process, with a cache of the contender's own: a runtime forgets what another version's notes say."""
    # An environment may forbid bytecode, which an installed package has.
    environment = os.environ | {
        "PYTHONPATH": str(contender.source),
        "PYTHONDONTWRITEBYTECODE": "",
        "XDG_CACHE_HOME": str(scratch / contender.name),
    }
    command = [sys.executable, "-s", str(WORKER), contender.worker, "text", str(bundle), TEXT]
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.stdout is not None
        answer = process.stdout.readline()
        wall_s = time.perf_counter() - begin
        process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if not answer.strip() or process.returncode:
        raise SystemExit(f"{contender.name}: no answer, exit code {process.returncode}")
    return Spent(wall_s, usage.ru_utime + usage.ru_stime)


def unpacked(commit: str, folders: Sequence[str], scratch: Path) -> Path:
    """A folder with these of another commit."""
    archive = ["git", "-C", str(REPOSITORY), "archive", "--prefix=other/", commit, *folders]
    source = subprocess.run(archive, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", scratch], input=source, check=True)
    return scratch / "other"


def ratios(found: list[Spent], base: list[Spent], figure: str) -> tuple[float, tuple[float, float]]:
    """The median of the ratios of each repeat's medians, and where another run finds it."""
    size = len(found) // REPEATS
    each = [
        statistics.median(getattr(spent, figure) for spent in found[start : start + size])
        / statistics.median(getattr(spent, figure) for spent in base[start : start + size])
        for start in range(0, len(found), size)
    ]
    return statistics.median(each), prediction_interval(each)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, help="folder of a LiteRT bundle of texts")
    parser.add_argument("--against", help="also measure the runtime of this commit")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"in each of {REPEATS} repeats")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    runtime = REPOSITORY / "runtime"
    contenders = [Contender(BY_HAND, "litert", runtime), Contender("EdgeFormer", "edgeformer", runtime)]
    with tempfile.TemporaryDirectory(prefix="edgeformer-first-") as scratch:
        if arguments.against:
            other = unpacked(arguments.against, ("runtime/edgeformer_runtime",), Path(scratch))
            contenders.append(Contender(arguments.against, "edgeformer", other / "runtime"))
        found: dict[str, list[Spent]] = {each.name: [] for each in contenders}
        for number in range(REPEATS * arguments.rounds + 1):
            for each in contenders:
                spent = first_answer(each, arguments.bundle, Path(scratch))
                if number:
                    found[each.name].append(spent)
    document = {}
    for name, runs in found.items():
        medians = Spent(*(statistics.median(getattr(run, key) for run in runs) for key in ("wall_s", "cpu_s")))
        document[name] = {
            **asdict(medians),
            **{f"{key}_ratio": ratios(runs, found[BY_HAND], key) for key in ("wall_s", "cpu_s")},
        }
        (wall, wall_interval), (cpu, cpu_interval) = (document[name][f"{key}_ratio"] for key in ("wall_s", "cpu_s"))
        print(
            f"{name}: {medians.wall_s * 1e3:.0f} ms wall, {wall:.2f} of by hand"
            f" ({wall_interval[0]:.2f} to {wall_interval[1]:.2f}); {medians.cpu_s * 1e3:.0f} ms CPU, {cpu:.2f}"
            f" ({cpu_interval[0]:.2f} to {cpu_interval[1]:.2f})"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
