"""Answers that are places in a text: spans that answer a question, and entities. Long texts are read in windows.

The definitions are those of transformers' pipelines for question answering (version 4) and token classification.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import TextPreprocessing
from edgeformer_runtime.engines import Tensor
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.pipelines.program import Prepared, Result
from edgeformer_runtime.pipelines.results import JsonResult, Statistics, finite_row
from edgeformer_runtime.pipelines.text import TextPipeline, tokenizer_json
from edgeformer_runtime.preprocess.text import PAIR, SPECIAL, Places, RawText, TextEncoder
from edgeformer_runtime.tasks.tokens import (
    AVERAGE,
    FIRST,
    NONE,
    SIMPLE,
    EntityOptions,
    SpanExtraction,
    SpanOptions,
    TokenLabels,
)

SPARE_CANDIDATES = 10
"""Spans of a window that are looked at beside two for each answer: several may be of the same words."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class AnswerSpan:
    """An answer: `text` stands from character `start` to before `end` of the context. An empty one: there is none."""

    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True)
class SpanResult(JsonResult):
    """Answers to a question.

    Attributes:
        answers: best first; none where the context has no token that could be one.
        truncated: never: long texts are read in windows.
        statistics: what the answer cost; None where it was not measured.
    """

    answers: tuple[AnswerSpan, ...]
    truncated: bool = False
    statistics: Statistics | None = None

    def to_json(self) -> dict[str, Any]:
        """{"answers": [{"text", "start", "end", "score"}]}, best first."""
        return {"answers": [dict(vars(answer)) for answer in self.answers]}

    def check(self, head: SpanExtraction) -> None:  # noqa: ARG002
        """See `JsonResult.check`: places and scores."""
        _check_places(self.answers)


@dataclass(frozen=True)
class Entity:
    """`text` stands from character `start` to before `end` of the text, and has the label."""

    text: str
    label: str
    start: int
    end: int
    score: float


@dataclass(frozen=True)
class EntityResult(JsonResult):
    """Entities of a text.

    Attributes:
        entities: in the order of the text.
        truncated: never: long texts are read in windows.
        statistics: what the answer cost; None where it was not measured.
    """

    entities: tuple[Entity, ...]
    truncated: bool = False
    statistics: Statistics | None = None

    def to_json(self) -> dict[str, Any]:
        """{"entities": [{"text", "label", "start", "end", "score"}]}."""
        return {"entities": [dict(vars(entity)) for entity in self.entities]}

    def check(self, head: TokenLabels) -> None:
        """See `JsonResult.check`: places, scores, and labels of the manifest."""
        _check_places(self.entities)
        known = {*head.labels, *(label.split("-", 1)[-1] for label in head.labels)}
        if not {entity.label for entity in self.entities} <= known:
            raise ValueError("its labels are not the manifest's")


def _check_places(found: Iterable[AnswerSpan | Entity]) -> None:
    for each in found:
        if not 0 <= each.start <= each.end or len(each.text) != each.end - each.start:
            raise ValueError("a place is none")
        if not math.isfinite(each.score) or each.score < 0:
            raise ValueError("a score is none")


class WindowPipeline(TextPipeline[Result]):
    """What both share: windows of the bundle's longest program, and the logits of each."""

    def make_encoder(self, bundle: Bundle, spec: TextPreprocessing) -> TextEncoder:
        """One that divides texts in place of cutting them."""
        programs = bundle.manifest.programs
        return TextEncoder(spec, tokenizer_json(bundle, spec), programs, windowed=True, known=bundle.known)

    def prepare(self, raw: RawText) -> Prepared:
        """The first window."""
        return self.windows(raw)[0]

    def answer(self, outputs: Mapping[str, Tensor], prepared: Prepared) -> Result:
        """The answer of an input that is one window."""
        return self.answer_windows([outputs], [prepared])

    @abstractmethod
    def windows(self, raw: RawText) -> tuple[Prepared, ...]:
        """See `ProgramPipeline.windows`."""

    def cut(self, text: str, pair: str | None, stride: int) -> tuple[Prepared, ...]:
        """A text, or a pair whose second text is divided, in windows that know which texts they are of."""
        found = self._encoder.windows(text, pair, stride)
        source = text if pair is None else pair
        return tuple(Prepared(each.program, each.inputs, each.truncated, each.places, source) for each in found)


def token_logits(outputs: Mapping[str, Tensor], places: Places) -> Values:
    """The only output's rows (N, L) of the tokens that are no padding, finite."""
    return finite_row(outputs)[: len(places.texts)].astype(np.float64)


# Question answering.


class QuestionAnswerer(WindowPipeline[SpanResult]):
    """Finds the answers to a question in a context: a pair of texts, the question first."""

    def windows(self, raw: RawText) -> tuple[Prepared, ...]:
        """The question beside as many windows of the context as it takes."""
        if not isinstance(raw, Sequence) or isinstance(raw, str) or len(raw) != 2 or not isinstance(raw[0], str):
            raise InputError("expected a question and its context, a pair of texts")
        question, context = cast(tuple[str, str], raw)
        if not question or not context:
            raise InputError(f"expected a {'context' if question else 'question'}, found an empty text")
        return self.cut(question, context, self._head.stride)

    def answer_windows(
        self, outputs: Sequence[Mapping[str, Tensor]], windows: Sequence[Prepared], options: Any = None
    ) -> SpanResult:
        """Answers over all windows, best first."""
        asked: SpanOptions = options or SpanOptions()
        longest = asked.max_answer_tokens or self._head.max_answer_tokens
        found: dict[str, AnswerSpan] = {}
        nothing = math.inf
        for output, window in zip(outputs, windows, strict=True):
            assert window.places is not None and window.source is not None
            starts, ends, null = span_probabilities(token_logits(output, window.places), window.places)
            nothing = min(nothing, null)
            for first, last, score in best_spans(starts, ends, longest, 2 * asked.top + SPARE_CANDIDATES):
                start, end = _whole_words(window.places, first, last)
                text = window.source[start:end]
                known = found.get(text.lower())
                found[text.lower()] = (
                    AnswerSpan(text, start, end, score) if known is None else replace(known, score=known.score + score)
                )
        answers = [*found.values(), *([AnswerSpan("", 0, 0, nothing)] if asked.unanswerable else [])]
        answers.sort(key=lambda answer: -answer.score)
        return SpanResult(tuple(answers[: asked.top]))

    @property
    def _head(self) -> SpanExtraction:
        return cast(SpanExtraction, self.bundle.manifest.postprocessing)


def span_probabilities(logits: Values, places: Places) -> tuple[Values, Values, float]:
    """How probably an answer starts at each token of the context (N,), ends there (N,), and that there is none.

    Args:
        logits: (N, 2), of starts and ends.
        places: of the N tokens. The first, where it is a special one, stands for no answer.
    """
    allowed = places.texts == PAIR
    allowed[:1] |= places.texts[:1] == SPECIAL
    probabilities = np.zeros_like(logits)
    kept = logits[allowed]
    exponents = np.exp(kept - kept.max(axis=0))
    probabilities[allowed] = exponents / exponents.sum(axis=0)
    null = float(probabilities[0].prod())
    probabilities[0] = 0.0
    return probabilities[:, 0], probabilities[:, 1], null


def best_spans(starts: Values, ends: Values, longest: int, count: int) -> list[tuple[int, int, float]]:
    """The `count` best spans as (first token, last token, probability), best first, of equal ones the earliest.

    Args:
        starts, ends: (N,), the probabilities of the tokens.
        longest: tokens that a span has at most.
        count: how many, fewer where no others have a probability above 0.
    """
    longest = min(longest, len(ends))
    later = np.concatenate((ends, np.zeros(longest)))
    # (N, longest): row s, column d is the span of d + 1 tokens from s on.
    scores = (starts[:, None] * np.lib.stride_tricks.sliding_window_view(later, longest)[: len(ends)]).ravel()
    order = np.argsort(-scores, kind="stable")[:count]
    return [
        (int(index) // longest, int(index) // longest + int(index) % longest, float(scores[index]))
        for index in order
        if scores[index] > 0
    ]


def _whole_words(places: Places, first: int, last: int) -> tuple[int, int]:
    """The characters of a span of tokens with all of its first and last word that is in the window."""
    while first > 0 and _same_word(places, first - 1, first):
        first -= 1
    while last + 1 < len(places.words) and _same_word(places, last, last + 1):
        last += 1
    return int(places.offsets[first, 0]), int(places.offsets[last, 1])


def _same_word(places: Places, one: int, other: int) -> bool:
    return bool(places.words[one] == places.words[other] and places.texts[one] == places.texts[other])


# Token classification.


@dataclass(frozen=True, eq=False)
class _Token:
    """A token, or a whole word, with its probabilities (L,)."""

    start: int
    end: int
    scores: Values
    continues: bool = False


@dataclass(frozen=True)
class _Labelled:
    """A token or word with its best label."""

    start: int
    end: int
    label: str
    score: float


class EntityFinder(WindowPipeline[EntityResult]):
    """Finds the entities of a text."""

    def windows(self, raw: RawText) -> tuple[Prepared, ...]:
        """As many windows of the text as it takes."""
        if not isinstance(raw, str):
            raise InputError("expected one text, found a pair of texts or token ids")
        return self.cut(raw, None, self._head.stride)

    def answer_windows(
        self, outputs: Sequence[Mapping[str, Tensor]], windows: Sequence[Prepared], options: Any = None
    ) -> EntityResult:
        """Entities of all windows, in the order of the text."""
        asked: EntityOptions = options or EntityOptions()
        head = self._head
        aggregation = asked.aggregation or head.aggregation
        found: list[_Labelled] = []
        read = 0
        for output, window in zip(outputs, windows, strict=True):
            assert window.places is not None
            tokens = _tokens(token_logits(output, window.places), window.places)
            if aggregation == NONE:  # a token that an earlier window has is that window's
                tokens = [token for token in tokens if token.start >= read]
                read = tokens[-1].end if tokens else read
            grouped = aggregate(tokens, head.labels, aggregation)
            found += [each for each in grouped if each.label not in head.outside]
        if aggregation != NONE and len(windows) > 1:
            found = _without_overlaps(found)
        source = windows[0].source or ""
        return EntityResult(
            tuple(Entity(source[each.start : each.end], each.label, each.start, each.end, each.score) for each in found)
        )

    @property
    def _head(self) -> TokenLabels:
        return cast(TokenLabels, self.bundle.manifest.postprocessing)


def label_probabilities(logits: Values) -> Values:
    """Logits (N, L) to each token's probabilities (N, L)."""
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return cast(Values, exponents / exponents.sum(axis=1, keepdims=True))


def _tokens(logits: Values, places: Places) -> list[_Token]:
    """The tokens that are no special ones."""
    scores = label_probabilities(logits)
    return [
        _Token(int(places.offsets[row, 0]), int(places.offsets[row, 1]), scores[row], bool(places.continues[row]))
        for row in np.flatnonzero(places.texts != SPECIAL)
    ]


def aggregate(tokens: Sequence[_Token], labels: Sequence[str], aggregation: str) -> list[_Labelled]:
    """Tokens to entities, those of no entity among them.

    "none": each token. "simple": neighbours of one label. "first", "average" and "max": the same of whole words, whose
    label is that of the first token, of the mean of the tokens' probabilities, or of the surest token.
    """
    if aggregation not in (NONE, SIMPLE):
        tokens = _words(tokens, aggregation)
    labelled = [_best(token, labels) for token in tokens]
    return labelled if aggregation == NONE else _grouped(labelled)


def _best(token: _Token, labels: Sequence[str]) -> _Labelled:
    best = int(token.scores.argmax())
    return _Labelled(token.start, token.end, labels[best], float(token.scores[best]))


def _words(tokens: Sequence[_Token], aggregation: str) -> list[_Token]:
    words: list[list[_Token]] = []
    for token in tokens:
        if words and token.continues:
            words[-1].append(token)
        else:
            words.append([token])
    return [_Token(word[0].start, word[-1].end, _word_scores(word, aggregation)) for word in words]


def _word_scores(word: Sequence[_Token], aggregation: str) -> Values:
    if aggregation == FIRST:
        return word[0].scores
    if aggregation == AVERAGE:
        return cast(Values, np.mean([token.scores for token in word], axis=0))
    return max(word, key=lambda token: float(token.scores.max())).scores


def tag_of(label: str) -> tuple[bool, str]:
    """Whether a label says that an entity begins, and the entity's own label."""
    return label.startswith("B-"), label[2:] if label[:2] in ("B-", "I-") else label


def _grouped(labelled: Sequence[_Labelled]) -> list[_Labelled]:
    groups: list[list[_Labelled]] = []
    for each in labelled:
        begins, tag = tag_of(each.label)
        if groups and not begins and tag == tag_of(groups[-1][-1].label)[1]:
            groups[-1].append(each)
        else:
            groups.append([each])
    return [
        _Labelled(
            group[0].start,
            group[-1].end,
            group[0].label.split("-", 1)[-1],
            sum(each.score for each in group) / len(group),
        )
        for group in groups
    ]


def _without_overlaps(found: Sequence[_Labelled]) -> list[_Labelled]:
    """Of entities of several windows that overlap the longest, of equally long ones the surest."""
    kept: list[_Labelled] = []
    for each in sorted(found, key=lambda entity: entity.start):
        if kept and kept[-1].start <= each.start < kept[-1].end:
            if (each.end - each.start, each.score) > (kept[-1].end - kept[-1].start, kept[-1].score):
                kept[-1] = each
        else:
            kept.append(each)
    return kept
