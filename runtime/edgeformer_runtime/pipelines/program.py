"""Pipelines whose answer is the outputs of one program: prepare, run, answer, with the time of each."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from edgeformer_runtime.engines.base import Tensor
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.interface import CountProgress
from edgeformer_runtime.pipelines.base import Pipeline, Raw
from edgeformer_runtime.pipelines.results import ProgramResult, Statistics
from edgeformer_runtime.process import peak_rss_bytes

if TYPE_CHECKING:
    from edgeformer_runtime.bundle.vectors import Case
    from edgeformer_runtime.preprocess.text import Places

Result = TypeVar("Result", bound=ProgramResult)


@dataclass(frozen=True)
class Prepared:
    """A program and its inputs for one raw input, or for a window of it.

    Attributes:
        program: its name.
        inputs: by name.
        truncated: the raw input lost its end.
        places: where its tokens stand in the raw input, of tasks that answer with places.
        source: the text that answers are places of.
    """

    program: str
    inputs: dict[str, Tensor]
    truncated: bool
    places: Places | None = None
    source: str | None = None


class ProgramPipeline(Pipeline[Raw, Result]):
    """Answers each raw input with one run of one program."""

    @abstractmethod
    def prepare(self, raw: Raw) -> Prepared:
        """Preprocess one raw input and choose the program for it.

        Raises:
            InputError: the input cannot be used.
        """

    @abstractmethod
    def answer(self, outputs: Mapping[str, Tensor], prepared: Prepared) -> Result:
        """The answer in a program's outputs, without statistics.

        Raises:
            EngineError: the outputs hold NaN or infinity.
        """

    def windows(self, raw: Raw) -> tuple[Prepared, ...]:
        """The runs that one raw input takes: one, or more of a task that reads it in windows. Errors as `prepare`."""
        return (self.prepare(raw),)

    def answer_windows(
        self, outputs: Sequence[Mapping[str, Tensor]], windows: Sequence[Prepared], options: Any = None
    ) -> Result:
        """The answer in the outputs of all windows, without statistics; see `answer`.

        Args:
            outputs: of each window's program.
            windows: what `windows` gave.
            options: of the kind that the task's answers have, or None.
        """
        if options is not None:
            raise InputError(f"{self.bundle.manifest.task} takes no options, found {options!r}")
        return self.answer(outputs[0], windows[0])

    @abstractmethod
    def raw_from_json(self, stored: Mapping[str, Any]) -> Raw:
        """A raw input from the form in which vectors store it."""

    def run(self, raw: Raw, options: Any = None, progress: CountProgress | None = None) -> Result:
        """Answer one raw input; see `Pipeline.run`.

        Args:
            raw: the input.
            options: of the kind that the task's answers have; None: the bundle's own.
            progress: called after each window.
        """
        start = time.perf_counter()
        windows = self.windows(raw)
        ready = time.perf_counter()
        outputs = []
        for number, window in enumerate(windows, 1):
            outputs.append(self.engine.run(window.program, window.inputs))
            if progress is not None:
                progress(number, len(windows))
        done = time.perf_counter()
        result = self.answer_windows(outputs, windows, options)
        end = time.perf_counter()
        statistics = Statistics((ready - start) * 1e3, (done - ready) * 1e3, (end - done) * 1e3, peak_rss_bytes())
        return replace(result, statistics=statistics)

    def record(self, stored: Mapping[str, Any]) -> Case:
        """Run one stored input and keep each stage, as vectors need it; of several windows the first one's tensors."""
        from edgeformer_runtime.bundle.vectors import Case

        windows = self.windows(self.raw_from_json(stored))
        outputs = [self.engine.run(window.program, window.inputs) for window in windows]
        expected = self.answer_windows(outputs, windows).expected_json()
        return Case(windows[0].program, dict(stored), expected, windows[0].inputs, outputs[0])
