"""The service as a process of its own, as people start it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Served:
    """A running service: its process, and its address without the last slash."""

    process: subprocess.Popen[str]
    url: str

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and give the exit code."""
        self.process.send_signal(number)
        return self.process.wait(30)


def start(bundle: Path, *options: object) -> Served:
    """Start `edgeformer-runtime serve` and wait until it says where it answers."""
    command = [sys.executable, "-c", "from edgeformer_runtime.cli import main; main()", "serve", str(bundle)]
    if "--port" not in options:
        options = (*options, "--port", 0)
    process = subprocess.Popen(
        [*command, *map(str, options)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    found = re.search(r"answers at (\S+)/ ", line)
    assert found, line + process.stderr.read()
    return Served(process, found[1])


@contextmanager
def serving(bundle: Path, *options: object) -> Iterator[Served]:
    """A service for as long as the block; killed at its end if it still runs."""
    served = start(bundle, *options)
    try:
        yield served
    finally:
        served.process.kill()
        served.process.communicate()
