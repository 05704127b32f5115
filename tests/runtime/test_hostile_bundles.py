"""Mutated bundles of every engine, with hashes that agree: nothing dies of them, hangs, grows or looks around.

EDGEFORMER_FUZZ=10000 makes it so many bundles of each engine. `hostile_bundles.py` takes other bundles, and tells more.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory and files are watched as Linux can")

MUTATIONS = int(os.environ.get("EDGEFORMER_FUZZ", "60"))
ISOLATED = max(5, MUTATIONS // 10)
"""Each of these starts a process."""


def ends(bundle: Path, way: str, count: int, *kinds: str) -> Counter[str]:
    """How often each end was met; fails where something went wrong."""
    script = Path(__file__).with_name("hostile_bundles.py")
    command = [sys.executable, str(script), str(bundle), "--way", way, "--seeds", str(count)]
    done = subprocess.run([*command, *(f"--kind={kind}" for kind in kinds)], capture_output=True, text=True)
    assert done.stdout, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    assert not found["wrong"], json.dumps(found["wrong"][:5], indent=1)
    assert done.returncode == 0
    return sum((Counter(each) for each in found["ends"].values()), Counter())


ENGINES = pytest.mark.parametrize(
    "name",
    [
        "tiny_onnx",
        "tiny_image_onnx",
        pytest.param("tiny_litert", marks=pytest.mark.litert),
        pytest.param("tiny_executorch", marks=[pytest.mark.executorch, pytest.mark.slow]),
        pytest.param("tiny_executorch_by_shim", marks=[pytest.mark.executorch, pytest.mark.slow]),
    ],
)


@ENGINES
def test_every_file(name: str, request: pytest.FixtureRequest) -> None:
    found = ends(request.getfixturevalue(name), "engine", MUTATIONS)
    assert set(found) <= {"BundleError", "EngineError", "ok", "diverges"}
    # The mutations are neither all harmless nor all refused at the door: some reach the model and the answer.
    assert found["BundleError"] > MUTATIONS / 4
    assert found["ok"] + found["diverges"] > MUTATIONS / 100


@ENGINES
def test_model_files(name: str, request: pytest.FixtureRequest) -> None:
    """Without `check_model_files` LiteRT and ExecuTorch die of some of these."""
    found = ends(request.getfixturevalue(name), "engine", MUTATIONS, "protobuf", "flatbuffer")
    assert set(found) <= {"BundleError", "EngineError", "ok", "diverges"}
    assert found["BundleError"] > MUTATIONS / 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "tiny_onnx",
        pytest.param("tiny_litert", marks=pytest.mark.litert),
        pytest.param("tiny_executorch", marks=[pytest.mark.executorch, pytest.mark.slow]),
        pytest.param("tiny_executorch_by_shim", marks=[pytest.mark.executorch, pytest.mark.slow]),
    ],
)
def test_helper_processes(name: str, request: pytest.FixtureRequest) -> None:
    found = ends(request.getfixturevalue(name), "isolated", ISOLATED)
    assert set(found) <= {"BundleError", "EngineError", "ok", "diverges"}


def test_a_crash_is_seen(tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge itself: a process that dies of a bundle is counted, and the next one goes on behind it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "def die(event, arguments):\n"
        "    if event == 'open' and str(arguments[0]).endswith('/4/manifest.json') and 'r' in str(arguments[1]):\n"
        "        import os\n"
        "        os.abort()\n"
        "sys.addaudithook(die)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    script = Path(__file__).with_name("hostile_bundles.py")
    command = [sys.executable, str(script), str(tiny_onnx), "--way", "readers", "--seeds", "4", "--kind=cases"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert [each["end"] for each in found["wrong"]] == ["died"] * len(found["wrong"])
    assert found["wrong"]
    assert "ended with -6" in found["wrong"][0]["wrong"][0]
    assert sum(sum(each.values()) for each in found["ends"].values()) == 4


@pytest.mark.parametrize("bundle", ["tiny_onnx", "tiny_litert"])
def test_a_hash_that_differs_keeps_the_model_from_the_engine(
    bundle: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Refused before the engine's library is even imported."""
    import shutil

    folder = Path(shutil.copytree(request.getfixturevalue(bundle), tmp_path / "corrupted"))
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
