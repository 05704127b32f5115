"""Pipelines whose answer is the outputs of one program: prepare, run, answer, with the time of each; rows of texts."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from edgeformer_runtime.bundle.manifest import Manifest, ProgramSpec
from edgeformer_runtime.engines import Engine, Tensor
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.pipelines import AT_A_TIME, Pipeline, Raw
from edgeformer_runtime.pipelines.results import ProgramResult, Statistics
from edgeformer_runtime.process import peak_rss_bytes

if TYPE_CHECKING:
    from edgeformer_runtime.bundle.vectors import Case
    from edgeformer_runtime.interface import CountProgress
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
        size: width and height of the image that answers are places of, in pixels.
    """

    program: str
    inputs: dict[str, Tensor]
    truncated: bool
    places: Places | None = None
    source: str | None = None
    size: tuple[int, int] | None = None


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

    def asked_windows(self, raw: Raw, options: Any) -> tuple[Prepared, ...]:  # noqa: ARG002
        """`windows` of a call with options, which may take other runs than one without."""
        return self.windows(raw)

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

    def options_from_json(self, stored: Mapping[str, Any]) -> Any:  # noqa: ARG002
        """The options of a call, from the same: None where vectors store none."""
        return None

    def outputs_of(self, window: Prepared) -> dict[str, Tensor]:
        """What its program gives for a window."""
        return self.engine.run(window.program, window.inputs)

    def run(self, raw: Raw, options: Any = None, progress: CountProgress | None = None) -> Result:
        """Answer one raw input; see `Pipeline.run`.

        Args:
            raw: the input.
            options: of the kind that the task's answers have; None: the bundle's own.
            progress: called after each window.
        """
        start = time.perf_counter()
        windows = self.asked_windows(raw, options)
        ready = time.perf_counter()
        outputs = []
        for number, window in enumerate(windows, 1):
            outputs.append(self.outputs_of(window))
            if progress is not None:
                progress(number, len(windows))
        done = time.perf_counter()
        result = self.answer_windows(outputs, windows, options)
        end = time.perf_counter()
        statistics = Statistics((ready - start) * 1e3, (done - ready) * 1e3, (end - done) * 1e3, peak_rss_bytes())
        return replace(result, statistics=statistics)

    def answer_each(self, raws: Iterable[Raw], options: Any = None) -> Iterator[Result | InputError | EngineError]:
        """See `Pipeline.answer_each`: short texts share rows where the bundle has a program for that."""
        packed = packed_program(self.bundle.manifest, self.engine)
        if packed is None:
            yield from super().answer_each(raws, options)
            return
        waiting = iter(raws)
        while some := list(islice(waiting, AT_A_TIME)):
            yield from self._answer_some(some, options, packed)

    def _answer_some(
        self, raws: Sequence[Raw], options: Any, packed: ProgramSpec
    ) -> Iterator[Result | InputError | EngineError]:
        start = time.perf_counter()
        asked = [self._windows_or_error(raw, options) for raw in raws]
        preprocess_ms = (time.perf_counter() - start) * 1e3 / len(raws)
        windows = [window for own in asked if not isinstance(own, InputError) for window in own]
        shared = self._run_rows(windows, packed)
        done = 0
        for raw, own in zip(raws, asked, strict=True):
            if isinstance(own, InputError):
                yield own
                continue
            found = [shared.get(number) for number in range(done, done + len(own))]
            done += len(own)
            yield self._answer_shared(found, own, options, preprocess_ms) or self._answer_or_error(raw, options)

    def _windows_or_error(self, raw: Raw, options: Any) -> tuple[Prepared, ...] | InputError:
        try:
            return self.asked_windows(raw, options)
        except InputError as error:
            return error

    def _run_rows(self, windows: Sequence[Prepared], packed: ProgramSpec) -> dict[int, tuple[dict[str, Tensor], float]]:
        """By the number of each window that shares a row: its outputs, and its share of the milliseconds."""
        found: dict[int, tuple[dict[str, Tensor], float]] = {}
        for row in rows_of(windows, packed):
            start = time.perf_counter()
            try:
                outputs = self.engine.run(packed.name, row_inputs(row, windows, packed))
            except EngineError:  # each text of the row is asked alone, and says so itself if it cannot be answered
                continue
            share_ms = (time.perf_counter() - start) * 1e3 / len(row.texts)
            found |= {number: (each, share_ms) for number, each in row_outputs(row, outputs, windows)}
        return found

    def _answer_shared(
        self,
        found: Sequence[tuple[dict[str, Tensor], float] | None],
        windows: Sequence[Prepared],
        options: Any,
        preprocess_ms: float,
    ) -> Result | None:
        """The answer in what shared rows gave; None: a window was in none, or a row has NaN, perhaps a neighbour's."""
        outputs = [each for each in found if each is not None]
        if len(outputs) < len(windows):
            return None
        start = time.perf_counter()
        try:
            result = self.answer_windows([each for each, _ in outputs], windows, options)
        except EngineError:
            return None
        end = time.perf_counter()
        run_ms = sum(share_ms for _, share_ms in outputs)
        return replace(result, statistics=Statistics(preprocess_ms, run_ms, (end - start) * 1e3, peak_rss_bytes()))

    def record(self, stored: Mapping[str, Any]) -> Case:
        """Run one stored input and keep each stage, as vectors need it; of several windows the first one's tensors."""
        from edgeformer_runtime.bundle.vectors import Case

        options = self.options_from_json(stored)
        windows = self.asked_windows(self.raw_from_json(stored), options)
        outputs = [self.outputs_of(window) for window in windows]
        expected = self.answer_windows(outputs, windows, options).expected_json()
        return Case(windows[0].program, dict(stored), expected, windows[0].inputs, outputs[0])


# Several short texts in one row of positions, answered by one run of a bundle's packed program.
#
# Each text has positions from 0 on and sees itself alone, so answers are those of one run for each but for rounding.
# A run reads all weights, however short its text is, and a bucket's padding costs as much as tokens do: of rows neither
# is paid for. Rows are filled first-fit, longest text first.


def packed_program(manifest: Manifest, engine: Engine) -> ProgramSpec | None:
    """The program that takes several texts, where the bundle has one and the engine runs it."""
    packed = manifest.packed
    return packed if packed is not None and packed.name in getattr(engine, "programs", ()) else None


@dataclass(frozen=True)
class Row:
    """Texts that share a row: their numbers, and where each begins."""

    texts: tuple[int, ...]
    starts: tuple[int, ...]


def rows_of(windows: Sequence[Prepared], packed: ProgramSpec) -> Iterator[Row]:
    """Rows that are worth a run: the buckets of their texts have at least as many positions. Others go alone."""
    _, count, length = _shape(packed)
    tokens = [_tokens(window) for window in windows]
    filled: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(windows)), key=lambda each: -tokens[each]):
        for place, left in enumerate(room):
            if tokens[number] <= left and len(filled[place]) < count:
                filled[place].append(number)
                room[place] -= tokens[number]
                break
        else:
            if tokens[number] <= length:
                filled.append([number])
                room.append(length - tokens[number])
    for texts in filled:
        alone = sum(windows[number].inputs["attention_mask"].shape[1] for number in texts)
        if len(texts) > 1 and alone >= length:
            ends = np.cumsum([tokens[number] for number in texts])
            yield Row(tuple(texts), (0, *ends[:-1].tolist()))


def row_inputs(row: Row, windows: Sequence[Prepared], packed: ProgramSpec) -> dict[str, Tensor]:
    """What the packed program takes: the texts one behind the other, and which positions are whose."""
    inputs: dict[str, Tensor] = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in packed.inputs}
    texts = inputs["texts"]
    for place, (number, start) in enumerate(zip(row.texts, row.starts, strict=True)):
        given, tokens = windows[number].inputs, _tokens(windows[number])
        where = slice(start, start + tokens)
        for name in inputs.keys() & given.keys():
            inputs[name][0, where] = given[name][0, :tokens]
        inputs["position_ids"][0, where] = np.arange(tokens)
        texts[0, place, where] = 1
    return inputs


def row_outputs(
    row: Row, outputs: Mapping[str, Tensor], windows: Sequence[Prepared]
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Each text's number and outputs, as its bucket's program gives them but for what it gives of padding."""
    for place, (number, start) in enumerate(zip(row.texts, row.starts, strict=True)):
        end = start + _tokens(windows[number])
        yield (
            number,
            {
                name: output[place : place + 1] if output.ndim == 2 else output[:, start:end]
                for name, output in outputs.items()
            },
        )


def _shape(packed: ProgramSpec) -> tuple[int, ...]:
    return next(spec.shape for spec in packed.inputs if spec.name == "texts")


def _tokens(window: Prepared) -> int:
    return int(window.inputs["attention_mask"].sum())
