"""The runtime as a Raspberry Pi gets it: installed by itself, without torch, it runs and verifies a LiteRT bundle."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.litert]

RUNTIME = Path(__file__).resolve().parents[2] / "runtime"


@pytest.fixture(scope="module")
def thin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment that holds edgeformer-runtime[cli] and what it needs, from the registry."""
    folder = tmp_path_factory.mktemp("thin")
    # A copy, so that the build leaves nothing in the checkout.
    sources = folder / "runtime"
    shutil.copytree(RUNTIME, sources, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    venv.create(folder / "env")
    bin_folder = folder / "env" / ("Scripts" if sys.platform == "win32" else "bin")
    # This environment's pip, and nothing compiled that is never imported: both take seconds.
    pip = [sys.executable, "-m", "pip", "--python", bin_folder / "python", "--disable-pip-version-check"]
    command = [*pip, "install", "--quiet", "--no-compile"]
    subprocess.run([*command, sources], check=True, cwd=folder)
    refused = call(bin_folder / "edgeformer-runtime", "--help", cwd=folder)
    assert refused.returncode == 2
    assert refused.stderr == (
        "error: the command line needs the package typer: pip install 'edgeformer-runtime[cli]'\n"
    )
    subprocess.run([*command, f"{sources}[cli]"], check=True, cwd=folder)
    return bin_folder


def call(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command without this environment's variables."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)


def test_a_machine_without_torch(thin: Path, tiny_litert: Path, tmp_path: Path) -> None:
    python, command = thin / "python", thin / "edgeformer-runtime"
    assert "ModuleNotFoundError: No module named 'torch'" in call(python, "-c", "import torch", cwd=tmp_path).stderr
    assert "ModuleNotFoundError" in call(python, "-c", "import transformers", cwd=tmp_path).stderr

    script = f"""
import sys
from edgeformer_runtime import load
result = load({str(tiny_litert)!r})("hello")
print(result.label, "edgeformer" in sys.modules)
"""
    answered = call(python, "-c", script, cwd=tmp_path)
    assert answered.stdout == "lights False\n", answered.stderr

    run = call(command, "run", tiny_litert, "hello", "--json", cwd=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    assert json.loads(run.stdout)[0]["labels"][0] == "lights"

    verified = call(command, "verify", tiny_litert, "--json", cwd=tmp_path)
    assert (verified.returncode, verified.stderr) == (0, "")
    assert json.loads(verified.stdout)["ok"] is True

    measured = call(command, "bench", tiny_litert, "--rounds", "2", "--json", cwd=tmp_path)
    assert (measured.returncode, measured.stderr) == (0, "")
    assert json.loads(measured.stdout)["reports"][0]["rows"][0]["peak_rss_mb"] < 150

    # The schemas and the specification travel with the package; nothing is written where it is used.
    assert call(command, "inspect", tiny_litert, cwd=tmp_path).returncode == 0
    missing = call(command, "inspect", "nowhere", cwd=tmp_path)
    assert missing.returncode == 2
    assert missing.stderr == "error: no bundle at nowhere: expected a bundle's folder or zip\n"
    assert not list(tmp_path.iterdir())


def test_another_engine_than_the_installed_one(thin: Path, tiny: Path, tmp_path: Path) -> None:
    done = call(thin / "edgeformer-runtime", "run", tiny, "hello", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "error: a bundle for onnx needs the package onnxruntime: pip install 'edgeformer-runtime[onnx]'\n"
    )
