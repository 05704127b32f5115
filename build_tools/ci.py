"""`.ci/run`: what a change must pass to land, its jobs side by side, each doing its own set-up.

    python3 -m build_tools.ci [JOB...]

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
"""Jobs at a time. The tests take a core each for two workers; what runs beside them is mostly single-threaded."""

POLL_S = 0.5
TAIL_LINES = 60
_PYTEST = ".venv/bin/pytest -q"


@dataclass(frozen=True)
class Job:
    """Commands that pass or fail together.

    Attributes:
        name: as the command line and the output have it.
        command: a line of shell.
        deadline_minutes: after which it counts as hung.
        after: names of jobs that must have passed.
    """

    name: str
    command: str
    deadline_minutes: float
    after: tuple[str, ...] = ()


JOBS = (
    Job("debian", "make browser && python3 -m build_tools.prepare", 25),
    Job("setup", "make setup", 25),
    Job("lint", "make lint", 15, ("setup",)),
    # Tests of what the jobs android and pi make run there.
    Job("test", "make test PYTEST='--ignore tests/android --ignore tests/pi'", 45, ("debian", "setup")),
    Job("ios", "make ios", 15, ("debian", "setup")),
    Job("android", f"make android && {_PYTEST} tests/android", 20, ("debian", "setup")),
    Job("pi", f"make pi && {_PYTEST} tests/pi", 30, ("debian", "setup")),
    Job("older-cpu", "make older-cpu", 20, ("debian", "setup")),
)
"""In the order in which they are begun: what fails soon, first; what takes longest, before what is short."""


class Running:
    """A job's process, and its output in a file."""

    def __init__(self, job: Job) -> None:
        """Start it."""
        self.job = job
        self.log = LOGS / f"{job.name}.log"
        self._begin = time.monotonic()
        with self.log.open("wb") as log:
            # A session of its own: what the job has started ends with it.
            self._process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", job.command],
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._begin

    @property
    def hangs(self) -> bool:
        """It is not done by its deadline."""
        return self.seconds > 60 * self.job.deadline_minutes

    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """End the job and all that it has started in its session."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def tail(self) -> str:
        """The last lines of its output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:])


def main(arguments: Sequence[str]) -> int:
    """Run the jobs; the exit code: 0 all pass, 1 one fails or hangs, 2 there is no such job."""
    if unknown := set(arguments) - {job.name for job in JOBS}:
        expected = ", ".join(job.name for job in JOBS)
        print(f"ci: no job {', '.join(sorted(unknown))}: expected some of {expected}", file=sys.stderr)
        return 2
    LOGS.mkdir(parents=True, exist_ok=True)
    # What GNU make tells its children about itself would make each job's make wait for the outer one.
    os.environ.pop("MAKEFLAGS", None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    begin = time.monotonic()
    ok = run([job for job in JOBS if job.name in arguments or not arguments])
    print(f"ci: {'ok' if ok else 'failed'} after {time.monotonic() - begin:.0f} s")
    return 0 if ok else 1


def run(jobs: Sequence[Job]) -> bool:
    """Run jobs, `SLOTS` at a time, until all have passed or the first has failed or hangs, which ends the others."""
    waiting, running, passed = list(jobs), list[Running](), set[str]()
    chosen = {job.name for job in jobs}
    try:
        while waiting or running:
            for job in [job for job in waiting if passed.issuperset(chosen.intersection(job.after))]:
                if len(running) < SLOTS:
                    print(f"ci: {job.name} begins", flush=True)
                    running.append(Running(job))
                    waiting.remove(job)
            time.sleep(POLL_S)
            for each in list(running):
                code = each.exit_code()
                if code is None and each.hangs:
                    minutes = f"{each.job.deadline_minutes:g} minutes"
                    print(
                        f"{each.tail()}\nci: {each.job.name} HANGS: not done after {minutes}; its last lines are above"
                    )
                    return False
                if code is not None:
                    running.remove(each)
                    passed.add(each.job.name)
                    print(_block(each, code), flush=True)
                    if code:
                        return False
        return True
    finally:
        for each in running:
            each.kill()


def _block(done: Running, code: int) -> str:
    """All that a job has printed, between its name and its result."""
    name, printed = done.job.name, done.log.read_text(errors="replace").rstrip()
    result = "passed" if code == 0 else f"FAILED with {code}"
    return f"===== {name}: {done.job.command}\n{printed}\n===== {name} {result} after {done.seconds:.0f} s"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
