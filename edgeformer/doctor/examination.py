"""A bundle under examination: what several checks ask of it is found out once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from edgeformer.doctor.examiner import (
    ELEMENTWISE,
    LAYOUT,
    SOFTMAX,
    DoctorOptions,
    Examiner,
    ModelView,
    Node,
    Partitioning,
    Program,
    Support,
    plain_name,
)
from edgeformer.tasks.task import TASKS
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import CASES_FILE
from edgeformer_runtime.bundle.vectors import Case, read_vectors
from edgeformer_runtime.errors import EngineError


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


# How much memory a program's activations take at once.


IN_PLACE = ELEMENTWISE | LAYOUT | SOFTMAX
"""What runtimes write over an operand of the same size that nobody reads afterwards."""


@dataclass(frozen=True)
class Peak:
    """The moment when a program holds the most.

    Attributes:
        size_bytes: the values that are alive then, without constants.
        node: the label of the node that runs then.
        operator: that node's operator.
    """

    size_bytes: int
    node: str
    operator: str


def peak_memory(program: Program) -> Peak:
    """The largest sum of the values that are alive at once.

    A value lives from the node that makes it to the last one that reads it; inputs live from the start and outputs to
    the end. What is made of constants alone counts as a constant. What kernels and packed weights take, and what a
    planner loses to gaps, comes on top.
    """
    nodes = [node for node in program.nodes if not _is_constant(node, program)]
    last: dict[str, int] = {}
    for index, node in enumerate(nodes):
        last.update(dict.fromkeys((*node.inputs, *node.outputs), index))
    last.update(dict.fromkeys(program.outputs, len(nodes)))
    alive = {key: program.values[key].size_bytes for key in program.inputs}
    now = sum(alive.values())
    peak = Peak(now, "", "the inputs")
    for index, node in enumerate(nodes):
        ended = [key for key in dict.fromkeys(node.inputs) if last[key] == index and key in alive]
        made = {key: program.values[key].size_bytes for key in node.outputs if key not in alive}
        reused = next((key for key in ended if _is_in_place(node) and alive[key] in made.values()), None)
        if reused is not None and reused not in program.inputs:
            now -= alive.pop(reused)
        alive |= made
        now += sum(made.values())
        if now > peak.size_bytes:
            peak = Peak(now, node.label, node.operator)
        now -= sum(alive.pop(key, 0) for key in (*ended, *made) if last[key] == index)
    return peak


def _is_in_place(node: Node) -> bool:
    return plain_name(node.operator) in IN_PLACE and len(node.outputs) == 1


def _is_constant(node: Node, program: Program) -> bool:
    """Whether a node reads constants alone, so that a runtime computes it when it opens the model."""
    return bool(node.inputs) and all(program.values[key].constant is not None for key in node.inputs)


# How large a program's values become on the recorded vectors.


# Of each program so many recorded cases are run. More change the largest number little and take as much time again.
CASES_PER_PROGRAM = 3
TOKENS = 4


@dataclass(frozen=True)
class Ranges:
    """The largest numbers that were seen.

    Attributes:
        largest: of each program, by its name, the (label, number) of each of its operators.
        failure: what the engine said when it could not go on; None: it could.
        hidden: the target does not show its values.
    """

    largest: dict[str, dict[str, float]]
    failure: str | None = None
    hidden: bool = False

    def peak(self, program: str) -> tuple[str, float] | None:
        """The operator whose result is the largest, and that number; None: the program was not run."""
        found = self.largest.get(program)
        return max(found.items(), key=lambda item: math.inf if math.isnan(item[1]) else item[1]) if found else None


def find_ranges(bundle: Bundle, examiner: Examiner, view: ModelView, cases: Sequence[Case]) -> Ranges:
    """Run recorded cases in an engine that shows what it computes.

    Of a decoder the prompt and the first tokens are run.
    """
    largest: dict[str, dict[str, float]] = {}

    def observe(program: str, label: str, number: float) -> None:
        seen = largest.setdefault(program, {})
        seen[label] = number if math.isnan(number) else max(seen.get(label, 0.0), number)

    engine = examiner.observed(bundle, view, observe)
    if engine is None or not cases:
        return Ranges(largest, hidden=engine is None)
    failure = None
    try:
        TASKS[bundle.manifest.task].rerun(bundle, engine, cases, CASES_PER_PROGRAM, TOKENS)
    except EngineError as error:
        failure = str(error)
    finally:
        engine.close()
    return Ranges(largest, failure)
