"""`eval` of places in a text and of masked tokens: exact match and F1 of answers, F1 of entities, shares of tokens."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.table import Table

from edgeformer.data.annotated import TaggedText, read_masked, read_questions, read_tagged
from edgeformer.data.labelled import spread
from edgeformer.evaluate.evaluate import Asked, Asker, Comparison, ask
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.pipelines.results import FillResult
from edgeformer_runtime.pipelines.tokens import EntityResult, SpanResult
from edgeformer_runtime.tasks.tokens import NONE, EntityOptions, MaskedToken, SpanOptions, TokenLabels


def percents(*shares: float) -> list[str]:
    """Shares as tables show them."""
    return [f"{share:.1%}" for share in shares]


def _same(agreement: float | None) -> str:
    return "-" if agreement is None else f"{agreement:.1%}"


# How SQuAD counts.


_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_WITHOUT_MARKS = str.maketrans("", "", string.punctuation)


def normal_answer(text: str) -> str:
    """In small letters, without punctuation, articles and more than one space between words."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_WITHOUT_MARKS)).split())


def exact_match(answer: str, right: Sequence[str]) -> float:
    """1 where the answer is one of the right ones, normalised; an empty one is right where there are none."""
    return float(normal_answer(answer) in {normal_answer(each) for each in _countable(right)})


def word_f1(answer: str, right: Sequence[str]) -> float:
    """The largest F1 of the answer's words with those of a right one; of an empty one whether both are."""
    return max(_f1(normal_answer(answer).split(), normal_answer(each).split()) for each in _countable(right))


def _countable(right: Sequence[str]) -> Sequence[str]:
    """The right answers that normalisation leaves something of, or that there is none."""
    return [each for each in right if normal_answer(each)] or [""]


def _f1(answer: Sequence[str], right: Sequence[str]) -> float:
    if not answer or not right:
        return float(answer == right)
    shared = sum((Counter(answer) & Counter(right)).values())
    return 2 * shared / (len(answer) + len(right))


@dataclass(frozen=True)
class AnswerQuality:
    """Means over the questions, as fractions."""

    exact_match: float
    f1: float


@dataclass(frozen=True, repr=False)
class QuestionEvaluation(Comparison[AnswerQuality]):
    """What was found in so many questions.

    Attributes:
        unanswerable: how many of them the data say have no answer.
        agreement: the share of questions that both answer with the same place; None without a source.
    """

    unanswerable: int
    agreement: float | None

    def to_json(self) -> dict[str, Any]:
        """The document that `eval --json` prints."""
        return {
            **self.values("f1", lambda quality: quality.f1),
            "agreement": self.agreement,
            "exact_match": self.bundle.exact_match,
            "source_exact_match": None if self.source is None else self.source.exact_match,
            "unanswerable": self.unanswerable,
            "executed_by": self.executed_by,
        }

    def tables(self) -> list[Table]:
        """A row for the bundle and one for its source."""
        columns = ("F1", "exact match", "same answer as the source", "questions")
        return [self.table(columns, lambda quality: percents(quality.f1, quality.exact_match), _same(self.agreement))]


def evaluate_questions(asker: Asker, data: str, limit: int | None) -> QuestionEvaluation:
    """Compare answers with the right ones; see `read_questions`. Where a question has none, none is an answer."""
    opened = read_questions(data)
    examples = opened if limit is None else spread(opened, limit)
    unanswerable = sum(not example.answers for example in examples)
    asked = ask(asker, examples, _best, SpanOptions(unanswerable=unanswerable > 0))
    right = [example.answers for example in examples]
    return QuestionEvaluation(
        executed_by=asked.executed_by,
        n=len(examples),
        unanswerable=unanswerable,
        bundle=_quality(asked.own, right),
        source=None if asked.theirs is None else _quality(asked.theirs, right),
        agreement=_agreement(asked),
        notes=asked.notes,
    )


_Place = tuple[str, int, int]


def _best(result: SpanResult) -> _Place:
    if not result.answers:
        return "", 0, 0
    best = result.answers[0]
    return best.text, best.start, best.end


def _quality(given: Sequence[_Place], right: Sequence[Sequence[str]]) -> AnswerQuality:
    pairs = list(zip([text for text, _, _ in given], right, strict=True))
    return AnswerQuality(
        sum(exact_match(*pair) for pair in pairs) / len(pairs), sum(word_f1(*pair) for pair in pairs) / len(pairs)
    )


def _agreement(asked: Asked[Any]) -> float | None:
    if asked.theirs is None:
        return None
    same = [bool(own == given) for own, given in zip(asked.own, asked.theirs, strict=True)]
    return sum(same) / len(same)


# How seqeval counts (its default, CoNLL's conlleval).


Chunk = tuple[str, int, int]
"""An entity's label, and the numbers of its first and last word."""


def chunks(tags: Sequence[str]) -> set[Chunk]:
    """The entities in labels of words: what begins with "B-", or another label's "I-", and goes on with "I-".

    "E-" and "S-" end what they are of, as in the scheme IOBES. A label without such a mark goes on like "I-".
    """
    found: set[Chunk] = set()
    first, before = 0, ("O", "")
    for number, tag in enumerate([*tags, "O"]):
        mark, kind = _mark(tag)
        ended = before[0] != "O" and (before[0] in "ES" or mark in "BSO" or kind != before[1])
        if ended:
            found.add((before[1], first, number - 1))
        if mark != "O" and (ended or before[0] == "O"):
            first = number
        before = (mark, kind)
    return found


def _mark(tag: str) -> tuple[str, str]:
    if tag == "O":
        return "O", ""
    return (tag[0], tag[2:]) if tag[1:2] == "-" and tag[0] in "BIES" else ("I", tag)


@dataclass(frozen=True)
class EntityQuality:
    """Over all entities, as fractions."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, repr=False)
class EntityEvaluation(Comparison[EntityQuality]):
    """What was found in so many texts.

    Attributes:
        entities: how many the data have.
        agreement: the share of texts in which both label all words alike; None without a source.
    """

    entities: int
    agreement: float | None

    def to_json(self) -> dict[str, Any]:
        """The document that `eval --json` prints."""
        return {
            **self.values("entity_f1", lambda quality: quality.f1),
            "agreement": self.agreement,
            "precision": self.bundle.precision,
            "recall": self.bundle.recall,
            "entities": self.entities,
            "executed_by": self.executed_by,
        }

    def tables(self) -> list[Table]:
        """A row for the bundle and one for its source."""
        columns = ("F1", "precision", "recall", "same labels as the source", "texts")

        def figures(quality: EntityQuality) -> list[str]:
            return percents(quality.f1, quality.precision, quality.recall)

        return [self.table(columns, figures, _same(self.agreement))]


def evaluate_entities(asker: Asker, data: str, limit: int | None) -> EntityEvaluation:
    """Compare the entities in labels of words, each the label of its first token, with those of the data."""
    head = asker.bundle.manifest.postprocessing
    assert isinstance(head, TokenLabels)
    opened = read_tagged(data, head.labels)
    texts = opened if limit is None else spread(opened, limit)
    unknown = sorted({tag for text in texts for tag in text.tags} - {*head.labels, "O"})
    if unknown:
        raise InputError(f"{data} has labels that the bundle does not know: {shorten(unknown)}")
    asked = ask(asker, texts, _first_labels, EntityOptions(NONE))
    word_tags = partial(_tags, texts)
    own, theirs = word_tags(asked.own), None if asked.theirs is None else word_tags(asked.theirs)
    right = [chunks(text.tags) for text in texts]
    return EntityEvaluation(
        executed_by=asked.executed_by,
        n=len(texts),
        entities=sum(map(len, right)),
        bundle=entity_quality(right, [chunks(tags) for tags in own]),
        source=None if theirs is None else entity_quality(right, [chunks(tags) for tags in theirs]),
        agreement=None if theirs is None else sum(a == b for a, b in zip(own, theirs, strict=True)) / len(own),
        notes=asked.notes,
    )


def _first_labels(result: EntityResult) -> dict[int, str]:
    """Of each token that has an entity's label, by its first character."""
    return {entity.start: entity.label for entity in result.entities}


def _tags(texts: Sequence[TaggedText], given: Sequence[dict[int, str]]) -> list[list[str]]:
    found = []
    for text, labels in zip(texts, given, strict=True):
        starts = [0]
        for word in text.words[:-1]:
            starts.append(starts[-1] + len(word) + 1)
        found.append([labels.get(start, "O") for start in starts])
    return found


def entity_quality(right: Sequence[set[Chunk]], given: Sequence[set[Chunk]]) -> EntityQuality:
    """Over all texts together; 0 where there is nothing to divide by."""
    hits = sum(len(one & other) for one, other in zip(right, given, strict=True))
    answered, expected = sum(map(len, given)), sum(map(len, right))
    return EntityQuality(hits / max(1, answered), hits / max(1, expected), 2 * hits / max(1, answered + expected))


# Masked tokens.


@dataclass(frozen=True)
class FillQuality:
    """Shares of the masks whose token is the best one, and is among the best five."""

    accuracy: float
    top_5: float


@dataclass(frozen=True, repr=False)
class MaskEvaluation(Comparison[FillQuality]):
    """What was found in so many texts, each with one mask.

    Attributes:
        agreement: the share of masks for which both have the same best token; None without a source.
    """

    agreement: float | None

    def to_json(self) -> dict[str, Any]:
        """The document that `eval --json` prints."""
        return {
            **self.values("accuracy", lambda quality: quality.accuracy),
            "agreement": self.agreement,
            "top_5": self.bundle.top_5,
            "source_top_5": None if self.source is None else self.source.top_5,
            "executed_by": self.executed_by,
        }

    def tables(self) -> list[Table]:
        """A row for the bundle and one for its source."""
        columns = ("best token", "best five", "same token as the source", "masks")
        return [self.table(columns, lambda quality: percents(quality.accuracy, quality.top_5), _same(self.agreement))]


def evaluate_masks(asker: Asker, data: str, limit: int | None) -> MaskEvaluation:
    """Compare predicted tokens with those that were masked, whose capital letters do not count; see `read_masked`."""
    head = asker.bundle.manifest.postprocessing
    assert isinstance(head, MaskedToken)
    opened = read_masked(data, head.mask_token)
    examples = opened if limit is None else spread(opened, limit)
    asked = ask(asker, examples, _words)
    right = [_word(example.token) for example in examples]
    theirs = asked.theirs
    return MaskEvaluation(
        executed_by=asked.executed_by,
        n=len(examples),
        bundle=_fill_quality(asked.own, right),
        source=None if theirs is None else _fill_quality(theirs, right),
        agreement=None
        if theirs is None
        else sum(own[:1] == given[:1] for own, given in zip(asked.own, theirs, strict=True)) / len(examples),
        notes=asked.notes,
    )


def _word(text: str) -> str:
    return text.strip().casefold()


def _words(result: FillResult) -> tuple[str, ...]:
    """The best five."""
    return tuple(_word(fill.text) for fill in result.fills)


def _fill_quality(given: Sequence[tuple[str, ...]], right: Sequence[str]) -> FillQuality:
    pairs = list(zip(given, right, strict=True))
    return FillQuality(
        sum(words[:1] == (word,) for words, word in pairs) / len(pairs),
        sum(word in words for words, word in pairs) / len(pairs),
    )
