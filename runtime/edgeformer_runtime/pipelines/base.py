"""What all pipelines share: prepare, run, answer, with the time of each."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Generic, TypeVar

from edgeformer_runtime.bundle import Bundle
from edgeformer_runtime.engines.base import Engine, Tensor
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.memory import peak_rss_bytes
from edgeformer_runtime.pipelines.results import ClassificationResult, EmbeddingResult, Statistics
from edgeformer_runtime.vectors import Case

Raw = TypeVar("Raw")
Result = TypeVar("Result", ClassificationResult, EmbeddingResult)


@dataclass(frozen=True)
class Prepared:
    """A program and its inputs for one raw input; `truncated` says that the raw input lost its end."""

    program: str
    inputs: dict[str, Tensor]
    truncated: bool


class Pipeline(ABC, Generic[Raw, Result]):
    """Answers raw inputs of one task with a bundle. Calls from several threads are safe."""

    def __init__(self, bundle: Bundle, engine: Engine, owned: bool = False) -> None:
        """Use `edgeformer_runtime.load`, or `open_pipeline` with an engine of one's own."""
        self.bundle = bundle
        self.engine = engine
        self._owned = owned

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
    def is_batch(self, raw: Any) -> bool:
        """Whether a call's argument is a list of inputs rather than one."""

    @abstractmethod
    def raw_from_json(self, stored: Mapping[str, Any]) -> Raw:
        """A raw input from the form in which vectors store it."""

    def run(self, raw: Raw) -> Result:
        """Answer one raw input.

        Raises:
            InputError: the input cannot be used.
            EngineError: the model failed, or gave NaN or infinity.
        """
        start = time.perf_counter()
        prepared = self.prepare(raw)
        ready = time.perf_counter()
        outputs = self.engine.run(prepared.program, prepared.inputs)
        done = time.perf_counter()
        result = self.answer(outputs, prepared)
        end = time.perf_counter()
        statistics = Statistics((ready - start) * 1e3, (done - ready) * 1e3, (end - done) * 1e3, peak_rss_bytes())
        return replace(result, statistics=statistics)

    def __call__(self, raw: Any) -> Any:
        """Answer one raw input, or each of a list: a result, or a list of results in the same order."""
        if not self.is_batch(raw):
            return self.run(raw)
        results = []
        for index, item in enumerate(raw):
            try:
                results.append(self.run(item))
            except InputError as error:
                raise InputError(f"input {index} of {len(raw)}: {error}") from None
        return results

    def record(self, stored: Mapping[str, Any]) -> Case:
        """Run one stored input and keep each stage, as vectors need it."""
        prepared = self.prepare(self.raw_from_json(stored))
        outputs = self.engine.run(prepared.program, prepared.inputs)
        expected = self.answer(outputs, prepared).expected_json()
        return Case(prepared.program, dict(stored), expected, prepared.inputs, outputs)

    def close(self) -> None:
        """Release the engine and the bundle, if they are the pipeline's own. A second call does nothing."""
        if self._owned:
            self.engine.close()
            self.bundle.close()

    def __enter__(self) -> Pipeline[Raw, Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
