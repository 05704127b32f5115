"""What a benchmark runs of a bundle: a program on a recorded input, or what the bundle's task has in its place."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.signature import Requirement
from edgeformer_runtime.bundle.vectors import Case, longest_case, read_vectors
from edgeformer_runtime.engines import Engine
from edgeformer_runtime.registry import load_attribute
from edgeformer_runtime.tasks.task import TASKS


@dataclass(frozen=True)
class Workload:
    """One recorded case as something to run again and again.

    Attributes:
        program: the program that runs, or with which an answer of several programs starts.
        case: what it runs on.
        bind: the call that a benchmark times, of a bundle that stays open as long as it is used, and its engine.
    """

    program: str
    case: Case
    bind: Callable[[Bundle, Engine], Callable[[], object]]


def workload(bundle: Bundle, program: str | None = None) -> Workload:
    """What a benchmark runs of a bundle: as its task says, of all programs or of one.

    Raises:
        BundleError: the bundle has no vectors.
        InputError: the bundle has no such program, or none that starts there.
    """
    choose: Callable[[Bundle, str | None], Workload] = load_attribute(TASKS[bundle.manifest.task].gives.workload)
    return choose(bundle, program)


def program_workload(bundle: Bundle, program: str | None) -> Workload:
    """The largest recorded input, run by its program alone; arguments and errors as of `workload`."""
    case = longest_case(bundle, program)
    return Workload(case.program, case, lambda _, engine: lambda: engine.run(case.program, case.inputs))


def measurable_programs(bundle: Bundle) -> tuple[str, ...]:
    """The programs that a workload may begin with, in the order of the recorded cases.

    Raises:
        BundleError: the bundle has no vectors.
    """
    return tuple(dict.fromkeys(case.program for case in read_vectors(bundle)[0]))


def bundle_run(
    path: str, program: str, threads: int, required: dict[str, Any] | None = None, batch: int = 1
) -> Callable[[], object]:
    """A benchmark's factory: the workload of a bundle, without preprocessing.

    Args:
        path: the bundle's folder or zip.
        program: which of its programs runs.
        threads: how many the engine may use.
        required: what it must be, as `Requirement.to_json` has it.
        batch: how often a run calls the program, which takes one input at a time.
    """
    # To measure says nothing of answers.
    bundle = Bundle.open(path, Requirement.from_json(required), allow_refused=True)
    return open_run(bundle, program, threads, batch)


INPUTS_PER_TURN = 10
"""So many inputs a contender answers before it is the next one's turn, where it answers a file of them."""


class EachInput:
    """A run that answers one input after the other, and after the last the first again."""

    def __init__(self, answer: Callable[[Any], object], inputs: Sequence[Any]) -> None:
        self._answer = answer
        self._inputs = inputs
        self._next = 0

    def __call__(self) -> object:
        """Answer the next input."""
        self._next += 1
        return self._answer(self._inputs[(self._next - 1) % len(self._inputs)])

    def repeat(self) -> object:
        """Answer the next input, which stays the next: its time is not taken."""
        return self._answer(self._inputs[self._next % len(self._inputs)])

    def rewind(self) -> None:
        """Start from the first input: contenders warm up with other numbers of runs."""
        self._next = 0


def read_inputs(path: str) -> list[Any]:
    """The inputs that a benchmark's parent has written for all contenders: a JSON list, or a folder of .npy files."""
    place = Path(path)
    if place.is_dir():
        return [np.load(file) for file in sorted(place.iterdir())]
    inputs: list[Any] = json.loads(place.read_text(encoding="utf-8"))
    return inputs


def data_run(path: str, inputs: str, threads: int, required: dict[str, Any] | None = None) -> EachInput:
    """A benchmark's factory: a bundle's whole pipeline over inputs; arguments as of `bundle_run`."""
    from edgeformer_runtime.engines import open_engine
    from edgeformer_runtime.pipelines import open_pipeline

    bundle = Bundle.open(path, Requirement.from_json(required), allow_refused=True)
    return EachInput(open_pipeline(bundle, open_engine(bundle, threads)).run, read_inputs(inputs))


def open_run(bundle: Bundle, program: str, threads: int, batch: int) -> Callable[[], object]:
    """`bundle_run` of a bundle that is open."""
    from edgeformer_runtime.engines import open_engine

    call = workload(bundle, program).bind(bundle, open_engine(bundle, threads))

    def run() -> object:
        for _ in range(batch - 1):
            call()
        return call()

    # Lives as long as the callable does: a zip's temporary folder goes with the bundle.
    run.bundle = bundle  # type: ignore[attr-defined]
    return run
