"""One sound on its way to a transcript, a window at a time, so that others may have the model in between."""

from __future__ import annotations

import threading
from types import TracebackType

from edgeformer_runtime.cancellation import IsCancelled, check
from edgeformer_runtime.pipelines.speech_model import SpeechModel
from edgeformer_runtime.pipelines.speech_session import SpeechSession
from edgeformer_runtime.pipelines.speech_windows import SoundBuffer
from edgeformer_runtime.pipelines.transcript import Segment, Transcript
from edgeformer_runtime.preprocess.audio import AudioReader, RawAudio, open_audio


class Transcription:
    """A sound that is being transcribed, whose windows are for one thread at a time; `close` is for any."""

    def __init__(self, model: SpeechModel, session: SpeechSession, raw: RawAudio, is_cancelled: IsCancelled) -> None:
        """Use `Transcriber.begin`."""
        self._model = model
        self._session = session
        self._is_cancelled = is_cancelled
        self._rate = model.audio.sample_rate
        self._reader: AudioReader = open_audio(raw, self._rate)
        self._buffer = SoundBuffer()
        self._segments: list[Segment] = []
        self._lock = threading.Lock()

    @property
    def done_seconds(self) -> float:
        """Of sound that has been heard."""
        return self._buffer.start / self._rate

    @property
    def seconds(self) -> float | None:
        """Of all sound, None where that is unknown."""
        return self._reader.seconds

    def advance(self) -> bool:
        """Hear the next window, or skip silence; False: there was nothing left.

        Raises:
            Cancelled: nobody wants the transcript any more.
            InputError: the sound is corrupted from here on.
            EngineError: the model failed, or gave NaN or infinity.
        """
        with self._lock:
            return self._advance()

    def _advance(self) -> bool:
        check(self._is_cancelled)
        missing = self._model.window_samples + 1 - len(self._buffer.samples)
        if missing > 0:
            self._buffer.append(self._reader.read(missing))
        if not len(self._buffer.samples):
            return False
        self._segments += self._session.hear_next(self._buffer)
        return True

    def transcript(self) -> Transcript:
        """What has been heard so far."""
        return self._session.transcript(self._segments, self._buffer.end)

    def close(self) -> None:
        """Release the sound's file, once no window is being heard. A second call does nothing."""
        with self._lock:
            self._reader.close()

    def __enter__(self) -> Transcription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
