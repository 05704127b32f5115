"""Long audio in windows that a model can transcribe at once, cut where nobody speaks; long silence is skipped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeformer_runtime.pipelines.speech_model import Samples
from edgeformer_runtime.preprocess.silence import (
    PauseOptions,
    VoiceDetector,
    is_silent,
    quietest_cut,
    speech_ranges,
)

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
