"""A window's tokens in segments, by the timestamps among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgeformer_runtime.bundle.specs import Transcription

SPARSE_LETTERS_PER_SECOND, USUAL_LETTERS_PER_SECOND = 4.0, 10.0
"""Of audio that sounds. Who speaks says 10 to 20, and 5 ideographs; models give less for music, noise and animals, and
where they skip sentences."""
SKIPPED_SECONDS = 5.0
"""Of audio that sounds, in one segment: with less, sparse text is slow speech."""
SHORTEST_PART_SECONDS = 1.0
"""Of a segment's audio, before and behind where it is cut."""
NEAR_PAUSE_SECONDS = 0.4
"""A time that the model gives is taken for that of a pause so near."""


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


def cut_at_skipped(spans: Spans, letters: Sequence[int], sounding: Sequence[tuple[float, float]]) -> Spans:
    """A window's segments up to where the model skipped sentences, to be heard again from there on.

    It lets the segment before them last until they end, so that there is far too little text for the audio. It is cut
    in the pause that is nearest to where its text ends at the usual rate. The spans themselves where nothing is cut.

    Args:
        spans: of the window.
        letters: of each segment's text.
        sounding: (begin, end) in seconds, in order: the audio between its pauses.
    """
    for index, (span, count) in enumerate(zip(spans.segments, letters, strict=True)):
        seconds = sum(max(0.0, min(end, span.end) - max(begin, span.start)) for begin, end in sounding)
        if seconds < SKIPPED_SECONDS or count >= SPARSE_LETTERS_PER_SECOND * seconds:
            continue
        first, last = span.start + SHORTEST_PART_SECONDS, span.end - SHORTEST_PART_SECONDS
        expected = span.start + count / USUAL_LETTERS_PER_SECOND
        pauses = [(abs(end - expected), end) for _, end in sounding if first <= end <= last]
        if pauses:
            _, resume = min(pauses)
            return Spans((*spans.segments[:index], replace(span, end=resume)), resume)
    return spans


def letters_of(text: str) -> int:
    """Letters and digits: a note and a full stop are none."""
    return sum(map(str.isalnum, text))


def fit_to_pauses(spans: Sequence[Span], sounding: Sequence[tuple[float, float]]) -> tuple[Span, ...]:
    """Segments that start behind, and end before, the pauses that their times lie in or near.

    Models often let a segment start where the last one ended, before the pause between them.

    Args:
        spans: in order; times never fall, before and after.
        sounding: (begin, end) in seconds, in order: the audio between its pauses.
    """
    edges = [0.0, *(time for pair in sounding for time in pair), float("inf")]
    pauses = list(zip(edges[::2], edges[1::2], strict=True))
    fitted: list[Span] = []
    for span in spans:
        least = fitted[-1].end if fitted else 0.0
        _, start = _nearest(pauses, span.start)
        end, _ = _nearest(pauses, span.end)
        start = max(least, start if start < span.end else span.start)
        fitted.append(replace(span, start=start, end=max(start, end if end > start else span.end)))
    return tuple(fitted)


def _nearest(pauses: Sequence[tuple[float, float]], time: float) -> tuple[float, float]:
    """The pause at or near a time, and else the time itself as one without length."""
    distance, pause = min((max(begin - time, time - end, 0.0), (begin, end)) for begin, end in pauses)
    return pause if distance <= NEAR_PAUSE_SECONDS else (time, time)
