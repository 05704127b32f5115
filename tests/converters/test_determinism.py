"""Two processes, with different hash seeds, lower one program to the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

LOWER = """
import hashlib, json, sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import torch
from small_text import SmallTextClassifier, text_inputs, text_programs

from edgeformer.convert.layer_plan import LayerPlan, planned
from edgeformer.convert.target import PRECISIONS
from edgeformer.convert.target import converter_for

converter = converter_for(sys.argv[1])
folder = Path(sys.argv[2])
torch.manual_seed(0)
module = SmallTextClassifier().eval()
plan = LayerPlan({"query": "fp32", "head": "int8", "tokens": "int8"}, default="int4")
programs = tuple(
    replace(program, calibration=(tuple(torch.from_numpy(value) for value in text_inputs(program).values()),))
    for program in planned(text_programs(module, (16, 32)), module, plan)
)
hashes = {}
fp32 = None
for precision in converter.precisions:
    (folder / precision).mkdir()
    if fp32 is None:
        lowered = fp32 = converter.lower_fp32(programs, folder / precision)
    else:
        lowered = converter.lower_precision(programs, fp32, PRECISIONS[precision], folder / precision)
    for name in lowered.files:
        content = (lowered.folder / name).read_bytes()
        hashes[f"{precision}/{name}"] = hashlib.sha256(content).hexdigest()
print(json.dumps(hashes))
"""


def hashes(target: str, folder: Path, hash_seed: str) -> dict[str, str]:
    folder.mkdir()
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOWER, target, str(folder)],
        env=environment,
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "target",
    [
        pytest.param("litert", marks=pytest.mark.litert),
        pytest.param("coreml", marks=pytest.mark.coreml),
        pytest.param("executorch", marks=pytest.mark.executorch),
        "onnx",
    ],
)
def test_two_processes_give_the_same_bytes(target: str, tmp_path: Path) -> None:
    first = hashes(target, tmp_path / "first", "1")
    assert first
    assert hashes(target, tmp_path / "second", "2") == first
