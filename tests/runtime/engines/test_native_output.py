"""Nothing of LiteRT's log reaches stderr, however a process ends, and what Python says does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.litert

ENDINGS = {
    "left open": "pipeline('hello')",
    "closed": "pipeline('hello'); pipeline.close()",
    "in a cycle": "pipeline('hello'); holder = type('Holder', (), {})(); holder.holder, holder.it = holder, pipeline",
    "exit": "pipeline('hello'); raise SystemExit(0)",
    "never asked": "pass",
}


def stderr_of(code: str, bundle: Path) -> str:
    begin = "import sys, atexit\nfrom edgeformer_runtime import load\npipeline = load(sys.argv[1])\n"
    command = [sys.executable, "-c", begin + code, str(bundle)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stderr


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_end_is_quiet(tiny_litert: Path, ending: str) -> None:
    assert stderr_of(ENDINGS[ending], tiny_litert) == ""


def test_what_python_says_is_heard(tiny_litert: Path) -> None:
    assert stderr_of("atexit.register(print, 'last words', file=sys.stderr)", tiny_litert) == "last words\n"
    assert stderr_of("pipeline('hello'); raise ValueError('loud')", tiny_litert).endswith("ValueError: loud\n")
