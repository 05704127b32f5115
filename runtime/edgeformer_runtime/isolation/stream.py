"""Sound that is still arriving, heard in a helper process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Any

from edgeformer_runtime.bundle import strict_json
from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.errors import BundleError, EngineError
from edgeformer_runtime.isolation.messages import file_frame, read_raw
from edgeformer_runtime.isolation.process import Frame
from edgeformer_runtime.pipelines.base import IsCancelled, check
from edgeformer_runtime.pipelines.speech_stream import StreamOptions, StreamUpdate
from edgeformer_runtime.pipelines.transcript import Transcript
from edgeformer_runtime.preprocess.audio import RawAudio

MAX_STREAMS = 64
"""That a process keeps; the one that was fed the longest ago makes room."""

Ask = Callable[[Frame], Frame]


class IsolatedStream:
    """A `TranscriptStream` whose sound goes to the helper process. It ends with that process."""

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
        """Hear what follows; see `TranscriptStream.feed`."""
        frame = file_frame(block, "audio")
        question = {**frame.header, "question": "feed stream", "stream": self._number}
        return _updates(self._ask(Frame(question, frame.body)))

    def finish(self) -> list[StreamUpdate]:
        """End the sound: what is left becomes final. A second call gives nothing."""
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
        raise EngineError(f"the isolated bundle gave what is no answer: {error}") from None


def _field(answer: Frame, name: str, kind: type) -> Any:
    value = answer.header.get(name)
    if not isinstance(value, kind):
        raise EngineError(f"the isolated bundle gave what is no answer: it has no {name}")
    return value


# One sound transcribed in a helper process, window by window, so that others may ask it in between.


MOST_SOUNDS = 1024
"""That a process keeps; the one that was heard the longest ago makes room."""


class IsolatedTranscription:
    """A `Transcription` whose sound lies in the helper process. It ends with that process."""

    def __init__(self, ask: Ask, raw: RawAudio, options: TranscribeOptions | None, is_cancelled: IsCancelled) -> None:
        """Use `IsolatedPipeline.begin`."""
        self._ask = ask
        self._is_cancelled = is_cancelled
        self._transcript: Transcript | None = None
        frame = file_frame(raw, "audio")
        stated = None if options is None else strict_json.to_data(options)
        question = {**frame.header, "question": "begin sound", "options": stated}
        self._number = ask(Frame(question, frame.body)).header.get("sound")

    def advance(self) -> bool:
        """Hear the next window; False: there was nothing left. Errors as of `Transcription.advance`."""
        check(self._is_cancelled)
        answer = self._ask(Frame({"question": "hear sound", "sound": self._number})).header
        if "transcript" not in answer:
            return True
        try:
            self._transcript = strict_json.from_data(Transcript, answer["transcript"], "answer")
        except (BundleError, KeyError, TypeError, AttributeError) as error:
            raise EngineError(f"the isolated bundle gave what is no answer: {error}") from None
        return False

    def transcript(self) -> Transcript:
        """All that was said, once nothing is left.

        Raises:
            EngineError: something is.
        """
        if self._transcript is None:
            raise EngineError("an isolated sound tells its transcript at its end: call advance until it says False")
        return self._transcript

    def close(self) -> None:
        """Forget the sound in the process. A second call does nothing."""
        if self._transcript is None:
            self._ask(Frame({"question": "drop sound", "sound": self._number}))

    def __enter__(self) -> IsolatedTranscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Transcriptions:
    """The sounds of a helper process, by number."""

    def __init__(self, begin: Callable[[Any, TranscribeOptions | None], Any]) -> None:
        self._begin = begin
        self._sounds: OrderedDict[int, Any] = OrderedDict()
        self._next = 0

    def begin(self, question: Frame) -> Frame:
        """A new sound's number."""
        stated = question.header["options"]
        options = None if stated is None else strict_json.from_data(TranscribeOptions, stated, "options")
        if len(self._sounds) >= MOST_SOUNDS:
            self._sounds.popitem(last=False)[1].close()
        self._next += 1
        self._sounds[self._next] = self._begin(read_raw(question), options)
        return Frame({"sound": self._next})

    def hear(self, question: Frame) -> Frame:
        """Hear a window; the transcript where nothing was left, and the sound is forgotten."""
        number = question.header["sound"]
        if number not in self._sounds:
            raise EngineError("the sound has ended with its process: send it again")
        self._sounds.move_to_end(number)
        try:
            if self._sounds[number].advance():
                return Frame({})
            return Frame({"transcript": strict_json.to_data(self._drop(number).transcript())})
        except BaseException:
            self._drop(number)
            raise

    def drop(self, question: Frame) -> Frame:
        """Forget a sound."""
        self._drop(question.header["sound"])
        return Frame({})

    def _drop(self, number: int) -> Any:
        sound = self._sounds.pop(number, None)
        if sound is not None:
            sound.close()
        return sound
