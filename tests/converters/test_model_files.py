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
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from checkpoint_factory import save_whisper
from small_image import image_program
from small_speech import open_speech
from small_text import SmallTextClassifier, text_inputs, text_programs

from edgeformer.convert.layer_plan import LayerPlan, planned
from edgeformer.convert.target import PLANNED, PRECISIONS, TARGETS, converter_for
from edgeformer.models.program import Program
from edgeformer_runtime.bundle.manifest import FileEntry, ProgramSpec
from edgeformer_runtime.bundle.specs import HOST_STATE, PROGRAM_STATE
from edgeformer_runtime.model_files import check_model_files

pytestmark = pytest.mark.slow
STATES = {"litert": HOST_STATE, "onnx": HOST_STATE, "executorch": PROGRAM_STATE, "coreml": PROGRAM_STATE}


def bundle_of(target: str, programs: tuple[Program, ...], lowered: Any) -> Any:
    """What the readers see of a bundle, without writing one."""
    files = [path for path in sorted(lowered.folder.rglob("*")) if path.is_file()]
    return SimpleNamespace(
        manifest=SimpleNamespace(
            target=target,
            programs=tuple(
                ProgramSpec(program.name, *lowered.entries[program.name], program.inputs, program.outputs)
                for program in programs
            ),
            operators=lowered.operators,
            files={path.relative_to(lowered.folder).as_posix(): FileEntry("", path.stat().st_size) for path in files},
        ),
        path=lambda name: lowered.folder / name,
    )


def lowered_hashes(
    target: str, programs: tuple[Program, ...], folder: Path, precisions: Collection[str]
) -> dict[str, str]:
    """Lower programs to fp32 and other precisions, and have each file read; the files' hashes by precision and name."""
    converter, hashes = converter_for(target), {}
    fp32 = None
    for precision in ("fp32", *precisions):
        (folder / precision).mkdir()
        if fp32 is None:
            lowered = fp32 = converter.lower_fp32(programs, folder / precision)
        else:
            lowered = converter.lower_precision(programs, fp32, PRECISIONS[precision], folder / precision)
        check_model_files(bundle_of(target, programs, lowered))
        for name in lowered.files:
            hashes[f"{precision}/{name}"] = hashlib.sha256((lowered.folder / name).read_bytes()).hexdigest()
    return hashes


def programs_of(kind: str, target: str, folder: Path) -> tuple[Program, ...]:
    if kind == "image":
        return (image_program(),)
    # One layer and one bucket, as lowering takes a minute for each more and has no other operators; text has buckets.
    save_whisper(folder, max_source_positions=300, encoder_layers=1, decoder_layers=1)
    return open_speech(folder, target, (50,), STATES[target]).programs


@pytest.mark.parametrize("kind", ["image", "speech"])
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_file_of_every_converter(target: str, kind: str, tmp_path: Path) -> None:
    programs = programs_of(kind, target, tmp_path / "checkpoint")
    converter = converter_for(target)
    others = [name for name in converter.precisions if name != "fp32" and name not in PLANNED]
    assert lowered_hashes(
        target, programs, tmp_path, [name for name in others if not converter.check(programs, PRECISIONS[name])]
    )


def text_hashes(target: str, folder: Path) -> dict[str, str]:
    """Two buckets at every precision, a format for each layer among them."""
    torch.manual_seed(0)
    module = SmallTextClassifier().eval()
    plan = LayerPlan({"query": "fp32", "head": "int8", "tokens": "int8"}, default="int4")
    programs = tuple(
        replace(program, calibration=(tuple(torch.from_numpy(value) for value in text_inputs(program).values()),))
        for program in planned(text_programs(module, (16, 32)), module, plan)
    )
    others = [name for name in converter_for(target).precisions if name != "fp32"]
    return lowered_hashes(target, programs, folder, others)


def text_hashes_of_a_process(target: str, folder: Path, hash_seed: str) -> dict[str, str]:
    folder.mkdir()
    here = Path(__file__).parent
    # The packages first: the folder of tests has folders of their names.
    script = "import json, sys, pathlib, edgeformer, edgeformer_runtime\n"
    script += f"sys.path += {[str(here), str(here.parent)]}\nimport test_model_files as tests\n"
    script += "print(json.dumps(tests.text_hashes(sys.argv[1], pathlib.Path(sys.argv[2]))))"
    environment = {"PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"}
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
    first = text_hashes_of_a_process(target, tmp_path / "first", "1")
    assert {name.partition("/")[0] for name in first} == set(converter_for(target).precisions)
    assert text_hashes_of_a_process(target, tmp_path / "second", "2") == first
