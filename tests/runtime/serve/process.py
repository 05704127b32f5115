"""The service as a process of its own, as people start it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

SERVE = (sys.executable, "-c", "from edgeformer_runtime.cli import main; main()", "serve")
NOISE = (sys.executable, str(Path(__file__).with_name("noise_service.py")))


@dataclass
class Served:
    """A running service: its process, and its address without the last slash."""

    process: subprocess.Popen[str]
    url: str

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and give the exit code."""
        self.process.send_signal(number)
        return self.process.wait(30)


@contextmanager
def running(command: Sequence[str]) -> Iterator[Served]:
    """The service of a command, from when it says where it answers; killed at the end if it still runs."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
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
