"""How the inputs of one request are answered: all at once, or sound window by window, with others in between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

from edgeformer_runtime.cancellation import IsCancelled, check
from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.pipelines.base import Pipeline
from edgeformer_runtime.pipelines.speech import Transcriber
from edgeformer_runtime.pipelines.transcription import Transcription
from edgeformer_runtime.serve.inputs import Inputs, Result
from edgeformer_runtime.serve.workers import Workers


@dataclass(frozen=True)
class Task:
    """How one request is to be answered.

    Attributes:
        read: its inputs from a body and its content type.
        answer: the results for its inputs, in their order.
        top: how many labels the answer has, None: all, or no labels.
    """

    read: Callable[[bytes, str], Inputs[Any]]
    answer: Callable[[Workers, Inputs[Any]], Awaitable[list[Result]]]
    top: int | None = None


async def answer_at_once(workers: Workers, inputs: Inputs[Any]) -> list[Result]:
    """One worker answers all inputs of a request; it gives up between two of them."""

    def run_all(pipeline: Pipeline[Any, Any], is_cancelled: IsCancelled) -> list[Result]:
        results = []
        for index, raw in enumerate(inputs.raws):
            check(is_cancelled)
            try:
                results.append(cast(Result, pipeline.run(raw)))
            except InputError as error:
                raise InputError(f"inputs.{index}: {error}" if inputs.several else str(error)) from None
        return results

    return await workers.run(run_all)


async def transcribe(workers: Workers, inputs: Inputs[bytes], options: TranscribeOptions) -> list[Result]:
    """Transcribe a sound window by window. What is shorter than this goes first, from the third turn on."""
    (raw,) = inputs.raws
    is_over = False
    begun: Transcription | None = None

    def is_cancelled() -> bool:
        return is_over

    def begin(pipeline: Pipeline[Any, Any]) -> tuple[Transcription, bool]:
        nonlocal begun
        begun = cast(Transcriber, pipeline).begin(raw, options, is_cancelled)
        if is_over:
            begun.close()
        return begun, begun.advance()

    with workers.place(), workers.lease() as pipeline:
        try:
            transcription, is_more = await workers.step(lambda *_: begin(pipeline))
            turns = 1
            while is_more:  # the second turn of a short sound finds that nothing is left
                is_more = await workers.step(lambda *_: transcription.advance(), is_rest=turns > 1)
                turns += 1
            return [transcription.transcript()]
        finally:
            is_over = True  # a thread that is still at a window stops at its next token
            if begun is not None:
                workers.aside(begun.close)
