"""`eval` of embedders and scorers: whether cosines of pairs, or scores, rank as people's scores do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from edgeformer.data.labelled import TEXT_COLUMNS, PairColumns, TableColumns, locate, read_pairs, read_table, spread
from edgeformer.evaluate.evaluate import Z_95, Answers, Asked, Asker, Comparison, ask
from edgeformer.tasks.text import SPEARMAN
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.pipelines.results import EmbeddingResult

LEAST_PAIRS = 2
NO_CORRELATION = "all scores or all cosines are the same: there is no correlation to state"
COLUMNS = TableColumns(
    "pairs of texts",
    (
        ("sentence1", "text1", "sentence_a", "anchor", "first"),
        ("sentence2", "text2", "sentence_b", "positive", "second"),
        ("score", "similarity", "similarity_score", "label"),
    ),
)
"""As public tables of similarities call them, the STS benchmark first."""


SCORED_TEXTS = PairColumns("scored texts", TEXT_COLUMNS.inputs, ("score", "label", "value"))


@dataclass(frozen=True)
class ScoredPair:
    """Two texts and how alike people find them, on any scale."""

    name: str
    texts: tuple[str, str]
    score: float


@dataclass(frozen=True)
class _Text:
    """One text, which may stand in many pairs and is embedded once."""

    name: str
    read: Callable[[], str]


@dataclass(frozen=True)
class Correlation:
    """Of the cosines with the scores; None where one of them is the same for all pairs."""

    spearman: float | None
    pearson: float | None


@dataclass(frozen=True)
class EmbeddingAnswers(Answers):
    """Of pairs: `given` are the cosines in digits.

    Attributes:
        vectors: of each different text, in the order of the data, (N, D).
    """

    vectors: NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class EmbeddingEvaluation(Comparison[Correlation]):
    """What was found in so many pairs.

    Attributes:
        agreement: the mean cosine of the bundle's embeddings to the source's, None without a source.
        least: the smallest of these cosines.
        truncated: how many texts were too long for the bundle and lost their end.
        answers: of the bundle, pair by pair; None where there is no correlation.
    """

    agreement: float | None
    least: float | None
    truncated: int
    answers: EmbeddingAnswers | None

    def to_json(self) -> dict[str, Any]:
        """The document that `eval --json` prints."""
        return {
            **self.values("spearman", lambda quality: quality.spearman),
            "agreement": self.agreement,
            "least_cosine": self.least,
            "pearson": self.bundle.pearson,
            "source_pearson": None if self.source is None else self.source.pearson,
            "truncated": self.truncated,
            "executed_by": self.executed_by,
        }

    def tables(self) -> list[Table]:
        """A row for the bundle and one for its source."""
        same = "-" if self.agreement is None else f"{self.agreement:.5f} (least {self.least:.5f})"
        return [self.table(("Spearman", "Pearson", "cosine to the source", "pairs"), _figures, same)]


def evaluate_embeddings(asker: Asker, data: str, limit: int | None) -> EmbeddingEvaluation:
    """Compare the cosines of a bundle's embeddings of pairs with the pairs' scores; see `read_scored_pairs`."""
    opened = read_scored_pairs(data)
    pairs = opened if limit is None else spread(opened, limit)
    if len(pairs) < LEAST_PAIRS:
        raise InputError(f"{data}: a correlation needs at least {LEAST_PAIRS} pairs, found {len(pairs)}")
    places: dict[str, int] = {}
    texts: list[_Text] = []
    for pair in pairs:
        for text in pair.texts:
            if text not in places:
                places[text] = len(texts)
                texts.append(_Text(pair.name, partial(str, text)))
    asked = ask(asker, texts, vector_of)
    own, theirs = _correlations(asked, pairs, places)
    notes = asked.notes
    if own.spearman is None:
        notes = (*notes, NO_CORRELATION)
    alike = None if asked.theirs is None else cosines_of(np.array(asked.own), np.array(asked.theirs))
    return EmbeddingEvaluation(
        executed_by=asked.executed_by,
        n=len(pairs),
        bundle=own,
        source=theirs,
        agreement=None if alike is None else float(alike.mean()),
        least=None if alike is None else float(alike.min()),
        truncated=asked.truncated,
        notes=notes,
        answers=None if own.spearman is None else _answers(own.spearman, asked.own, pairs, places),
    )


def scored_pairs(asker: Asker, data: str, limit: int | None) -> EmbeddingAnswers:
    """The cosine of each pair; see `evaluate_embeddings`."""
    answers = evaluate_embeddings(asker, data, limit).answers
    if answers is None:
        raise InputError(f"{data}: {NO_CORRELATION}")
    return answers


def mean_cosine(answers: EmbeddingAnswers, other: EmbeddingAnswers) -> float:
    """Of the embeddings of each text by two models."""
    return float(cosines_of(answers.vectors, other.vectors).mean())


def correlation_interval(answers: Answers) -> tuple[float, float] | None:
    """What holds the correlation with 95 %."""
    return rank_interval(answers.value, len(answers.given))


def _answers(
    value: float, vectors: Sequence[NDArray[np.float64]], pairs: Sequence[ScoredPair], places: dict[str, int]
) -> EmbeddingAnswers:
    rows = np.array(vectors)
    firsts, seconds = ([places[pair.texts[side]] for pair in pairs] for side in (0, 1))
    return EmbeddingAnswers(
        metric=SPEARMAN,
        value=value,
        examples=tuple(pair.name for pair in pairs),
        truth=tuple(f"{pair.score:g}" for pair in pairs),
        given=tuple(f"{cosine:.4f}" for cosine in cosines_of(rows[firsts], rows[seconds])),
        vectors=rows,
    )


@dataclass(frozen=True, repr=False)
class ScoreEvaluation(Comparison[Correlation]):
    """What was found in so many texts or pairs.

    Attributes:
        most: by how much a score of the bundle differs from the source's at most, None without a source.
        truncated: how many inputs were too long for the bundle and lost their end.
    """

    most: float | None
    truncated: int

    def to_json(self) -> dict[str, Any]:
        """The document that `eval --json` prints."""
        return {
            **self.values("spearman", lambda quality: quality.spearman),
            "pearson": self.bundle.pearson,
            "source_pearson": None if self.source is None else self.source.pearson,
            "largest_difference": self.most,
            "truncated": self.truncated,
            "executed_by": self.executed_by,
        }

    def tables(self) -> list[Table]:
        """A row for the bundle and one for its source."""
        most = "-" if self.most is None else f"{self.most:.2e}"
        return [self.table(("Spearman", "Pearson", "largest difference", "inputs"), _figures, most)]


@dataclass(frozen=True)
class _Scored:
    """A text or a pair with people's score."""

    name: str
    read: Callable[[], Any]
    score: float


def evaluate_scores(asker: Asker, data: str, limit: int | None) -> ScoreEvaluation:
    """Compare a bundle's scores of pairs (see `read_scored_pairs`), or of texts, with those of the data."""
    opened = _scored_inputs(data)
    inputs = opened if limit is None else spread(opened, limit)
    if len(inputs) < LEAST_PAIRS:
        raise InputError(f"{data}: a correlation needs at least {LEAST_PAIRS} inputs, found {len(inputs)}")
    asked = ask(asker, inputs, lambda result: float(result.score))
    right = np.array([each.score for each in inputs])

    def correlate(scores: Sequence[float]) -> Correlation:
        return Correlation(spearman(np.array(scores), right), pearson(np.array(scores), right))

    theirs = asked.theirs
    return ScoreEvaluation(
        executed_by=asked.executed_by,
        n=len(inputs),
        bundle=correlate(asked.own),
        source=None if theirs is None else correlate(theirs),
        most=None if theirs is None else float(np.abs(np.array(asked.own) - np.array(theirs)).max()),
        truncated=asked.truncated,
        notes=asked.notes,
    )


def _scored_inputs(data: str) -> tuple[_Scored, ...]:
    try:
        return tuple(_Scored(pair.name, partial(tuple, pair.texts), pair.score) for pair in read_scored_pairs(data))
    except InputError as error:
        try:
            rows = read_pairs(*locate(data), SCORED_TEXTS)
            return tuple(_Scored(row.name, partial(str, row.input), float(row.answer)) for row in rows)
        except (InputError, ValueError):
            raise error from None


def read_scored_pairs(data: str) -> tuple[ScoredPair, ...]:
    """Pairs of texts with a score: a .csv or .tsv table, a .json list or a .jsonl file.

    Raises:
        InputError: data that cannot be read, or a score that is no number.
    """
    path, key = locate(data)
    pairs = []
    for row in read_table(path, key, COLUMNS):
        first, second, answer = row.cells
        try:
            score = float(answer)
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise InputError(f"{data}: {row.name}: expected a number as the score, found {answer!r}")
        pairs.append(ScoredPair(row.name, (first, second), score))
    return tuple(pairs)


def vector_of(result: EmbeddingResult) -> NDArray[np.float64]:
    """(D,) in double precision."""
    return result.vector.astype(np.float64)


def _correlations(
    asked: Asked[NDArray[np.float64]], pairs: Sequence[ScoredPair], places: dict[str, int]
) -> tuple[Correlation, Correlation | None]:
    """The bundle's, and the source's where there is one."""
    scores = np.array([pair.score for pair in pairs])
    firsts, seconds = ([places[pair.texts[side]] for pair in pairs] for side in (0, 1))

    def correlate(vectors: Sequence[NDArray[np.float64]]) -> Correlation:
        rows = np.array(vectors)
        cosines = cosines_of(rows[firsts], rows[seconds])
        return Correlation(spearman(cosines, scores), pearson(cosines, scores))

    return correlate(asked.own), None if asked.theirs is None else correlate(asked.theirs)


def cosines_of(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of the rows of (N, D) and (N, D); an embedding of zeros is like nothing."""
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines: NDArray[np.float64] = (first * second).sum(axis=1) / np.where(norms == 0, 1, norms)
    return cosines


def _figures(correlation: Correlation) -> tuple[str, str]:
    spearman, pearson = ("-" if v is None else f"{v:.4f}" for v in (correlation.spearman, correlation.pearson))
    return spearman, pearson


def pearson(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """The linear correlation of (N,) with (N,); None where one of them does not vary."""
    deviations = [values - values.mean() for values in (first, second)]
    norms = [float(np.linalg.norm(each)) for each in deviations]
    # Rounding leaves something of a constant that is none in binary.
    if any(norm <= 1e-13 * np.abs(v).max() * len(v) ** 0.5 for norm, v in zip(norms, (first, second), strict=True)):
        return None
    return float(np.clip(deviations[0] / norms[0] @ (deviations[1] / norms[1]), -1, 1))


def spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """The correlation of the ranks of (N,) and (N,), equal values sharing the mean of theirs; None as `pearson`."""
    return pearson(_ranks(first), _ranks(second))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = ((2 * last - counts + 1) / 2)[place]
    return ranks


def rank_interval(correlation: float, n: int) -> tuple[float, float] | None:
    """What holds Spearman's correlation of n pairs with 95 % (Bonett and Wright 2000); None of so few pairs."""
    if n <= 3 or abs(correlation) >= 1:
        return None
    reach = Z_95 * math.sqrt((1 + correlation**2 / 2) / (n - 3))
    middle = math.atanh(correlation)
    return math.tanh(middle - reach), math.tanh(middle + reach)
