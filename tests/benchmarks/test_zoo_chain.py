"""The table of the zoo's chain, from figures that were made up."""

from __future__ import annotations

from benchmarks.zoo import CHAIN, PRECISIONS, markdown, results_of
from edgeformer.report.collect import Variant


def bundle(name: str, precision: str, accuracy: float, latency_ms: float) -> Variant:
    return Variant(
        f"{name}-bundles/{name}.litert.{precision}", "bundle", "litert", precision, 2_000_000, "accuracy",
        accuracy, 0.99, latency_ms,
    )  # fmt: skip


def recipe(linear_weights: int, linear_zeros: int) -> dict[str, object]:
    results = {
        "parameters": 5,
        "linear_weights": linear_weights,
        "linear_zeros": linear_zeros,
        "accuracy": 0.9,
        "loss": 1.0,
    }
    return {"steps": [{"results": {}}, {"results": results}]}


def test_rows_stand_beside_the_teacher_and_weights_are_counted() -> None:
    variants = tuple(
        bundle(link.name, precision, 0.9 - 0.09 * number, 4.0 / (1 + number))
        for number, link in enumerate(CHAIN)
        for precision in PRECISIONS
    )
    found = results_of(variants, {"teacher": recipe(900, 0), "student": recipe(100, 0), "pruned": recipe(70, 30)})
    assert [(row["model"], row["precision"]) for row in found["rows"][:3]] == [
        ("teacher", "fp32"),
        ("teacher", "dynamic-int8"),
        ("student", "fp32"),
    ]
    text = markdown(found)
    assert "| student | fp32 | 81.00% | 90.0% | 2.00 MB | 2.00 ms | 0.500 |" in text
    assert "lost 60.0%: 30.0% with heads and neurons, and 42.9% of what is left are zeros" in text
