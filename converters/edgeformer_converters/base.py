"""What a converter is, and what lowering gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgeformer_runtime.manifest import Requirements

from edgeformer.precision import Precision
from edgeformer.programs import Program


@dataclass(frozen=True)
class Lowered:
    """Model files that a converter wrote.

    Attributes:
        folder: where the files are.
        files: names inside `folder`, with `/` for nested files (a Core ML package is a folder).
        entries: for each program's name the file, or package folder, and the entry in it that run the program.
        operators: how often each operator of the target's own vocabulary occurs.
        partitions: how many pieces the delegate got, or None where the target has no delegate to count.
    """

    folder: Path
    files: tuple[str, ...]
    entries: dict[str, tuple[str, str]]
    operators: dict[str, int]
    partitions: int | None


class Converter(Protocol):
    """Lowers programs to one target's files."""

    target: str
    precisions: tuple[str, ...]
    requires: Requirements
    packages: tuple[str, ...]
    """Distributions whose versions go into the manifest's toolchain."""

    def check(self, programs: Sequence[Program], precision: Precision) -> list[str]:
        """What this target cannot do with these programs, one sentence each, before any expensive work."""

    def lower_fp32(self, programs: Sequence[Program], folder: Path) -> Lowered:
        """Lower the programs as they are into the empty folder."""

    def lower_precision(
        self, programs: Sequence[Program], fp32: Lowered, precision: Precision, folder: Path
    ) -> Lowered:
        """Lower the programs in another precision, from the fp32 files where the target's tool starts there."""
