"""Opens, runs and verifies mutated bundles whose hashes agree, by the thousand, and says what went wrong.

    python tests/runtime/hostile_bundles.py BUNDLE... --way readers --seeds 10000
    python tests/runtime/hostile_bundles.py BUNDLE... --way engine --seeds 10000
    python tests/runtime/hostile_bundles.py BUNDLE... --way isolated --seeds 1000 --first 50000

The ways: `readers` does all but run the model, `engine` runs it in the same process, `isolated` opens the bundle in a
helper process as `load(path, isolated=True)` does. Each works in a process of its own, which may die of a bundle: then
the next one goes on behind it. Exit code 1: something went wrong. What goes wrong is

- a process that dies, the helper included;
- a bundle that takes more than 5 s of processor time, or five minutes by the clock (the machine may be busy otherwise);
- peak memory (of the process; of the helper, where there is one) over twice that of the bundle as it was;
- a file that is opened beside the bundle, the libraries and the system's own;
- an exception that is none of this project's, or whose message is not one short line.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

sys.path.append(str(Path(__file__).resolve().parent))

WAYS = ("readers", "engine", "isolated")
START_SECONDS, PROCESS_SECONDS = 1800, 300
"""After so long without an answer the process is ended: at first it imports libraries, and opens what is valid."""


@dataclass
class Found:
    """What came of the bundles: how often each end was met, by kind of file, and what went wrong."""

    ends: dict[str, Counter[str]] = field(default_factory=dict)
    wrong: list[dict[str, Any]] = field(default_factory=list)
    most_seconds: float = 0.0
    most_memory: float = 0.0

    def add(self, line: dict[str, Any]) -> None:
        """Count one bundle."""
        self.ends.setdefault(line["kind"], Counter())[line["end"]] += 1
        self.most_seconds = max(self.most_seconds, line["seconds"])
        self.most_memory = max(self.most_memory, line["memory"])
        if line["wrong"]:
            self.wrong.append(line)


def judge(bundles: list[Path], way: str, seeds: range, kinds: list[str]) -> Found:
    """Try every seed; a process that dies is a thing that went wrong."""
    found = Found()
    at = seeds.start
    while at < seeds.stop:
        command = [sys.executable, __file__, "--work", way, "--seeds", str(seeds.stop - at), "--first", str(at)]
        command += [f"--kind={kind}" for kind in kinds]
        # The file of errors is not a pipe: nobody would read it while the process is busy.
        with (
            tempfile.TemporaryDirectory(prefix="hostile") as folder,
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(
                [*command, *map(str, bundles)], stdout=subprocess.PIPE, stderr=errors, cwd=folder
            ) as process,
        ):
            assert process.stdout is not None
            at = _listen(process, process.stdout, found, at)
            status = process.wait()
            if at < seeds.stop:
                errors.seek(0)
                said = errors.read().decode(errors="replace")[-2000:]
                if "seed " not in said:  # it ended before its first bundle
                    raise SystemExit(f"the process ended with {status}: {said}")
                found.add({"seed": at, "kind": "process", "end": "died", "seconds": 0.0, "memory": 0.0,
                           "wrong": [f"the process ended with {status}: {said}"]})  # fmt: skip
                at += 1
    return found


def _listen(process: subprocess.Popen[bytes], stream: IO[bytes], found: Found, at: int) -> int:
    """Count what a process says; returns the next seed."""
    seconds = START_SECONDS
    while True:
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        try:
            text = stream.readline()
        finally:
            timer.cancel()
        if not text:
            return at
        line = json.loads(text)
        found.add(line)
        at = line["seed"] + 1
        seconds = PROCESS_SECONDS


def main() -> None:
    """Say what was found as JSON."""
    parser = argparse.ArgumentParser(description="Opens, runs and verifies mutated bundles whose hashes agree.")
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--way", choices=WAYS, default="engine")
    parser.add_argument("--work", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--kind", action="append", default=[], help="of file to corrupt; default: any")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    bundles = [path.resolve() for path in options.bundles]
    if options.work:
        from hostile_worker import work

        work(bundles, options.work, seeds, options.kind, Path.cwd())
        return
    found = judge(bundles, options.way, seeds, options.kind)
    print(json.dumps({
        "way": options.way, "bundles": len(seeds), "ends": found.ends, "most_seconds": found.most_seconds,
        "most_memory": found.most_memory, "wrong": found.wrong,
    }, indent=1))  # fmt: skip
    sys.exit(1 if found.wrong else 0)


if __name__ == "__main__":
    main()
