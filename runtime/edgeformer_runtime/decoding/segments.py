"""A window's tokens in segments, by the timestamps among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeformer_runtime.bundle.specs import Transcription


@dataclass(frozen=True)
class Span:
    """A segment of a window.

    Attributes:
        start, end: in seconds from the window's begin.
        entries: where its text tokens stand among the window's tokens.
    """

    start: float
    end: float
    entries: tuple[int, ...]


@dataclass(frozen=True)
class Spans:
    """A window's segments.

    Attributes:
        segments: in order; times never fall.
        resume: in seconds, from where on the model left audio for the next window, since it saw no end of what starts
            there; None: the window is done.
    """

    segments: tuple[Span, ...]
    resume: float | None


def split_at_timestamps(tokens: Sequence[int], spec: Transcription, seconds: float) -> Spans:
    """Segments of tokens.

    Text without a timestamp before it starts where the last segment ended; text without one behind it lasts until
    the window ends. Timestamps behind the window's end are moved there.

    Args:
        tokens: text and timestamps.
        spec: says what timestamps mean.
        seconds: length of the window.
    """
    first = spec.tokens.first_timestamp
    segments: list[Span] = []
    entries: list[int] = []
    start = 0.0
    for index, token in enumerate(tokens):
        if token < first:
            entries.append(index)
            continue
        time = min(seconds, (token - first) * spec.seconds_per_timestamp)
        if entries:
            segments.append(Span(start, max(start, time), tuple(entries)))
            entries = []
        start = max(start, time)
    if entries:
        segments.append(Span(start, max(start, seconds), tuple(entries)))
    ends_in_pair = len(tokens) >= 2 and min(tokens[-2:]) >= first
    return Spans(tuple(segments), start if segments and ends_in_pair and start < seconds else None)
