"""`.ci/run`: what a change must pass to land, its jobs side by side, each doing its own set-up.

    python3 -m tools.ci [JOB...]

Needs nothing but Python. A job prints in one block when it ends, with its seconds by the clock and of CPU; the
first that fails, or hangs, ends the run.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
LOGS = REPOSITORY / "build" / "ci"
SLOTS = 2
"""Jobs at a time beside those that wait for a network: the tests keep two cores busy, most others one."""

POLL_S = 0.5
TAIL_LINES = 60
_PYTEST = "OMP_NUM_THREADS=1 .venv/bin/pytest"


@dataclass(frozen=True)
class Job:
    """A line of shell.

    Attributes:
        name: as the command line and the output have it.
        command: the line; it runs in the repository.
        deadline_minutes: after which it counts as hung.
        after: names of jobs that must have passed.
        slots: how many of `SLOTS` it takes; none, if it mostly waits for a network.
    """

    name: str
    command: str
    deadline_minutes: float
    after: tuple[str, ...] = ()
    slots: int = 1


_ALL = ("debian", "setup")
_LATER = "--ignore tests/ios --ignore tests/android --ignore tests/tools/pi --ignore tests/web"
JOBS = (
    Job("setup", "make setup", 25, slots=0),
    Job("browser", "make browser", 10, slots=0),
    Job("debian", "python3 -m tools.prepare", 25, ("browser",), slots=0),
    # tests/ios reads the rest of the app.
    Job("ios", f"python3 -m ios_demo.tools.check --swift && {_PYTEST} tests/ios", 25, _ALL),
    # Without those of what ios, android, pi and web bring, which run behind these.
    Job("test", f"PYTEST_ADDOPTS='{_LATER}' make test", 70, ("setup", "browser")),
    Job("lint", "make lint", 15, ("setup",)),
    Job("pi", f"make pi && {_PYTEST} tests/tools/pi", 45, _ALL),
    Job("android", f"make android && {_PYTEST} tests/android", 30, _ALL),
    Job("older-cpu", "make older-cpu", 30, _ALL),
    Job("web", f"make web && {_PYTEST} tests/web", 20, _ALL),
)
"""In the order in which they start. What takes longest comes before what is short, so that no core waits at the end."""


class Running:
    """A job's process, and its output in a file."""

    def __init__(self, job: Job) -> None:
        """Start it, in a session of its own: what it has started ends with it."""
        self.job, self.log = job, LOGS / f"{job.name}.log"
        self.cpu_s = 0.0
        self._start = time.monotonic()
        command = ["bash", "-euo", "pipefail", "-c", job.command]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def exit_code(self) -> int | None:
        """None while it runs. When it has ended, `cpu_s` is its CPU time, with that of all it waited for."""
        before = _children_cpu_s()
        code = self._process.poll()
        self.cpu_s = _children_cpu_s() - before
        return code

    def hangs(self) -> bool:
        """It is not done by its deadline."""
        return time.monotonic() - self._start > 60 * self.job.deadline_minutes

    def kill(self) -> None:
        """End the job and all that it has started in its session."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def block(self, result: str, lines: int = 0) -> str:
        """What it has printed, or the last lines of that, between its command and its result."""
        printed = "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        seconds = time.monotonic() - self._start
        head = f"===== {self.job.name}: {self.job.command}"
        return f"{head}\n{printed}\n===== {self.job.name} {result} after {_seconds(seconds, self.cpu_s)}"


def main(arguments: Sequence[str]) -> int:
    """Run the jobs; the exit code: 0 all pass, 1 one fails or hangs, 2 there is no such job."""
    parser = argparse.ArgumentParser(
        prog=".ci/run",
        description="What a change must pass to land, on a bare machine. Without JOB: all of them.",
        epilog="\n".join(["jobs:", *(f"  {job.name:10} {job.command}" for job in JOBS)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("jobs", nargs="*", metavar="JOB", help="run this one; those that it waits for count as done")
    arguments = parser.parse_args(arguments).jobs
    names = [job.name for job in JOBS]
    if unknown := set(arguments) - set(names):
        print(f"ci: no job {', '.join(sorted(unknown))}: expected some of {', '.join(names)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    start = time.monotonic()
    bad = run([job for job in JOBS if job.name in arguments or not arguments])
    took = _seconds(time.monotonic() - start, _children_cpu_s())
    print(f"ci: {f'failed in {bad}' if bad else 'ok'} after {took}")
    return 1 if bad else 0


def _children_cpu_s() -> float:
    """The CPU time of all processes that were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _seconds(clock_s: float, cpu_s: float) -> str:
    return f"{clock_s:.0f} s ({cpu_s:.0f} CPU s)"


def run(jobs: Sequence[Job]) -> str | None:
    """Run jobs, as many at a time as `SLOTS` allows, until all have passed, or one has not, which ends the others.

    Returns:
        The name of the one that has not.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    waiting, running, open_names = list(jobs), list[Running](), {job.name for job in jobs}
    try:
        while waiting or running:
            for job in [job for job in waiting if open_names.isdisjoint(job.after)]:
                if job.slots <= SLOTS - sum(each.job.slots for each in running):
                    print(f"ci: {job.name} starts", flush=True)
                    waiting.remove(job)
                    running.append(Running(job))
            time.sleep(POLL_S)
            for each in list(running):
                code = each.exit_code()
                if code is not None:
                    running.remove(each)
                    open_names.remove(each.job.name)
                    print(each.block(f"FAILED with {code}" if code else "passed"), flush=True)
                elif each.hangs():
                    print(each.block("HANGS: here are its last lines; it is ended", TAIL_LINES), flush=True)
                if code or (code is None and each.hangs()):
                    return each.job.name
        return None
    finally:
        for each in running:
            each.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
