"""What the converters write, the runtime's readers of model files take, and it is the same in two processes: every
target, every precision."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lowered_bundle import check_files
from small_image import image_program
from small_text import SmallTextClassifier, text_inputs, text_programs

from edgeformer.convert.layer_plan import LayerPlan, planned
from edgeformer.convert.target import PLANNED, PRECISIONS, TARGETS, converter_for
from edgeformer.models.family import Program

pytestmark = pytest.mark.slow


def lowered_hashes(
    target: str, programs: tuple[Program, ...], folder: Path, precisions: Collection[str]
) -> dict[str, str]:
    """Lower programs to fp32 and other precisions, and have each file read; the files' hashes by precision and name.

    Where a precision is lowered anew, and not quantized from the files of fp32, it has the first program alone.
    """
    converter, hashes = converter_for(target), {}
    chosen = programs if converter.quantizes_files else programs[:1]
    fp32 = None
    for precision in ("fp32", *precisions):
        (folder / precision).mkdir()
        if fp32 is None:
            lowered = fp32 = converter.lower_fp32(programs, folder / precision)
        else:
            lowered = converter.lower_precision(chosen, fp32, PRECISIONS[precision], folder / precision)
        check_files(target, programs if lowered is fp32 else chosen, lowered)
        for name in lowered.files:
            hashes[f"{precision}/{name}"] = hashlib.sha256((lowered.folder / name).read_bytes()).hexdigest()
    return hashes


# Those of speech are read in the tests that run them, `test_<target>_speech.py`.
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_file_of_an_image_model(target: str, tmp_path: Path) -> None:
    programs = (image_program(),)
    converter = converter_for(target)
    others = [name for name in converter.precisions if name != "fp32" and name not in PLANNED]
    assert lowered_hashes(
        target, programs, tmp_path, [name for name in others if not converter.check(programs, PRECISIONS[name])]
    )


def text_hashes(target: str, folder: Path) -> dict[str, str]:
    """Two buckets that share weights, at every precision, a format for each layer among them; see `lowered_hashes`."""
    torch.manual_seed(0)
    module = SmallTextClassifier().eval()
    plan = LayerPlan({"query": "fp32", "head": "int8", "tokens": "int8"}, default="int4")
    programs = tuple(
        replace(program, calibration=(tuple(torch.from_numpy(value) for value in text_inputs(program).values()),))
        for program in planned(text_programs(module, (16, 32)), module, plan)
    )
    others = [name for name in converter_for(target).precisions if name != "fp32"]
    return lowered_hashes(target, programs, folder, others)


def text_hashes_of_another_process(target: str, folder: Path) -> dict[str, str]:
    folder.mkdir()
    here = Path(__file__).parent
    # The packages first: the folder of tests has folders of their names.
    script = "import json, sys, pathlib, edgeformer, edgeformer_runtime\n"
    script += f"sys.path += {[str(here), str(here.parent)]}\nimport test_model_files as tests\n"
    script += "print(json.dumps(tests.text_hashes(sys.argv[1], pathlib.Path(sys.argv[2]))))"
    # Python's hashes, which decide the order of sets, are of another seed there.
    environment = {"PYTHONHASHSEED": "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, target, str(folder)],
        env=os.environ | environment,
        cwd=folder,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_file_of_a_text_model_has_the_same_bytes_in_two_processes(target: str, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    here = text_hashes(target, tmp_path / "here")
    assert {name.partition("/")[0] for name in here} == set(converter_for(target).precisions)
    assert text_hashes_of_another_process(target, tmp_path / "there") == here
