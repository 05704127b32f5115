"""`.ci/run`: what a change must pass to land, its jobs side by side, each doing its own set-up.

    python3 -m tools.ci [JOB...]

Needs nothing but Python. A job prints in one block when it ends; the first that fails, or hangs, ends the run.
"""

from __future__ import annotations

import os
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
"""Jobs at a time: the tests keep two cores busy, the others are single-threaded or wait for a network in parts."""

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
    """

    name: str
    command: str
    deadline_minutes: float
    after: tuple[str, ...] = ()


_ALL = ("debian", "setup")
JOBS = (
    Job("debian", "make browser && python3 -m tools.prepare", 25),
    Job("setup", "make setup", 25),
    Job("lint", "make lint", 15, ("setup",)),
    # Without those of what android and pi bring, which run behind these.
    Job("test", "PYTEST_ADDOPTS='--ignore tests/android --ignore tests/tools/pi' make test", 70, _ALL),
    Job("pi", f"make pi && {_PYTEST} tests/tools/pi", 45, _ALL),
    Job("android", f"make android && {_PYTEST} tests/android", 30, _ALL),
    Job("older-cpu", "make older-cpu", 30, _ALL),
    Job("ios", "make ios", 25, _ALL),
)
"""In the order in which they begin. What takes longest comes before what is short, so that no core waits at the end."""


class Running:
    """A job's process, and its output in a file."""

    def __init__(self, job: Job) -> None:
        """Start it, in a session of its own: what it has started ends with it."""
        self.job, self.log = job, LOGS / f"{job.name}.log"
        self._begin = time.monotonic()
        command = ["bash", "-euo", "pipefail", "-c", job.command]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def hangs(self) -> bool:
        """It is not done by its deadline."""
        return time.monotonic() - self._begin > 60 * self.job.deadline_minutes

    def kill(self) -> None:
        """End the job and all that it has started in its session."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def block(self, result: str, lines: int = 0) -> str:
        """What it has printed, or the last lines of that, between its command and its result."""
        printed = "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        seconds = time.monotonic() - self._begin
        head = f"===== {self.job.name}: {self.job.command}"
        return f"{head}\n{printed}\n===== {self.job.name} {result} after {seconds:.0f} s"


def main(arguments: Sequence[str]) -> int:
    """Run the jobs; the exit code: 0 all pass, 1 one fails or hangs, 2 there is no such job."""
    names = [job.name for job in JOBS]
    if unknown := set(arguments) - set(names):
        print(f"ci: no job {', '.join(sorted(unknown))}: expected some of {', '.join(names)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    begin = time.monotonic()
    bad = run([job for job in JOBS if job.name in arguments or not arguments])
    print(f"ci: {f'failed in {bad}' if bad else 'ok'} after {time.monotonic() - begin:.0f} s")
    return 1 if bad else 0


def run(jobs: Sequence[Job]) -> str | None:
    """Run jobs, `SLOTS` at a time, until all have passed, or one has not: its name. That one ends the others."""
    LOGS.mkdir(parents=True, exist_ok=True)
    waiting, running, open_names = list(jobs), list[Running](), {job.name for job in jobs}
    try:
        while waiting or running:
            for job in [job for job in waiting if open_names.isdisjoint(job.after)][: SLOTS - len(running)]:
                print(f"ci: {job.name} begins", flush=True)
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
