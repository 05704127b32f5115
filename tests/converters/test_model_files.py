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

Hashes = dict[str, dict[str, str]]
"""Of files, by target."""


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


# Those of speech are read in the tests that run them, `test_<target>_speech.py`, and images at int8 in
# `test_static_int8.py`.
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_file_of_an_image_model(target: str, tmp_path: Path) -> None:
    programs = (image_program(),)
    converter = converter_for(target)
    read_there = ("dynamic-int8", "static-int8") if "static-int8" in converter.precisions else ()
    others = [name for name in converter.precisions if name not in ("fp32", *PLANNED, *read_there)]
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


def all_text_hashes(folder: Path) -> Hashes:
    found = {}
    for target in sorted(TARGETS):
        (folder / target).mkdir()
        found[target] = text_hashes(target, folder / target)
    return found


@pytest.fixture(scope="module")
def hashes_of_another_process(tmp_path_factory: pytest.TempPathFactory) -> Hashes:
    """`text_hashes` of all targets, by name: one process, as each imports torch anew."""
    here, folder = Path(__file__).parent, tmp_path_factory.mktemp("there")
    # The packages first: the folder of tests has folders of their names.
    script = "import json, sys, pathlib, edgeformer, edgeformer_runtime\n"
    script += f"sys.path += {[str(here), str(here.parent)]}\nimport test_model_files as tests\n"
    script += "print(json.dumps(tests.all_text_hashes(pathlib.Path(sys.argv[1]))))"
    # Python's hashes, which decide the order of sets, are of another seed there.
    environment = {"PYTHONHASHSEED": "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        env=os.environ | environment,
        cwd=folder,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: Hashes = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_file_of_a_text_model_has_the_same_bytes_in_two_processes(
    target: str, hashes_of_another_process: Hashes, tmp_path: Path
) -> None:
    here = text_hashes(target, tmp_path)
    assert {name.partition("/")[0] for name in here} == set(converter_for(target).precisions)
    assert hashes_of_another_process[target] == here
