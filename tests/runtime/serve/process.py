"""The service as a process of its own, as people start it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVE = (sys.executable, "-c", "from edgeformer_runtime.cli.app import main; main()", "serve")
ODD = (sys.executable, str(Path(__file__).with_name("odd_service.py")))
NOISE = (sys.executable, str(Path(__file__).with_name("noise_service.py")))


@dataclass
class Served:
    """A running service: its process, and its address without the last slash."""

    process: subprocess.Popen[str]
    url: str

    @property
    def port(self) -> int:
        """Where it listens on loopback."""
        return int(self.url.rpartition(":")[2])

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and give the exit code."""
        self.process.send_signal(number)
        return self.process.wait(30)

    def log(self) -> str:
        """What it has written to stderr, once it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read()


@contextmanager
def running(command: Sequence[str], most_files: int | None = None) -> Iterator[Served]:
    """The service of a command, from when it says where it answers; killed at the end if it still runs.

    Args:
        command: starts it.
        most_files: that it may have open, None: as many as this process.
    """
    limits = () if most_files is None else ("sh", "-c", f'ulimit -n {most_files}; exec "$@"', "sh")
    process = subprocess.Popen([*limits, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        found = re.search(r"answers at (\S+)/ ", line)
        assert found, line + process.stderr.read()
        yield Served(process, found[1])
    finally:
        process.kill()
        process.communicate()


def serving(bundle: Path, *options: object) -> AbstractContextManager[Served]:
    """`edgeformer-runtime serve` over a bundle, at a free port unless the options name one."""
    port = () if "--port" in options else ("--port", "0")
    return running([*SERVE, str(bundle), *port, *map(str, options)])


def odd(bundle: Path, most_files: int | None = None, **options: Any) -> AbstractContextManager[Served]:
    """A service with limits of its own, which does what its texts say; see `odd_service.py`."""
    return running([*ODD, str(bundle), json.dumps(options)], most_files)
