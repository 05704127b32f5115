"""Writes heads.json and zero_shot.json: scores and their order from logits, in torch's float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from tests.golden.golden_files import document

Logits = list[float | str]


def files() -> dict[str, bytes]:
    """The golden file by name."""
    cases = [_case(activation, logits) for logits in _logits() for activation in ("softmax", "sigmoid")]
    for bad in ("NaN", "Infinity", "-Infinity"):
        for activation in ("softmax", "sigmoid"):
            cases.append({"activation": activation, "logits": [0.5, bad, 1.0], "error": "EngineError"})
    made_by = f"torch {torch.__version__}"
    return {"heads.json": document(made_by, cases), "zero_shot.json": document(made_by, list(_zero_shot()))}


def _case(activation: str, logits: list[float]) -> dict[str, Any]:
    row = torch.tensor(logits, dtype=torch.float32).double()
    scores = row.softmax(0) if activation == "softmax" else row.sigmoid()
    order = scores.argsort(descending=True, stable=True).tolist()
    return {
        "activation": activation,
        "logits": row.tolist(),
        "error": None,
        "order": order,
        "scores": [round(float(scores[index]), 12) for index in order],
    }


def _logits() -> Iterator[list[float]]:
    yield [0.0]
    yield [1.0, 2.0, 3.0]
    yield [2.0, 2.0, -1.0, 2.0]
    yield [1000.0, 999.0, -1000.0]
    yield [-1e30, 3e38, 0.0]
    yield [-0.0, 0.0, 1e-8, -1e-8]
    yield [-88.0, -104.0, -750.0]
    yield (torch.randn(150, generator=torch.Generator().manual_seed(0)) * 5).round(decimals=3).tolist()


def _zero_shot() -> Iterator[dict[str, Any]]:
    """By the formulas of transformers' pipeline for zero-shot classification."""
    generator = torch.Generator().manual_seed(1)
    three = ("contradiction", "neutral", "Entailment")
    for names in (three, (three[2].upper(), *three[1::-1]), ("no", "entails")):
        for count in (1, 2, 5):
            for multi in (False, True):
                rows = (torch.randn(count, len(names), generator=generator) * 4).round(decimals=3)
                entailment = next(number for number, name in enumerate(names) if name.lower().startswith("entail"))
                logits = rows.double()
                if multi or count == 1:
                    pairs = logits[:, [-1 if entailment == 0 else 0, entailment]]
                    scores = pairs.softmax(1)[:, 1]
                else:
                    scores = logits[:, entailment].softmax(0)
                order = scores.argsort(descending=True, stable=True).tolist()
                yield {
                    "labels": names,
                    "multi_label": multi,
                    "logits": rows.double().tolist(),
                    "order": order,
                    "scores": [round(float(scores[index]), 12) for index in order],
                }
