"""What the converters write, the runtime's readers of model files take: every target, every precision."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from checkpoint_factory import save_whisper
from small_image import image_program
from small_speech import open_speech
from small_text import SmallTextClassifier, text_programs

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


def programs_of(kind: str, target: str, folder: Path) -> tuple[Program, ...]:
    if kind == "image":
        return (image_program(),)
    if kind == "text":
        return text_programs(SmallTextClassifier().eval(), (8, 16))
    # One layer and one bucket, as lowering takes a minute for each more and has no other operators; text has buckets.
    save_whisper(folder, max_source_positions=300, encoder_layers=1, decoder_layers=1)
    return open_speech(folder, target, (50,), STATES[target]).programs


@pytest.mark.parametrize("kind", ["text", "image", "speech"])
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_file_of_every_converter(target: str, kind: str, tmp_path: Path) -> None:
    programs = programs_of(kind, target, tmp_path / "checkpoint")
    converter = converter_for(target)
    (tmp_path / "fp32").mkdir()
    fp32 = converter.lower_fp32(programs, tmp_path / "fp32")
    check_model_files(bundle_of(target, programs, fp32))
    for name in converter.precisions:
        if name == "fp32" or name in PLANNED or converter.check(programs, PRECISIONS[name]):
            continue
        (tmp_path / name).mkdir()
        lowered = converter.lower_precision(programs, fp32, PRECISIONS[name], tmp_path / name)
        check_model_files(bundle_of(target, programs, lowered))
