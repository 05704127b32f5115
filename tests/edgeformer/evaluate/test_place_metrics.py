"""Answers to questions are counted as SQuAD's own script does, and entities as seqeval does."""

from __future__ import annotations

import pytest

from edgeformer.evaluate.tokens import chunks, entity_quality, exact_match, normal_answer, word_f1


@pytest.mark.parametrize(
    ("answer", "right", "exact", "f1"),
    [
        # By the official script of SQuAD 2.0 (compute_exact, compute_f1).
        ("The Eiffel Tower!", ("eiffel tower",), 1.0, 1.0),
        ("in the Swiss Alps", ("Swiss Alps", "the Alps"), 0.0, 0.8),
        ("a cat and a dog", ("the dog",), 0.0, 0.5),
        ("dog dog cat", ("dog dog",), 0.0, 0.8),
        ("", ("Basel",), 0.0, 0.0),
        ("Basel", (), 0.0, 0.0),
        ("", (), 1.0, 1.0),
        ("the", (), 1.0, 1.0),
        ("1,233 kilometres", ("1233 kilometres",), 1.0, 1.0),
        ("Z\u00fcrich", ("Zurich",), 0.0, 0.0),
    ],
)
def test_answers_are_counted_as_squad_does(answer: str, right: tuple[str, ...], exact: float, f1: float) -> None:
    assert exact_match(answer, right) == exact
    assert word_f1(answer, right) == pytest.approx(f1)


def test_normal_answers() -> None:
    assert normal_answer("The  theatre, a\u00a0an Ant's") == "theatre ants"


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        # Of seqeval.metrics.sequence_labeling.get_entities.
        ("B-PER I-PER O B-LOC", {("PER", 0, 1), ("LOC", 3, 3)}),
        ("I-PER I-PER B-PER", {("PER", 0, 1), ("PER", 2, 2)}),
        ("B-PER I-LOC I-LOC", {("PER", 0, 0), ("LOC", 1, 2)}),
        ("O I-PER O", {("PER", 1, 1)}),
        ("B-PER B-PER", {("PER", 0, 0), ("PER", 1, 1)}),
        ("B-X I-X E-X S-Y S-Y", {("X", 0, 2), ("Y", 3, 3), ("Y", 4, 4)}),
        ("E-X I-X", {("X", 0, 0), ("X", 1, 1)}),
        ("PER PER O LOC", {("PER", 0, 1), ("LOC", 3, 3)}),
        ("", set()),
    ],
)
def test_entities_are_found_as_seqeval_does(tags: str, expected: set[tuple[str, int, int]]) -> None:
    assert chunks(tags.split()) == expected


def test_entities_are_counted_over_all_texts() -> None:
    right = [{("PER", 0, 1), ("LOC", 3, 3)}, {("PER", 0, 0)}]
    given = [{("PER", 0, 1), ("LOC", 2, 3)}, set()]
    found = entity_quality(right, given)
    assert (found.precision, found.recall, found.f1) == pytest.approx((1 / 2, 1 / 3, 2 / 5))
    assert entity_quality([set()], [set()]).f1 == 0
