"""Pipelines whose answer is the outputs of one program: prepare, run, answer, with the time of each."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from edgeformer_runtime.engines.base import Tensor
from edgeformer_runtime.pipelines.base import Pipeline, Raw
from edgeformer_runtime.pipelines.results import ProgramResult, Statistics
from edgeformer_runtime.process import peak_rss_bytes

if TYPE_CHECKING:
    from edgeformer_runtime.bundle.vectors import Case

Result = TypeVar("Result", bound=ProgramResult)


@dataclass(frozen=True)
class Prepared:
    """A program and its inputs for one raw input; `truncated` says that the raw input lost its end."""

    program: str
    inputs: dict[str, Tensor]
    truncated: bool


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

    @abstractmethod
    def raw_from_json(self, stored: Mapping[str, Any]) -> Raw:
        """A raw input from the form in which vectors store it."""

    def run(self, raw: Raw) -> Result:
        """Answer one raw input; see `Pipeline.run`."""
        start = time.perf_counter()
        prepared = self.prepare(raw)
        ready = time.perf_counter()
        outputs = self.engine.run(prepared.program, prepared.inputs)
        done = time.perf_counter()
        result = self.answer(outputs, prepared)
        end = time.perf_counter()
        statistics = Statistics((ready - start) * 1e3, (done - ready) * 1e3, (end - done) * 1e3, peak_rss_bytes())
        return replace(result, statistics=statistics)

    def record(self, stored: Mapping[str, Any]) -> Case:
        """Run one stored input and keep each stage, as vectors need it."""
        from edgeformer_runtime.bundle.vectors import Case

        prepared = self.prepare(self.raw_from_json(stored))
        outputs = self.engine.run(prepared.program, prepared.inputs)
        expected = self.answer(outputs, prepared).expected_json()
        return Case(prepared.program, dict(stored), expected, prepared.inputs, outputs)
