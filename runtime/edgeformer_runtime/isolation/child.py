"""The helper process: confines itself, opens a bundle, and answers what it is asked, one frame after the other.

At first only what is small is imported, as threads that a library starts before the confinement would escape it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

from edgeformer_runtime.errors import EdgeFormerError
from edgeformer_runtime.isolation.confinement import bound_processor_time, confine, readable_folders
from edgeformer_runtime.isolation.process import Frame, FrameError, read_frame, write_frame

if TYPE_CHECKING:
    from edgeformer_runtime.tasks.task import AnswerKind


def main() -> None:
    """Answer until the parent goes."""
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the parent, which finishes what has begun
        signal.signal(number, signal.SIG_IGN)
    questions = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # what libraries print must not get between the frames
        os.dup2(nothing, descriptor)
    try:
        _serve(questions, answers)
    except FrameError:  # the parent is gone
        os._exit(0)


def _serve(questions: IO[bytes], answers: IO[bytes]) -> None:
    opening = read_frame(questions, trusted=True).header
    seconds = float(opening["seconds"])
    in_force = confine(int(opening["memory_bytes"]), [opening["folder"], *readable_folders()])
    bound_processor_time(float(opening["open_seconds"]) * int(opening["threads"]))
    try:
        helper = _Helper(opening)
    except BaseException as error:  # the border: whatever goes wrong in here is told, and ends here
        _tell(answers, error)
        os._exit(1)
    write_frame(answers, Frame({**helper.described, "confined": in_force}))
    while True:
        question = read_frame(questions, trusted=True)
        bound_processor_time(float(question.header.get("seconds", seconds)) * int(opening["threads"]))
        try:
            answer = helper.answer(question, answers)
        except BaseException as error:
            _tell(answers, error)
            if not isinstance(error, EdgeFormerError):
                os._exit(1)  # a library that failed in a way of its own is not asked again
            continue
        write_frame(answers, answer)


def _tell(answers: IO[bytes], error: BaseException) -> None:
    known = isinstance(error, EdgeFormerError)
    kind = type(error).__name__ if known else "EngineError"
    text = " ".join(str(error).split())[:500]
    message = text if known else f"the isolated bundle failed: {type(error).__name__}: {text}"
    write_frame(answers, Frame({"error": kind, "message": message, "ends": not known}))


class _Helper:
    """An open bundle, and what can be asked of it."""

    def __init__(self, opening: dict[str, Any]) -> None:
        from pathlib import Path

        from edgeformer_runtime.bundle.bundle import Bundle
        from edgeformer_runtime.bundle.manifest import MANIFEST_NAME, parse
        from edgeformer_runtime.bundle.signature import SignatureState
        from edgeformer_runtime.engines import open_engine
        from edgeformer_runtime.pipelines import open_pipeline
        from edgeformer_runtime.process import stay_silent

        stay_silent()
        folder = Path(opening["folder"])
        # The parent has compared every file with the manifest.
        manifest = parse((folder / MANIFEST_NAME).read_bytes())
        self._bundle = Bundle(folder, manifest, SignatureState(False, None))
        self._engine = open_engine(self._bundle, int(opening["threads"]))
        self._pipeline: Any = open_pipeline(self._bundle, self._engine) if opening["answers"] else None
        self._streams: Any = None
        self._recordings: Any = None
        self.described = {
            "name": self._engine.name,
            "executed_by": self._engine.executed_by,
            "not_covered": self._engine.not_covered,
        }

    def answer(self, question: Frame, answers: IO[bytes]) -> Frame:
        """The answer to one question."""
        kind = question.header["question"]
        if kind == "run":
            return self._run(question, answers)
        if kind == "run each":
            return self._run_each(question)
        if kind.endswith(" stream"):
            return self._stream(kind, question)
        if kind.endswith(" audio"):
            return self._audio(kind, question)
        if kind == "program":
            return self._run_program(question)
        if kind == "verify":
            from edgeformer_runtime.verify.verify import verify

            found = verify(
                self._bundle,
                self._engine,
                lambda done, total: write_frame(answers, Frame({"progress": [done, total]})),
            )
            return Frame({"verification": found.to_json()})
        raise FrameError(f"there is no question {kind}")

    def _stream(self, kind: str, question: Frame) -> Frame:
        from edgeformer_runtime.isolation.pipeline import Streams

        if self._streams is None:
            self._streams = Streams(self._pipeline.open_stream)
        answers: dict[str, Callable[[Frame], Frame]] = {
            "open stream": self._streams.open,
            "feed stream": self._streams.feed,
            "finish stream": self._streams.finish,
        }
        answer: Frame = answers[kind](question)
        return answer

    def _audio(self, kind: str, question: Frame) -> Frame:
        from edgeformer_runtime.isolation.pipeline import Transcriptions

        if self._recordings is None:
            self._recordings = Transcriptions(self._pipeline.begin)
        held = self._recordings
        answers = {"begin audio": held.begin, "advance audio": held.advance, "drop audio": held.drop}
        answer: Frame = answers[kind](question)
        return answer

    def _run(self, question: Frame, answers: IO[bytes]) -> Frame:
        from edgeformer_runtime.isolation.messages import answer_frame, read_raw

        raw, written = read_raw(question), list[str]()
        if self._kind_of_options is None:
            return answer_frame(self._pipeline.run(raw))

        def tell(done: float, total: float | None) -> None:
            write_frame(answers, Frame({"progress": [done, total], "text": "".join(written)}))
            written.clear()

        more = {"on_text": written.append} if self._gives.writes else {}
        return answer_frame(self._pipeline.run(raw, self._options(question), tell, **more))

    def _run_each(self, question: Frame) -> Frame:
        from edgeformer_runtime.isolation.messages import answers_frame, read_raw

        raws = [read_raw(Frame(header)) for header in question.header["inputs"]]
        return answers_frame(self._pipeline.answer_each(raws, self._options(question)))

    @property
    def _gives(self) -> AnswerKind:
        from edgeformer_runtime.tasks.task import TASKS

        return TASKS[self._bundle.manifest.task].gives

    @property
    def _kind_of_options(self) -> str | None:
        return self._gives.options

    def _options(self, question: Frame) -> Any:
        from edgeformer_runtime.bundle import strict_json
        from edgeformer_runtime.registry import load_attribute

        kind, stated = self._kind_of_options, question.header.get("options")
        return (
            None if kind is None or stated is None else strict_json.from_data(load_attribute(kind), stated, "options")
        )

    def _run_program(self, question: Frame) -> Frame:
        from edgeformer_runtime.isolation.messages import pack, unpack

        spec = {program.name: program for program in self._bundle.manifest.programs}[question.header["program"]]
        outputs = self._engine.run(spec.name, unpack(question.body, spec.inputs))
        return Frame({}, pack(outputs, spec.outputs))
