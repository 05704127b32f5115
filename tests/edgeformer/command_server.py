"""Command lines in forks of one process that has imported what they need: each start takes up to three seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# The child's own streams are files; its Python ends as that of a command does. A request is a line of JSON, as is the
# answer: the exit code.
SERVER = """
import importlib, json, os, sys

for module in ("edgeformer.cli", *sys.argv[1:]):
    importlib.import_module(module)
for line in sys.stdin:
    arguments, folder, out, err, imported = json.loads(line)
    child = os.fork()
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    os.chdir(folder)
    for number, path in enumerate((os.devnull, out, err)):
        os.dup2(os.open(path, os.O_RDWR), number)
    from edgeformer.cli import app
    from edgeformer_runtime.cli.console import run_app
    try:
        run_app(app, arguments)
    finally:
        with open(imported, "w") as file:
            file.write(str("torch" in sys.modules))
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended; `torch`: it had imported torch."""

    returncode: int
    stdout: str
    stderr: str
    torch: bool


class CommandServer:
    """`edgeformer ARGUMENTS`, each in a process of its own. One call at a time."""

    def __init__(self, *modules: str, environment: Mapping[str, str] | None = None) -> None:
        """Start the process, which imports `edgeformer.cli` and other modules.

        They must start no threads, as onnxruntime does: a fork has none of them, and may wait for one for ever.
        """
        self._folder = tempfile.TemporaryDirectory()
        self._files = [Path(self._folder.name) / name for name in ("out", "err", "imported")]
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    def __call__(self, *arguments: str | Path, cwd: Path | None = None) -> Ended:
        """Run a command line in a folder, or in this process's."""
        for file in self._files:
            file.write_bytes(b"")
        request = [list(map(str, arguments)), str(cwd or Path.cwd()), *map(str, self._files)]
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        code = int(self._process.stdout.readline())
        out, err, imported = (file.read_text(encoding="utf-8") for file in self._files)
        return Ended(code, out, err, imported == "True")

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()
        self._folder.cleanup()
