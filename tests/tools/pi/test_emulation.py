"""What `make pi` relies on: aarch64 Python with the published wheels, which can start itself."""

from __future__ import annotations

import json
import subprocess

import pytest

from tools.pi.emulated_pi import EmulatedPi, clean_environment
from tools.pi.wheels import RUNTIME, versions

pytestmark = pytest.mark.pi

SCRIPT = """
import json, platform, subprocess, sys
import edgeformer_runtime, numpy
inner = [sys.executable, "-c", "import platform; print(platform.machine())"]
nested = subprocess.run(inner, capture_output=True, text=True).stdout.strip()
print(json.dumps([platform.machine(), nested, edgeformer_runtime.__file__, numpy.arange(4).sum().item()]))
"""


def test_python_there_runs_the_installed_wheel_and_can_start_itself(pi: EmulatedPi) -> None:
    done = subprocess.run(
        [pi.python, "-c", SCRIPT], env=clean_environment(), capture_output=True, text=True, check=True
    )
    machine, nested, file, total = json.loads(done.stdout)
    assert (machine, nested, total) == ("aarch64", "aarch64", 6)
    assert str(pi.site_packages) in file
    assert str(RUNTIME) not in file


def test_the_wheels_are_of_this_environments_versions_and_no_torch(pi: EmulatedPi) -> None:
    there, here = versions(pi.site_packages), versions()
    assert {"numpy", "ai-edge-litert", "tokenizers"} <= set(there)
    assert "torch" not in there
    assert all(here.get(name, version) == version for name, version in there.items())


def test_the_processor_is_a_raspberry_pis(pi: EmulatedPi) -> None:
    done = subprocess.run(
        [pi.python, "-c", "print(open('/proc/cpuinfo').read())"],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "0xd0b" in done.stdout
    assert "Raspberry Pi 5" in done.stdout
