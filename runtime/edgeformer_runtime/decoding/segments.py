"""A window's tokens in segments, by the timestamps among them, and the times of words, by where the decoder looked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime.bundle.specs import Transcription
from edgeformer_runtime.decoding.tokenizer import TextPiece
from edgeformer_runtime.engines.decoder import Floats

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


# Words with their times: punctuation joined to its neighbours, and no word longer than people speak.


OPENING = "\"'“¿([{-"
"""Punctuation that belongs to the word behind it."""
CLOSING = "\"'.。,，!！?？:：”)]}、"  # noqa: RUF001
"""Punctuation that belongs to the word before it."""
SENTENCE_ENDS = ".。!！?？"  # noqa: RUF001

LONGEST_TYPICAL_SECONDS = 0.7
"""What a window's median word counts as at most. No word at a pause lasts longer than twice the median."""


@dataclass(frozen=True)
class TimedWord:
    """A word with its spaces, from `start` to `end` seconds of its window; `probability` is the mean of its tokens'."""

    text: str
    start: float
    end: float
    probability: float


def timed_words(
    pieces: Sequence[TextPiece], starts: NDArray[np.float64], probabilities: Sequence[float]
) -> list[TimedWord]:
    """Words with the times of their tokens.

    Args:
        pieces: from `SpeechTokenizer.words`, N tokens in all.
        starts: (N + 1,) when each token starts, and when what follows the last one does, in seconds.
        probabilities: of the N tokens.
    """
    words = []
    first = 0
    for piece in pieces:
        end = first + len(piece.tokens)
        probability = sum(probabilities[first:end]) / len(piece.tokens)
        words.append(TimedWord(piece.text, float(starts[first]), float(starts[end]), probability))
        first = end
    return words


def trim_to_speech(words: Sequence[TimedWord], sounding: Sequence[tuple[float, float]]) -> list[TimedWord]:
    """Words without the pauses that they begin or end with.

    The path of an alignment gives all of the audio to some token, so that a pause belongs to one of its neighbours.

    Args:
        words: in order.
        sounding: (begin, end) in seconds, in order: the audio between its pauses. A word outside all of them stays.
    """
    trimmed = []
    for word in words:
        # A word lies in one stretch; a little of the next one may be an alignment that is not exact.
        overlaps = [(min(word.end, end) - max(word.start, begin), begin, end) for begin, end in sounding]
        overlap, begin, end = max(overlaps, default=(0.0, 0.0, 0.0))
        if overlap > 0:
            word = replace(word, start=max(word.start, begin), end=min(word.end, end))
        trimmed.append(word)
    return trimmed


def clip_long_words(words: Sequence[TimedWord]) -> list[TimedWord]:
    """Words at pauses that are no silence (breath, noise) at most twice as long as the median word.

    A first word and one behind a sentence's end lose their begin, and the punctuation of a sentence's end its end.
    """
    lengths = [word.end - word.start for word in words if word.end > word.start]
    if not lengths:
        return list(words)
    longest = 2 * min(LONGEST_TYPICAL_SECONDS, float(np.median(lengths)))
    clipped = list(words)
    for index, word in enumerate(words):
        if word.end - word.start <= longest:
            continue
        if word.text.strip() in SENTENCE_ENDS:
            clipped[index] = replace(word, end=word.start + longest)
        elif index == 0 or words[index - 1].text.strip() in SENTENCE_ENDS:
            clipped[index] = replace(word, start=word.end - longest)
    return clipped


def join_punctuation(words: Sequence[TimedWord]) -> list[TimedWord]:
    """Words with the punctuation around them; of a word's times, those of its text proper count."""
    joined: list[TimedWord] = []
    opening: TimedWord | None = None
    for word in words:
        mark = word.text.strip()
        if opening is not None:
            word = replace(word, text=opening.text + word.text)
            opening = None
        if mark and mark in OPENING and word.text.startswith(" "):
            opening = word
        elif joined and word.text == mark and mark and all(character in CLOSING for character in mark):
            joined[-1] = replace(joined[-1], text=joined[-1].text + word.text)
        else:
            joined.append(word)
    return joined if opening is None else [*joined, opening]


# When each token was said, from where in the audio the decoder looked (Radford et al. 2022's alignment heads).


MEDIAN_WIDTH = 7
"""Positions, of 20 ms: attention is noisy from one to the next."""

# Comparisons that bring the median of 7 values to place 3 (Devillard 1998, "Fast median search"): far cheaper on whole
# arrays than to sort each window.
_MEDIAN_COMPARISONS = (
    (0, 5), (0, 3), (1, 6), (2, 4), (0, 1), (3, 5), (2, 6), (2, 3), (3, 6), (4, 5), (1, 4), (1, 3), (3, 4),
)  # fmt: skip


def token_positions(attention: Floats, positions: int) -> NDArray[np.intp]:
    """The position of the audio at which each token starts.

    Each head's attention is taken relative to what it gives a position on average over the tokens, smoothed, and the
    mean over heads is the gain of the path that dynamic time warping looks for.

    Args:
        attention: (N, A, T) float32, of the A alignment heads when the decoder said each of N tokens.
        positions: how many of T hold audio that is to be aligned, at least 1.

    Returns:
        (N,) positions that never fall, the first one 0.
    """
    gain = np.zeros((attention.shape[0], positions), np.float32)
    for head in range(attention.shape[1]):  # one at a time stays in the processor's cache
        gain += _gain_of(attention[:, head, :positions])
    rows, columns = cheapest_path(-gain.astype(np.float64))
    starts = np.concatenate(([True], np.diff(rows) > 0))
    return columns[starts]


def median_filter(values: Floats) -> Floats:
    """The median of `MEDIAN_WIDTH` values around each along the last axis; the ends are mirrored.

    Values of less than half that width stay as they are.
    """
    margin, width = MEDIAN_WIDTH // 2, values.shape[-1]
    if width <= margin:
        return values
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(margin, margin)], mode="reflect")
    shifted = [padded[..., offset : offset + width] for offset in range(MEDIAN_WIDTH)]
    for first, second in _MEDIAN_COMPARISONS:
        low = np.minimum(shifted[first], shifted[second])
        shifted[first], shifted[second] = low, np.maximum(shifted[first], shifted[second])
    return shifted[margin]


def _gain_of(attention: Floats) -> Floats:
    """One head's attention (N, T), relative to the mean over the tokens and smoothed."""
    weights = attention / np.maximum(attention.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    spread = weights.std(axis=0)
    return median_filter((weights - weights.mean(axis=0)) / np.where(spread > 0, spread, np.float32(1)))


# Dynamic time warping: the cheapest monotone path through a matrix of costs.


def cheapest_path(costs: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The path from the first cell to the last by steps down, right, or both at once, of least total cost.

    Costs of any sign. A row is solved at once: within it, the best way to column j that entered the row at column k
    costs enter[k] + sum(row[k..j]), and with prefix sums the best k of each j is a running minimum.

    Args:
        costs: (N, M) float64, finite, N and M at least 1.

    Returns:
        Row and column of each cell on the path, in order.
    """
    count, width = costs.shape
    total = np.empty((count, width))
    total[0] = np.cumsum(costs[0])
    enter = np.empty(width)
    for row in range(1, count):
        above = total[row - 1]
        enter[0] = above[0]
        np.minimum(above[1:], above[:-1], out=enter[1:])
        reached = np.cumsum(costs[row])
        total[row] = reached + np.minimum.accumulate(enter - (reached - costs[row]))
    return _walk_back(total)


def _walk_back(total: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The path whose totals are the least, found from its end; where ways tie, the one to the left is taken."""
    row, column = total.shape[0] - 1, total.shape[1] - 1
    rows, columns = [row], [column]
    while row or column:
        both = total[row - 1, column - 1] if row and column else np.inf
        up = total[row - 1, column] if row else np.inf
        left = total[row, column - 1] if column else np.inf
        if left <= both and left <= up:
            column -= 1
        elif both <= up:
            row, column = row - 1, column - 1
        else:
            row -= 1
        rows.append(row)
        columns.append(column)
    return np.array(rows[::-1], dtype=np.intp), np.array(columns[::-1], dtype=np.intp)
