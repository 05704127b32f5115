"""A bundle under examination: what several checks ask of it is found out once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from edgeformer.doctor.examiner import Examiner, Partitioning, Support
from edgeformer.doctor.liveness import Peak, peak_memory
from edgeformer.doctor.model_view import ModelView
from edgeformer.doctor.options import DoctorOptions
from edgeformer.doctor.ranges import Ranges, find_ranges
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import CASES_FILE
from edgeformer_runtime.bundle.vectors import Case, read_vectors


@dataclass(frozen=True)
class Examination:
    """What checks look at.

    Attributes:
        bundle: open, with every file as its manifest states.
        examiner: of the bundle's target.
        view: the model's files.
        options: what was asked.
    """

    bundle: Bundle
    examiner: Examiner
    view: ModelView
    options: DoctorOptions

    @property
    def runtime(self) -> str:
        """The version of the target's runtime that is asked about, as it was stated."""
        manifest = self.bundle.manifest
        if self.examiner.package is None:
            return self.options.runtime or self.options.min_ios or manifest.requires.ios or "0"
        return self.options.runtime or manifest.toolchain.get(self.examiner.package, "0")

    @cached_property
    def support(self) -> tuple[Support, ...]:
        """Whether the stated runtime has each operator."""
        return self.examiner.support(self.view, self.runtime)

    @cached_property
    def partitions(self) -> tuple[Partitioning, ...]:
        """How each program is divided; empty where the target has no delegate."""
        return self.examiner.partitions(self.bundle, self.view)

    @cached_property
    def peaks(self) -> dict[str, Peak]:
        """The most memory that each program's activations take at once."""
        return {program.name: peak_memory(program) for program in self.view.programs}

    @cached_property
    def cases(self) -> tuple[Case, ...]:
        """The recorded vectors; empty where the bundle has none."""
        return tuple(read_vectors(self.bundle)[0]) if CASES_FILE in self.bundle.manifest.files else ()

    @cached_property
    def ranges(self) -> Ranges:
        """How large the values become that the programs compute on the recorded vectors."""
        return find_ranges(self.bundle, self.examiner, self.view, self.cases)
