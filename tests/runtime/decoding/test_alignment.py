"""Times: dynamic time warping against a plain one, the alignment against transformers, words, segments."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from real_whisper import TOKENS
from scripted import make_spec
from transformers.models.whisper.generation_whisper import _dynamic_time_warping, _median_filter

from edgeformer_runtime.decoding.segments import (
    Span,
    TimedWord,
    cheapest_path,
    clip_long_words,
    join_punctuation,
    median_filter,
    split_at_timestamps,
    timed_words,
    token_positions,
    trim_to_speech,
)
from edgeformer_runtime.decoding.tokenizer import TextPiece


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (7, 30), (30, 7), (40, 200)])
@pytest.mark.parametrize("seed", range(3))
def test_warping_as_in_transformers(shape: tuple[int, int], seed: int) -> None:
    costs = np.random.default_rng(seed).normal(size=shape)
    rows, columns = cheapest_path(costs)
    expected_rows, expected_columns = _dynamic_time_warping(costs)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_array_equal(columns, expected_columns)


def cheapest_total(costs: np.ndarray) -> float:
    """The least cost of any path, cell by cell along diagonals."""
    count, width = costs.shape
    total = np.full((count + 1, width + 1), np.inf)
    total[0, 0] = 0
    for diagonal in range(count + width - 1):
        row = np.arange(max(0, diagonal - width + 1), min(count, diagonal + 1))
        column = diagonal - row
        best = np.minimum(np.minimum(total[row, column], total[row, column + 1]), total[row + 1, column])
        total[row + 1, column + 1] = costs[row, column] + best
    return float(total[-1, -1])


def test_warping_of_a_whole_window_is_the_cheapest() -> None:
    costs = np.random.default_rng(0).normal(size=(448, 1500))
    rows, columns = cheapest_path(costs)
    assert costs[rows, columns].sum() == pytest.approx(cheapest_total(costs), abs=1e-8)
    assert (rows[0], columns[0], rows[-1], columns[-1]) == (0, 0, 447, 1499)
    steps = {*zip(np.diff(rows).tolist(), np.diff(columns).tolist(), strict=True)}
    assert steps <= {(0, 1), (1, 0), (1, 1)}


def test_ties_are_resolved_to_a_cheapest_path() -> None:
    # Transformers' own path is not always a cheapest one here: at some ties it steps to a dearer cell.
    for seed in range(20):
        costs = np.random.default_rng(seed).integers(0, 3, (12, 25)).astype(np.float64)
        found, theirs = (costs[path].sum() for path in (cheapest_path(costs), tuple(_dynamic_time_warping(costs))))
        assert found <= theirs
        assert found == cheapest_total(costs)


@pytest.mark.parametrize("length", [1, 3, 4, 7, 50])
def test_median_as_in_transformers(length: int) -> None:
    values = np.random.default_rng(length).normal(size=(2, 5, length))
    expected = _median_filter(torch.from_numpy(values)[None], 7)[0].numpy()
    np.testing.assert_allclose(median_filter(values), expected)


def test_tokens_begin_where_their_attention_does() -> None:
    starts = [0, 12, 30, 55, 80]
    attention = np.full((5, 2, 120), 1e-3, np.float32)
    for token, (begin, end) in enumerate(itertools.pairwise([*starts, 100])):
        attention[token, :, begin:end] = 0.1
    np.testing.assert_array_equal(token_positions(attention, 100), starts)
    # Positions behind the audio are not looked at, however much attention they get.
    attention[:, :, 100:] = 5.0
    np.testing.assert_array_equal(token_positions(attention, 100), starts)
    assert list(token_positions(attention[:1], 100)) == [0]
    assert list(token_positions(attention, 1)) == [0] * 5
    np.testing.assert_array_equal(token_positions(np.zeros((3, 1, 10), np.float32), 10) >= 0, [True] * 3)


def test_words_take_the_times_and_probabilities_of_their_tokens() -> None:
    pieces = [TextPiece(" ask", (1,)), TextPiece(" country", (2, 3))]
    found = timed_words(pieces, np.array([0.5, 1.0, 1.2, 2.0]), [0.9, 0.5, 0.7])
    assert found == [TimedWord(" ask", 0.5, 1.0, 0.9), TimedWord(" country", 1.0, 2.0, pytest.approx(0.6))]


def word(text: str, start: float, end: float) -> TimedWord:
    return TimedWord(text, start, end, 1.0)


def test_pauses_are_no_parts_of_words() -> None:
    words = [word(" a", 0.0, 1.0), word(" b", 1.0, 2.0), word(" c", 2.0, 3.0), word(" d", 3.0, 3.5)]
    trimmed = trim_to_speech(words, [(0.4, 1.3), (1.8, 2.0), (2.1, 2.6)])
    assert [(each.start, each.end) for each in trimmed] == [(0.4, 1.0), (1.0, 1.3), (2.1, 2.6), (3.0, 3.5)]
    assert trim_to_speech(words, []) == words


def test_long_words_at_pauses_are_clipped() -> None:
    words = [word(" And", 0.0, 3.0), *(word(" x", 3 + 0.3 * i, 3.3 + 0.3 * i) for i in range(5)), word(".", 4.5, 7.0)]
    words += [word(" Then", 7.0, 9.0), word(" long", 9.0, 11.0)]
    clipped = clip_long_words(words)
    assert [(each.start, each.end) for each in (clipped[0], clipped[6], clipped[7], clipped[8])] == [
        (pytest.approx(2.4), 3.0),
        (4.5, pytest.approx(5.1)),
        (pytest.approx(8.4), 9.0),
        (9.0, 11.0),  # nothing says on which side its pause is
    ]
    assert clip_long_words([]) == []


def test_punctuation_joins_its_word() -> None:
    words = [
        word(' "', 0.0, 0.1),
        word("Hi", 0.1, 0.5),
        word(",", 0.5, 0.6),
        word(" you", 0.6, 0.9),
        word('."', 0.9, 1.0),
    ]
    found = join_punctuation(words)
    assert [(each.text, each.start, each.end) for each in found] == [(' "Hi,', 0.1, 0.5), (' you."', 0.6, 0.9)]
    assert [each.text for each in join_punctuation([word(",", 0, 1), word(" a", 1, 2), word(" (", 2, 3)])] == [
        ",",
        " a",
        " (",
    ]


T = TOKENS.first_timestamp


@pytest.mark.parametrize(
    ("tokens", "expected", "resume"),
    [
        ([], [], None),
        ([5, 6], [Span(0.0, 10.0, (0, 1))], None),
        ([T, 5, T + 100], [Span(0.0, 2.0, (1,))], None),
        ([T + 10, 5, T + 100, T + 150, 6, 7, T + 300], [Span(0.2, 2.0, (1,)), Span(3.0, 6.0, (4, 5))], None),
        ([T, 5, T + 100, T + 100, 6], [Span(0.0, 2.0, (1,)), Span(2.0, 10.0, (4,))], None),
        ([T, 5, T + 100, T + 100], [Span(0.0, 2.0, (1,))], 2.0),
        ([T, 5, T + 900], [Span(0.0, 10.0, (1,))], None),
        ([T + 900, 5, T + 950, T + 950], [Span(10.0, 10.0, (1,))], None),
        ([T, T], [], None),
    ],
)
def test_segments(tokens: list[int], expected: list[Span], resume: float | None) -> None:
    spec = make_spec(tokens=TOKENS)
    found = split_at_timestamps(tokens, spec, 10.0)
    assert list(found.segments) == expected
    assert found.resume == resume
