"""Several targets side by side, each converted by a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, NoReturn

from edgeformer.convert.options import ConvertOptions
from edgeformer.convert.result import ConversionResult
from edgeformer_runtime.errors import EdgeFormerError, EngineError
from edgeformer_runtime.interface import Progress

_TERMINATED = 128 + signal.SIGTERM


@dataclass
class _Child:
    """A process that converts to one target.

    Attributes:
        process: it.
        messages: a tuple for each step, and at the end the result or the error.
        finished, total: its steps.
        outcome: its result; None: it works.
    """

    target: str
    process: SpawnProcess
    messages: Connection
    finished: int = 0
    total: int = 0
    outcome: ConversionResult | None = None


def convert_in_processes(options: ConvertOptions, progress: Progress) -> ConversionResult:
    """Convert to each target in a process of its own, at most `options.jobs` at a time.

    What any of them refuses ends all of them. A process reads the checkpoint again, and has the threads of one
    conversion: this is for machines with cores and memory to spare.

    Raises:
        EdgeFormerError: as `convert`.
    """
    waiting = list(options.targets)
    running: list[_Child] = []
    done: list[_Child] = []
    try:
        while waiting or running:
            while waiting and len(running) < options.jobs:
                running.append(_start(replace(options, targets=(waiting.pop(0),), jobs=1)))
            for child in _ready(running):
                _receive(child, progress, [*running, *done])
                if child.outcome is not None:
                    running.remove(child)
                    done.append(child)
                    child.process.join()
    finally:
        for child in running:
            child.process.terminate()
        for child in running:
            child.process.join()
    outcomes = {child.target: child.outcome for child in done if child.outcome is not None}
    ordered = [outcomes[target] for target in options.targets]
    notes = dict.fromkeys(note for result in ordered for note in result.notes)
    lengths = tuple(each for result in ordered for each in result.lengths)
    return ConversionResult(tuple(bundle for result in ordered for bundle in result), tuple(notes), lengths)


def _start(options: ConvertOptions) -> _Child:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    (target,) = options.targets
    process = context.Process(target=_work, args=(options, sender), name=f"convert-{target}", daemon=True)
    process.start()
    sender.close()  # the child's end alone is left: when it dies, the receiver hears
    return _Child(target, process, receiver)


def _ready(running: Sequence[_Child]) -> list[_Child]:
    heard = wait([child.messages for child in running])
    return [child for child in running if child.messages in heard]


def _receive(child: _Child, progress: Progress, started: Sequence[_Child]) -> None:
    """Take one message. A step of one child is told as one of all that have begun."""
    try:
        message: Any = child.messages.recv()
    except EOFError:
        child.process.join()
        raise EngineError(
            f"{child.target}: the process that converted ended with exit code {child.process.exitcode}: try again with"
            " fewer --jobs, which need less memory"
        ) from None
    if isinstance(message, BaseException):
        raise message
    if isinstance(message, ConversionResult):
        child.outcome, child.finished = message, child.total
        return
    step, finished, total = message
    if not total:
        progress(step, 0, 0)
        return
    child.finished, child.total = finished, total
    begun, steps = sum(each.finished for each in started), sum(each.total for each in started)
    if finished < total:
        progress(step, begun, steps)


def _work(options: ConvertOptions, messages: Connection) -> None:
    """In the child: convert, tell each step, and give back the result."""
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_outlive_nobody, daemon=True).start()
    from edgeformer.convert.convert import convert

    try:
        result = convert(options, lambda *step: messages.send(step))
    except EdgeFormerError as error:
        messages.send(error)
    else:
        messages.send(result)


def _outlive_nobody() -> None:
    """Wait for the death of the process that asked, which may be a SIGKILL, and end as it would have ended this one."""
    asking = multiprocessing.parent_process()
    assert asking is not None
    asking.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _end(_signal: int, _frame: object) -> NoReturn:
    """End as an error would, which clears the work folder."""
    sys.exit(_TERMINATED)
