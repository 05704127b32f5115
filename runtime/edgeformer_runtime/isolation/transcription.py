"""One sound transcribed in a helper process, window by window, so that others may ask it in between."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Any

from edgeformer_runtime.bundle import strict_json
from edgeformer_runtime.cancellation import IsCancelled, check
from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.errors import BundleError, EngineError
from edgeformer_runtime.isolation.frames import Frame
from edgeformer_runtime.isolation.messages import file_frame, read_raw
from edgeformer_runtime.pipelines.transcript import Transcript
from edgeformer_runtime.preprocess.audio import RawAudio

MOST_SOUNDS = 1024
"""That a process keeps; the one that was heard the longest ago makes room."""

Ask = Callable[[Frame], Frame]


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
