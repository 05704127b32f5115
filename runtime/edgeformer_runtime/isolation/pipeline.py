"""Pipelines, engines and transcripts whose bundle lies in a helper process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from types import TracebackType
from typing import Any

from edgeformer_runtime.bundle import strict_json
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.engines import Tensor
from edgeformer_runtime.engines.checked import check_inputs
from edgeformer_runtime.engines.decoder import CacheBucket, CacheSizes, SpeechDecoder
from edgeformer_runtime.errors import BundleError, EngineError, InputError
from edgeformer_runtime.interface import AudioProgress, CountProgress
from edgeformer_runtime.isolation.messages import file_frame, pack, read_answer, read_answers, read_raw, unpack
from edgeformer_runtime.isolation.process import Frame, HelperProcess, Limits
from edgeformer_runtime.pipelines import IsCancelled, Pipeline, check, never
from edgeformer_runtime.pipelines.speech_stream import StreamOptions, StreamUpdate
from edgeformer_runtime.pipelines.transcript import Transcript
from edgeformer_runtime.preprocess.audio import RawAudio
from edgeformer_runtime.registry import load_attribute
from edgeformer_runtime.tasks.task import TASKS
from edgeformer_runtime.verify.verify import Stage, Verification

SENT_AT_A_TIME = 64
"""Texts in one question."""
MAX_STREAMS = 64
"""That a process keeps; the one that was fed the longest ago makes room."""

Ask = Callable[[Frame], Frame]


class IsolatedStream:
    """A `TranscriptStream` whose audio goes to the helper process. It ends with that process."""

    def __init__(self, ask: Ask, options: TranscribeOptions | None, stream_options: StreamOptions | None) -> None:
        """ask: sends a question and gives the answer."""
        self._ask = ask
        self._transcript: Transcript | None = None
        header = {
            "question": "open stream",
            "options": strict_json.to_data(options),
            "stream_options": strict_json.to_data(stream_options or StreamOptions()),
        }
        self._number = _field(ask(Frame(header)), "stream", int)

    def feed(self, block: RawAudio) -> list[StreamUpdate]:
        """Transcribe what follows; see `TranscriptStream.feed`."""
        frame = file_frame(block, "audio")
        question = {**frame.header, "question": "feed stream", "stream": self._number}
        return _updates(self._ask(Frame(question, frame.body)))

    def finish(self) -> list[StreamUpdate]:
        """End the audio: what is left becomes final. A second call gives nothing."""
        if self._transcript is not None:
            return []
        answer = self._ask(Frame({"question": "finish stream", "stream": self._number}))
        self._transcript = _record(Transcript, _field(answer, "transcript", dict))
        return _updates(answer)

    def transcript(self) -> Transcript:
        """All that was said, once the stream is finished.

        Raises:
            EngineError: it is not.
        """
        if self._transcript is None:
            raise EngineError("an isolated stream tells its transcript at its end: call finish first")
        return self._transcript


class Streams:
    """The streams of a helper process, by number."""

    def __init__(self, open_stream: Callable[[TranscribeOptions | None, StreamOptions], Any]) -> None:
        self._open_stream = open_stream
        self._streams: OrderedDict[int, Any] = OrderedDict()
        self._next = 0

    def open(self, question: Frame) -> Frame:
        """A new stream's number."""
        stated = question.header["options"]
        options = None if stated is None else strict_json.from_data(TranscribeOptions, stated, "options")
        stream_options = strict_json.from_data(StreamOptions, question.header["stream_options"], "options")
        if len(self._streams) >= MAX_STREAMS:
            self._streams.popitem(last=False)
        self._next += 1
        self._streams[self._next] = self._open_stream(options, stream_options)
        return Frame({"stream": self._next})

    def feed(self, question: Frame) -> Frame:
        """What a stream makes of a block."""
        updates = self._stream(question).feed(read_raw(question))
        return Frame({"updates": strict_json.to_data(updates)})

    def finish(self, question: Frame) -> Frame:
        """What a stream says last, and its transcript; the stream is forgotten."""
        stream = self._stream(question)
        updates = stream.finish()
        del self._streams[question.header["stream"]]
        return Frame({"updates": strict_json.to_data(updates), "transcript": strict_json.to_data(stream.transcript())})

    def _stream(self, question: Frame) -> Any:
        number = question.header["stream"]
        if number not in self._streams:
            raise EngineError("the stream has ended with its process: open it again")
        self._streams.move_to_end(number)
        return self._streams[number]


def _updates(answer: Frame) -> list[StreamUpdate]:
    return [_record(StreamUpdate, update) for update in _field(answer, "updates", list)]


def _record(kind: Any, data: Any) -> Any:
    try:
        return strict_json.from_data(kind, data, "answer")
    except (BundleError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(f"the isolated bundle's process sent no valid answer: {error}") from None


def _field(answer: Frame, name: str, kind: type) -> Any:
    value = answer.header.get(name)
    if not isinstance(value, kind):
        raise EngineError(f"the isolated bundle's process sent no valid answer: it has no {name}")
    return value


# One recording transcribed in a helper process, window by window, so that others may ask it in between.


MOST_SOUNDS = 1024
"""That a process keeps; the one that was transcribed the longest ago makes room."""


class IsolatedTranscription:
    """A `Transcription` whose audio lies in the helper process. It ends with that process."""

    def __init__(self, ask: Ask, raw: RawAudio, options: TranscribeOptions | None, is_cancelled: IsCancelled) -> None:
        """Use `IsolatedPipeline.begin`."""
        self._ask = ask
        self._is_cancelled = is_cancelled
        self._transcript: Transcript | None = None
        frame = file_frame(raw, "audio")
        stated = None if options is None else strict_json.to_data(options)
        question = {**frame.header, "question": "begin audio", "options": stated}
        self._number = ask(Frame(question, frame.body)).header.get("audio")

    def advance(self) -> bool:
        """Transcribe the next window; False: there was nothing left. Errors as of `Transcription.advance`."""
        check(self._is_cancelled)
        answer = self._ask(Frame({"question": "advance audio", "audio": self._number})).header
        if "transcript" not in answer:
            return True
        try:
            self._transcript = strict_json.from_data(Transcript, answer["transcript"], "answer")
        except (BundleError, KeyError, TypeError, AttributeError) as error:
            raise EngineError(f"the isolated bundle's process sent no valid answer: {error}") from None
        return False

    def transcript(self) -> Transcript:
        """All that was said, once nothing is left.

        Raises:
            EngineError: something is.
        """
        if self._transcript is None:
            raise EngineError("an isolated audio tells its transcript at its end: call advance until it says False")
        return self._transcript

    def close(self) -> None:
        """Forget the audio in the process. A second call does nothing."""
        if self._transcript is None:
            self._ask(Frame({"question": "drop audio", "audio": self._number}))

    def __enter__(self) -> IsolatedTranscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Transcriptions:
    """The recordings of a helper process, by number."""

    def __init__(self, begin: Callable[[Any, TranscribeOptions | None], Any]) -> None:
        self._begin = begin
        self._recordings: OrderedDict[int, Any] = OrderedDict()
        self._next = 0

    def begin(self, question: Frame) -> Frame:
        """A new audio's number."""
        stated = question.header["options"]
        options = None if stated is None else strict_json.from_data(TranscribeOptions, stated, "options")
        if len(self._recordings) >= MOST_SOUNDS:
            self._recordings.popitem(last=False)[1].close()
        self._next += 1
        self._recordings[self._next] = self._begin(read_raw(question), options)
        return Frame({"audio": self._next})

    def advance(self, question: Frame) -> Frame:
        """Transcribe a window; the transcript where nothing was left, and the audio is forgotten."""
        number = question.header["audio"]
        if number not in self._recordings:
            raise EngineError("the audio has ended with its process: send it again")
        self._recordings.move_to_end(number)
        try:
            if self._recordings[number].advance():
                return Frame({})
            return Frame({"transcript": strict_json.to_data(self._drop(number).transcript())})
        except BaseException:
            self._drop(number)
            raise

    def drop(self, question: Frame) -> Frame:
        """Forget a recording."""
        self._drop(question.header["audio"])
        return Frame({})

    def _drop(self, number: int) -> Any:
        audio = self._recordings.pop(number, None)
        if audio is not None:
            audio.close()
        return audio


class IsolatedEngine:
    """An `Engine` whose programs run in a helper process."""

    def __init__(self, bundle: Bundle, threads: int, limits: Limits, answers: bool = False) -> None:
        """Open a bundle there.

        Args:
            bundle: an open bundle, which has to stay open.
            threads: how many threads the engine may use.
            limits: of the process.
            answers: whether it is to open the tokenizer, too, and answer raw inputs.

        Raises:
            BundleError: a model file is one that "Model files" of BUNDLE.md refuses.
            EngineError: the engine is not installed, or the process died.
        """
        self._programs = {program.name: program for program in bundle.manifest.programs}
        self.limits = limits
        opening = {
            "folder": str(bundle.folder.resolve()),
            "threads": threads,
            "answers": answers,
            "seconds": limits.call_s,
            "open_seconds": limits.open_s,
            "memory_bytes": limits.memory_for(bundle.size_bytes),
        }
        self.helper = HelperProcess(Frame(opening), limits.open_s)
        said = self.helper.opened.header
        self.name = bundle.manifest.target
        self.executed_by = shorten(str(said.get("executed_by")), 100)[1:-1]
        not_covered = said.get("not_covered")
        self.not_covered = None if not_covered is None else shorten(str(not_covered), 500)[1:-1]
        confined = said.get("confined")
        self.confined: tuple[str, ...] = tuple(map(str, confined)) if isinstance(confined, list) else ()

    def run(self, program: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run one program; see `Engine.run`."""
        spec = check_inputs(self._programs, program, inputs)
        question = Frame({"question": "program", "program": program}, pack(inputs, spec.inputs))
        answer = self.helper.ask(question, self.limits.call_s)
        try:
            return unpack(answer.body, spec.outputs)
        except ValueError as error:
            raise EngineError(f"the isolated bundle's process sent no valid answer: {error}") from None

    def open_decoder(self, bucket: CacheBucket, spec: CacheSizes) -> SpeechDecoder:  # noqa: ARG002
        """None: decoders live in the helper process, with the pipeline."""
        raise EngineError("an isolated bundle gives no decoder: expected its pipeline to be called")

    def close(self) -> None:
        """End the process. A second call does nothing."""
        self.helper.close()


class IsolatedPipeline(Pipeline[Any, Any]):
    """Answers as the pipeline of the bundle's task does. Calls from several threads take turns."""

    engine: IsolatedEngine

    def __init__(self, bundle: Bundle, threads: int = 1, limits: Limits | None = None) -> None:
        """Open a bundle in a helper process; `close` closes both. Errors as of `IsolatedEngine`."""
        super().__init__(bundle, IsolatedEngine(bundle, threads, limits or Limits(), answers=True), owned=True)
        self._task = TASKS[bundle.manifest.task]

    def run(
        self,
        raw: Any,
        options: Any = None,
        progress: AudioProgress | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Any:
        """Answer one raw input.

        Args:
            raw: see the task's own pipeline.
            options: as the task's pipeline takes them, where it does.
            progress: called by a pipeline that takes options, as it goes.
            on_text: called by a pipeline that writes, with each part of the text.

        Raises:
            InputError: the input cannot be used.
            EngineError: the model failed, or its process died or took too long; the next call finds a new one.
        """
        frame = self._frame(raw)
        question = Frame({**frame.header, "question": "run", **_stated(options)}, frame.body)
        answer = self.engine.helper.ask(question, self.engine.limits.call_s, progress, on_text)
        return read_answer(answer, self.bundle.manifest, options)

    def answer_each(self, raws: Iterable[Any], options: Any = None) -> Iterator[Any]:
        """See `Pipeline.answer_each`: what the process answers several of at a time goes there together."""
        if self.bundle.manifest.packed is None:
            yield from super().answer_each(raws, options)
            return
        waiting = iter(raws)
        while some := list(islice(waiting, SENT_AT_A_TIME)):
            yield from self._answer_some(some, options)

    def _answer_some(self, raws: Sequence[Any], options: Any) -> Iterator[Any]:
        frames = [self._frame_or_error(raw) for raw in raws]
        asked = [frame.header for frame in frames if isinstance(frame, Frame)]
        try:
            answer = self._ask(Frame({"question": "run each", "inputs": asked, **_stated(options)}))
            found = iter(read_answers(answer, len(asked), self.bundle.manifest, options))
        except (InputError, EngineError):
            if self.engine.helper.was_interrupted:
                raise
            for raw in raws:  # one of them may have ended the process: the others have their answers
                yield self._answer_or_error(raw, options)
            return
        for frame in frames:
            yield next(found) if isinstance(frame, Frame) else frame

    def _frame(self, raw: Any) -> Frame:
        frame: Frame = load_attribute(self._task.takes.frame)(raw, self._task.takes.kind)
        return frame

    def _frame_or_error(self, raw: Any) -> Frame | InputError:
        try:
            return self._frame(raw)
        except InputError as error:
            return error

    def interrupt(self) -> None:
        """End what is being answered, from any thread: whoever waits for it gets an EngineError."""
        self.engine.helper.interrupt()

    def begin(
        self, raw: RawAudio, options: TranscribeOptions | None = None, is_cancelled: IsCancelled = never
    ) -> IsolatedTranscription:
        """Of a task with streams: one recording to transcribe window by window; see `Transcriber.begin`."""
        self._check_streams("audio")
        return IsolatedTranscription(self._ask, raw, options, is_cancelled)

    def open_stream(
        self,
        options: TranscribeOptions | None = None,
        stream_options: StreamOptions | None = None,
        is_cancelled: IsCancelled = never,
    ) -> IsolatedStream:
        """Of a task with streams: a transcript of what is still arriving; see `Transcriber.open_stream`."""
        self._check_streams("stream of audio")

        def ask(question: Frame) -> Frame:
            check(is_cancelled)
            return self._ask(question)

        return IsolatedStream(ask, options, stream_options)

    def stream(
        self,
        blocks: Iterable[RawAudio],
        options: TranscribeOptions | None = None,
        stream_options: StreamOptions | None = None,
    ) -> Iterator[StreamUpdate]:
        """Of a task with streams: transcribe block by block; see `Transcriber.stream`."""
        stream = self.open_stream(options, stream_options)
        for block in blocks:
            yield from stream.feed(block)
        yield from stream.finish()

    def _check_streams(self, what: str) -> None:
        if not self._task.gives.streams:
            raise InputError(f"{self._task.name} takes no {what}")

    def _ask(self, question: Frame) -> Frame:
        return self.engine.helper.ask(question, self.engine.limits.call_s)


def _stated(options: Any) -> dict[str, Any]:
    """Options as a question has them."""
    return {} if options is None else {"options": strict_json.to_data(options)}


def verify_isolated(
    bundle: Bundle, threads: int = 1, limits: Limits | None = None, progress: CountProgress | None = None
) -> Verification:
    """`verify` in a helper process, vectors and preprocessing included.

    Raises:
        BundleError: the bundle has no vectors, or they or its model files do not follow BUNDLE.md.
        EngineError: the engine is not installed, or the process died or took too long.
    """
    limits = limits or Limits()
    engine = IsolatedEngine(bundle, threads, limits)

    def report(done: float, total: float | None) -> None:
        if progress is not None and total is not None:
            progress(int(done), int(total))

    try:
        question = Frame({"question": "verify", "seconds": limits.open_s})
        found = engine.helper.ask(question, limits.open_s, report).header
        try:
            data = found["verification"]
            stages = tuple(
                strict_json.from_data(Stage, {"reason": None} | stage, "verification") for stage in data["stages"]
            )
        except (BundleError, KeyError, TypeError) as error:
            raise EngineError(f"the isolated bundle's process sent no valid verification: {error}") from None
    finally:
        engine.close()
    first = next((stage.name for stage in stages if not stage.ok), None)
    return Verification(first is None, engine.executed_by, stages, first, engine.not_covered)
