"""What the gates refuse, what they let pass, and what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeformer.convert.agreement import AccuracyChange, Agreement, Judged
from edgeformer.convert.gates import (
    FINER,
    answers_problem,
    boundary_note,
    divergence,
    drop_beyond_chance,
    helpful_inputs,
    way_forward,
)
from edgeformer.convert.target import EIGHT_BITS, PRECISIONS, Allowance
from edgeformer.tasks.task import TASKS, TaskSpec
from edgeformer_runtime.bundle.manifest import Classification, Embedding, TextPreprocessing
from edgeformer_runtime.verify.verify import Stage, Verification

FOUND = Agreement(100, top1=0.95, divergence=0.02, near=20, lost=1, cosine=0.99, sample="'a text'")


def changed(**values: object) -> Agreement:
    return Agreement(**(vars(FOUND) | values))  # type: ignore[arg-type]


def test_what_is_allowed_passes() -> None:
    assert answers_problem(FOUND, EIGHT_BITS) is None
    assert answers_problem(changed(lost=5, divergence=EIGHT_BITS.divergence), EIGHT_BITS) is None
    assert answers_problem(Agreement(10, cosine=0.9, mean_cosine=0.98), EIGHT_BITS) is None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"lost": 6}, "answers: 6 of 100 are others though the source is sure of them"),
        ({"divergence": 0.3}, "answers: probabilities move by 0.300 on average over 100 inputs"),
        ({"top1": None, "lost": None, "divergence": None, "mean_cosine": 0.5}, "a mean cosine of 0.5000"),
    ],
)
def test_what_a_user_would_lose_names_the_sample(values: dict[str, object], said: str) -> None:
    problem = answers_problem(changed(**values), EIGHT_BITS)
    assert problem is not None and said in problem and "'a text'" in problem and "\n" not in problem


def test_a_drop_of_accuracy_counts_beyond_chance() -> None:
    allowed = Allowance(lost=1, divergence=1, cosine=0, drop=0.02, backstop=EIGHT_BITS.backstop)
    # 5 points on 1000, 70 answers changed: 1.645 * sqrt(70) / 1000 is 1.4 points.
    real = AccuracyChange(1000, 0.90, 0.85, 70)
    assert drop_beyond_chance(real) == pytest.approx(0.05 - 1.645 * 70**0.5 / 1000)
    problem = answers_problem(changed(metric=real), allowed)
    assert problem is not None and "accuracy falls from 90.0% to 85.0% of 1000 labelled examples" in problem
    # The same drop on 20 examples is one answer, which says nothing.
    assert answers_problem(changed(metric=AccuracyChange(20, 0.90, 0.85, 1)), allowed) is None


def test_a_failed_stage_names_its_sample() -> None:
    stage = Stage("answer", 0.5, None, 0.35, ok=False, sample="{'text': 'yes'}")
    said = divergence(Verification(False, "x", (stage,), "answer"))
    assert said == "parity: the stage 'answer' is off by up to 5.00e-01 (tolerance 3.50e-01) on {'text': 'yes'}"


@pytest.mark.parametrize("name", PRECISIONS)
def test_every_refusal_names_a_way_forward(name: str) -> None:
    said = way_forward(PRECISIONS[name], tuple(PRECISIONS), ("--eval (x)",))
    assert "--keep-refused" in said and ("try --precision" in said or "--target" in said)
    assert set(FINER.get(name, ())) <= set(PRECISIONS)
    assert ("--eval (x)" in said) == (PRECISIONS[name].allowance is not None)
    assert "try --precision fp32;" in way_forward(PRECISIONS["fp16"], ("fp32", "fp16"))


def test_only_inputs_that_would_help_are_asked_for() -> None:
    nothing = Judged(None, None, keep_refused=False)
    given = Judged(Path("texts.csv"), "data.csv", keep_refused=False)
    labels, embedding = TASKS["text-classification"], TASKS["text-embedding"]
    assert [each.split()[0] for each in helpful_inputs(labels, nothing)] == ["--calibration", "--eval"]
    assert [each.split()[0] for each in helpful_inputs(embedding, nothing)] == ["--calibration"]
    assert helpful_inputs(labels, given) == ()


def test_changes_near_a_boundary_are_told() -> None:
    note = boundary_note(changed(top1=0.9))
    assert note is not None
    assert note.startswith("9 of 100 answers are others where the source's own lie near a boundary, 1 elsewhere")
    assert boundary_note(FOUND) is None
    assert boundary_note(changed(top1=None)) is None


def test_formats_below_fp16_alone_have_an_allowance() -> None:
    assert [name for name, each in PRECISIONS.items() if each.allowance is None] == ["fp32", "fp16"]


@pytest.mark.parametrize(
    ("name", "labels", "embedding"),
    [
        ("fp32", (1e-4, 1e-4), (1e-4, 1e-4)),
        ("fp16", (1.5e-2, 1e-2), (1.5e-2, 1e-2)),
        ("dynamic-int8", (0.25, 0.35), (0.25, 0.1)),
        ("int4", (0.5, 0.5), (0.5, 0.25)),
    ],
)
def test_what_is_recorded_is_held_to_a_backstop_below_fp16(
    name: str, labels: tuple[float, float], embedding: tuple[float, float]
) -> None:
    text = TextPreprocessing(None, 0, 100)
    heads = (Classification(("a",), "softmax"), Embedding(2, normalized=True))
    for task, head, expected in zip(("classification", "embedding"), heads, (labels, embedding), strict=True):
        found = TaskSpec(TASKS[f"text-{task}"], text, head, {}, ()).tolerances(PRECISIONS[name])
        assert (found.output, found.score) == expected
