"""Text while audio arrives: first a guess, then, at a pause, what stays."""

from __future__ import annotations

from dataclasses import dataclass

from edgeformer_runtime.errors import InputError
from edgeformer_runtime.pipelines.speech_model import SpeechModel
from edgeformer_runtime.pipelines.speech_session import SpeechSession
from edgeformer_runtime.pipelines.transcript import Segment, Transcript
from edgeformer_runtime.preprocess.audio import RawAudio, open_audio
from edgeformer_runtime.preprocess.silence import PauseOptions

LOOK_SECONDS = 0.1
"""New audio after which pauses are looked for: blocks may be much shorter."""
ONSET_SECONDS = 0.5
"""Of silence that are kept: a soft first letter may be in them."""


@dataclass(frozen=True)
class StreamOptions:
    """When a stream gives text.

    Attributes:
        partial_seconds: new audio after which the guess is made anew.
        pause_seconds: a pause that ends a sentence of `settled_seconds`: its text becomes final.
        long_pause_seconds: a pause that ends any sentence.
        settled_seconds: audio that is long enough to be understood without what follows.
    """

    partial_seconds: float = 1.0
    pause_seconds: float = 0.7
    long_pause_seconds: float = 1.5
    settled_seconds: float = 8.0

    def __post_init__(self) -> None:
        if (
            not 0 < self.pause_seconds <= self.long_pause_seconds
            or min(self.partial_seconds, self.settled_seconds) <= 0
        ):
            raise InputError(
                f"stream: expected seconds above 0, and pause_seconds at most long_pause_seconds, found {self}"
            )


@dataclass(frozen=True)
class StreamUpdate:
    """What a stream says.

    Attributes:
        final: segments that are new and will not change.
        partial: a guess at what follows them; it replaces the last one.
        seconds: of audio that has arrived.
    """

    final: tuple[Segment, ...]
    partial: str
    seconds: float


class TranscriptStream:
    """Takes audio as it arrives. Not for several threads at once."""

    def __init__(self, model: SpeechModel, session: SpeechSession, options: StreamOptions) -> None:
        """Use `Transcriber.open_stream`."""
        self._model = model
        self._session = session
        self._options = options
        self._rate = model.audio.sample_rate
        self._buffer = session.new_buffer()
        self._looked_at = self._guessed_at = 0
        self._partial = ""
        self._segments: list[Segment] = []
        self._finished = False

    def feed(self, block: RawAudio) -> list[StreamUpdate]:
        """Take the next audio.

        Args:
            block: of any length; an array (N,) of floats or integers at the model's rate, or what else `open_audio`
                takes.

        Returns:
            What is new, often nothing.

        Raises:
            InputError: the block is no audio, or the stream has ended.
            EngineError: the model failed, or gave NaN or infinity.
        """
        if self._finished:
            raise InputError("the stream has ended: open another one")
        with open_audio(block, self._rate) as reader:
            while len(samples := reader.read(self._rate)):
                self._buffer.append(samples)
        updates: list[StreamUpdate] = []
        while len(self._buffer.samples) > self._model.window_samples:
            updates += self._final(self._session.transcribe_next(self._buffer))
        if self._buffer.end - self._looked_at < LOOK_SECONDS * self._rate:
            return updates
        self._looked_at = self._buffer.end
        ranges = self._ranges()
        pause = self._sentence_end(ranges)
        if pause is not None:
            updates += self._final(self._session.transcribe_first(self._buffer, pause))
        elif self._buffer.end - self._guessed_at >= self._options.partial_seconds * self._rate:
            updates += self._guess(bool(ranges))
        return updates

    def finish(self) -> list[StreamUpdate]:
        """End the audio: what is left becomes final. A second call gives nothing."""
        self._finished = True
        updates: list[StreamUpdate] = []
        while len(self._buffer.samples):
            updates += self._final(self._session.transcribe_next(self._buffer))
        return updates

    def transcript(self) -> Transcript:
        """All that is final so far."""
        return self._session.transcript(self._segments, self._buffer.end)

    def _final(self, segments: tuple[Segment, ...]) -> list[StreamUpdate]:
        """Nothing where nothing was said, unless there is a guess to take back."""
        self._segments += segments
        self._guessed_at = self._buffer.end
        taken_back, self._partial = self._partial, ""
        return [StreamUpdate(segments, "", self._buffer.end / self._rate)] if segments or taken_back else []

    def _guess(self, somebody_speaks: bool) -> list[StreamUpdate]:
        """Nothing where the guess is still the same."""
        self._guessed_at = self._buffer.end
        partial = self._session.guess(self._buffer.samples) if somebody_speaks else ""
        if partial == self._partial:
            return []
        self._partial = partial
        return [StreamUpdate((), partial, self._buffer.end / self._rate)]

    def _ranges(self) -> list[tuple[int, int]]:
        """Where somebody speaks in the buffer; silence alone is dropped but for its end."""
        options = self._options
        ranges = self._buffer.speech_ranges(self._rate, PauseOptions(options.pause_seconds, margin_seconds=0.0))
        if not ranges:
            kept = round(max(options.pause_seconds, ONSET_SECONDS) * self._rate)
            self._buffer.drop(max(0, len(self._buffer.samples) - kept))
        return ranges

    def _sentence_end(self, ranges: list[tuple[int, int]]) -> int | None:
        """Where to cut, if the buffer ends in a pause that is long enough: in its middle."""
        if not ranges:
            return None
        options, count, end = self._options, len(self._buffer.samples), ranges[-1][1]
        settled = end >= options.settled_seconds * self._rate
        needed = options.pause_seconds if settled else options.long_pause_seconds
        return (end + count) // 2 if count - end >= needed * self._rate else None
