"""Check: the labels stand in the order of the recorded logits."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from edgeformer.doctor.examination import Examination
from edgeformer.doctor.finding import Finding, error, fine, warning
from edgeformer_runtime.bundle.manifest import Classification
from edgeformer_runtime.bundle.vectors import Case
from edgeformer_runtime.pipelines.heads import ACTIVATIONS

CHECK = "labels"
# Recorded logits give the recorded scores but for the rounding of float32.
TOLERANCE = 1e-4
WHY = "the app would show another label than the model means"
DO = "put the labels back into the order of the checkpoint's id2label, or convert it again with --labels"


def check_labels(examination: Examination) -> Iterable[Finding]:
    """Recorded logits under the manifest's labels against recorded answers; no engine takes part."""
    head = examination.bundle.manifest.postprocessing
    if not isinstance(head, Classification) or not examination.cases:
        return []
    if all(label == f"LABEL_{index}" for index, label in enumerate(head.labels)):
        return [
            warning(
                CHECK,
                f"the {len(head.labels)} labels are LABEL_0, LABEL_1, ...",
                "the checkpoint does not say what its classes are called, and an app would show these names",
                "convert it again with --labels FILE",
            )
        ]
    moved: dict[str, set[str]] = {}
    for case in examination.cases:
        for label, candidates in _moved(case, head).items():
            moved[label] = moved[label] & candidates if label in moved else candidates
    if not moved:
        return [fine(CHECK, f"{len(head.labels)} labels, in the order of the recorded logits")]
    pair = sorted(moved)
    if len(pair) == 2 and all(moved[pair[i]] == {pair[1 - i]} for i in (0, 1)):
        return [
            error(CHECK, f"the scores are right, but the labels {pair[0]!r} and {pair[1]!r} are exchanged", WHY, DO)
        ]
    shown = ", ".join(map(repr, pair[:6])) + (", ..." if len(pair) > 6 else "")
    return [error(CHECK, f"{len(pair)} labels do not belong to their logits: {shown}", WHY, DO)]


def _moved(case: Case, head: Classification) -> dict[str, set[str]]:
    """Labels whose score is not the recorded one, each with the labels whose recorded score it has."""
    (logits,) = case.outputs.values()
    scores = dict(zip(head.labels, ACTIVATIONS[head.activation](logits.ravel().astype(np.float64)), strict=True))
    expected = dict(zip(case.expected["labels"], case.expected["scores"], strict=True))
    return {
        label: {other for other, recorded in expected.items() if abs(recorded - score) <= TOLERANCE}
        for label, score in scores.items()
        if abs(expected.get(label, np.inf) - score) > TOLERANCE
    }
