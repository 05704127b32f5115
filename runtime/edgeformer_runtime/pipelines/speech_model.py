"""A speech bundle opened, with the decoder of the length of audio in use; long audio in windows that it can take."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.specs import FRAMES_PER_POSITION, AudioBucket, AudioPreprocessing, Transcription
from edgeformer_runtime.decoding.tokenizer import SpeechTokenizer
from edgeformer_runtime.engines import Engine
from edgeformer_runtime.engines.decoder import SpeechDecoder
from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.preprocess.log_mel import LogMel, read_mel_filters
from edgeformer_runtime.preprocess.silence import (
    PauseOptions,
    VoiceDetector,
    is_silent,
    quietest_cut,
    speech_ranges,
)

Samples = NDArray[np.float32]

SLACK_SECONDS = 0.5
"""Computed silence that a bucket has behind the audio. Where precomputed silence begins right behind the last word,
decoders lose words or lose themselves; the whole window, which has none of it, needs no slack."""


class SpeechModel:
    """What all transcriptions with a bundle share. `lock` is to be held while a decoder is in use."""

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        """Open the model of a bundle.

        Raises:
            BundleError: its tokenizer or its filters are corrupted.
        """
        self.audio = cast(AudioPreprocessing, bundle.manifest.preprocessing)
        self.spec = cast(Transcription, bundle.manifest.postprocessing)
        self.tokenizer = SpeechTokenizer(_text(bundle, self.spec.tokenizer), self.spec.tokens.end)
        self.lock = threading.RLock()
        self._engine = engine
        self._log_mel = LogMel(self.audio, read_mel_filters(bundle.read_bytes(self.audio.mel_filters), self.audio))
        self._bucket: AudioBucket | None = None
        self._decoder: SpeechDecoder | None = None

    @property
    def window_samples(self) -> int:
        """Samples that the model transcribes at once, at most."""
        return self.audio.window_seconds * self.audio.sample_rate

    @property
    def seconds_per_position(self) -> float:
        """Of audio, for each position of the encoder."""
        return self.audio.samples_per_position / self.audio.sample_rate

    def bucket_for(self, samples: int) -> AudioBucket:
        """The smallest bucket that holds so many samples and `SLACK_SECONDS` of silence, or else the whole window.

        Raises:
            InputError: they are more than a window's.
        """
        if samples > self.window_samples:
            raise InputError(f"expected at most {self.window_samples} samples of audio at once, found {samples}")
        needed = samples + round(SLACK_SECONDS * self.audio.sample_rate)
        buckets = self.spec.buckets
        return next(
            (each for each in buckets if each.positions * self.audio.samples_per_position >= needed), buckets[-1]
        )

    def mel(self, samples: Samples, bucket: AudioBucket) -> Samples:
        """The input of a bucket's `encode`, (1, n_mels, 2 T) float32, for samples (N,)."""
        return self._log_mel(samples, FRAMES_PER_POSITION * bucket.positions)

    def decoder(self, bucket: AudioBucket) -> SpeechDecoder:
        """The open decoder of a bucket, which takes the place of another bucket's.

        Only one is open: its caches have some MB, opening takes 1 to 3 ms, and a transcript a hundred times that.
        """
        if self._decoder is None or self._bucket != bucket:
            self._close_decoder()
            self._decoder, self._bucket = self._engine.open_decoder(bucket, self.spec), bucket
        return self._decoder

    def close(self) -> None:
        """Release the decoder. A second call does nothing."""
        with self.lock:
            self._close_decoder()

    def _close_decoder(self) -> None:
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None


def _text(bundle: Bundle, name: str) -> str:
    try:
        return bundle.read_bytes(name).decode("utf-8")
    except UnicodeDecodeError:
        raise BundleError(f"{name}: expected UTF-8 text") from None


SKIPPED_PAUSE = PauseOptions(min_pause_seconds=3.0, margin_seconds=0.5)
"""A pause that no window has inside: transcribing it costs time, and it is where models make up text."""
SHORTEST_RETRY_SECONDS = 1.0
"""Audio that a window left over is transcribed again if there is so much of it, and so much before it."""


class AudioBuffer:
    """Audio that has been read and not yet transcribed.

    Attributes:
        start: the sample of the whole recording at which the buffer starts.
        samples: (N,) float32.
    """

    def __init__(self, voice: VoiceDetector | None = None) -> None:
        """Empty. `voice` tells where somebody speaks; None: the audio's energy does."""
        self._voice = voice
        self.start = 0
        self.samples: Samples = np.zeros(0, np.float32)

    @property
    def end(self) -> int:
        """The sample of the whole recording at which the buffer ends."""
        return self.start + len(self.samples)

    def append(self, samples: Samples) -> None:
        """Add what follows."""
        self.samples = np.concatenate((self.samples, samples))

    def speech_ranges(self, sample_rate: int, options: PauseOptions) -> list[tuple[int, int]]:
        """See `silence.speech_ranges`."""
        if self._voice is None:
            return speech_ranges(self.samples, sample_rate, options)
        return self._voice.ranges(self.samples, self.start, options)

    def drop(self, count: int) -> None:
        """Forget the first samples."""
        self.samples = self.samples[count:]
        self.start += count


@dataclass(frozen=True)
class Window:
    """The first samples of a buffer, [0, end): to be transcribed, or to be skipped."""

    end: int
    has_speech: bool


def next_window(buffer: AudioBuffer, longest: int, sample_rate: int) -> Window:
    """What to do with a buffer next; it is to be filled again before the next call.

    Audio behind the window is only needed to tell whether there is more: a buffer of more than `longest` samples is
    cut in the best pause of its second half.

    Args:
        buffer: not empty: all that is left, or more than `longest` samples of it.
        longest: samples that a window has at most.
        sample_rate: in Hz.
    """
    samples = buffer.samples
    ranges = buffer.speech_ranges(sample_rate, SKIPPED_PAUSE)
    if not ranges:
        return Window(len(samples), has_speech=False)
    pause = round(SKIPPED_PAUSE.min_pause_seconds * sample_rate)
    begin, end = ranges[0]
    if begin >= pause:
        return Window(begin, has_speech=False)
    if len(ranges) == 1 and len(samples) - end < pause:
        end = len(samples)
    if end > longest:
        end = quietest_cut(samples[:longest], longest // 2, longest, sample_rate)
    return Window(end, has_speech=True)


def is_worth_a_retry(samples: Samples, done: int, sample_rate: int) -> bool:
    """Whether what a window left over from sample `done` on is to be transcribed again."""
    shortest = SHORTEST_RETRY_SECONDS * sample_rate
    rest = samples[done:]
    return done >= shortest and len(rest) >= shortest and not is_silent(rest, sample_rate)
