"""Model files made to harm, with hashes that agree: the engine refuses them, or runs them; it does not die."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HANG_SECONDS = 300


def ends(bundle: Path, changes: str, seeds: int) -> dict[str, int]:
    """How verifications of a bundle with spoiled models ended."""
    script = Path(__file__).with_name("hostile_models.py")
    done = subprocess.run(
        [sys.executable, str(script), str(bundle), changes, str(seeds)],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-2000:]}"
    found: dict[str, int] = json.loads(done.stdout)
    assert sum(found.values()) == seeds
    return found


SEEDS = pytest.mark.parametrize("seeds", [60, pytest.param(1500, marks=pytest.mark.slow)])


@SEEDS
@pytest.mark.parametrize("changes", ["lies", "spoiled"])
def test_onnx(tiny_onnx: Path, changes: str, seeds: int) -> None:
    found = ends(tiny_onnx, changes, seeds)
    assert found["BundleError"] > seeds / 2
    assert set(found) <= {"BundleError", "EngineError", "ok", "diverges"}


@SEEDS
@pytest.mark.litert
@pytest.mark.parametrize("changes", ["lies", "spoiled"])
def test_litert(tiny_litert: Path, changes: str, seeds: int) -> None:
    """Without `check_model_files` the process dies of many of these."""
    found = ends(tiny_litert, changes, seeds)
    assert found["BundleError"] > seeds / 2
    assert set(found) <= {"BundleError", "EngineError", "ok", "diverges"}


@SEEDS
@pytest.mark.executorch
@pytest.mark.slow
@pytest.mark.parametrize("changes", ["lies", "spoiled"])
def test_executorch(tiny_executorch: Path, changes: str, seeds: int) -> None:
    """Without `check_model_files` the process dies of some of these."""
    found = ends(tiny_executorch, changes, seeds)
    assert found["BundleError"] > seeds / 2
    assert set(found) <= {"BundleError", "EngineError", "ok", "diverges"}


@pytest.mark.parametrize("bundle", ["tiny_onnx", "tiny_litert"])
def test_a_hash_that_differs_keeps_the_model_from_the_engine(
    bundle: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Refused before the engine's library is even imported."""
    import shutil

    folder = Path(shutil.copytree(request.getfixturevalue(bundle), tmp_path / "spoiled"))
    model = next(path for path in sorted(folder.iterdir()) if path.name.startswith("model"))
    model.write_bytes(bytes(model.stat().st_size))
    script = (
        "import sys\n"
        "from edgeformer_runtime import load\n"
        "try: load(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__, sorted(m for m in sys.modules if m in"
        " ('ai_edge_litert', 'onnxruntime')))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True)
    assert done.stdout == "BundleError []\n", done.stderr
