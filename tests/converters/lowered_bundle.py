"""What the runtime's readers of model files see of a lowered model, without a bundle on disk."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

from edgeformer.convert.target import Lowered
from edgeformer.models.family import Program
from edgeformer_runtime.bundle.manifest import FileEntry, ProgramSpec
from edgeformer_runtime.model_files import read_contents


def check_files(target: str, programs: tuple[Program, ...], lowered: Lowered) -> None:
    """Have the readers take every file of a lowered model; they raise where one is refused."""
    assert read_contents(_bundle(target, programs, lowered)).operators == Counter(lowered.operators)


def _bundle(target: str, programs: tuple[Program, ...], lowered: Lowered) -> Any:
    """What the readers see of a bundle, without writing one."""
    files = [path for path in sorted(lowered.folder.rglob("*")) if path.is_file()]
    specs = tuple(
        ProgramSpec(program.name, *lowered.entries[program.name], program.inputs, program.outputs)
        for program in programs
    )
    return SimpleNamespace(
        manifest=SimpleNamespace(
            target=target,
            programs=specs,
            all_programs=specs,
            files={path.relative_to(lowered.folder).as_posix(): FileEntry("", path.stat().st_size) for path in files},
        ),
        path=lambda name: lowered.folder / name,
    )
