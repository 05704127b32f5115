"""Replays recorded cases whose answer is one program's outputs: preprocess, program, answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import CASES_FILE, Embedding, Preprocessing
from edgeformer_runtime.bundle.specs import ImagePreprocessing
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.bundle.vectors import Case, Tolerances
from edgeformer_runtime.engines.base import Engine, Tensor
from edgeformer_runtime.errors import BundleError, EngineError, InputError
from edgeformer_runtime.pipelines import open_program_pipeline
from edgeformer_runtime.verify.verify import Comparison, compare, compare_scaled, scales, worst_of

RECORDED_TOLERANCE = 1e-4
"""Between recorded scores and those of the recorded logits: the rounding of float32 in another implementation."""

PIXEL_TOLERANCE_LEVELS = 2.01
"""Of 256: implementations of one filter may round differently in each of its two passes; the rest is float32's."""


class ProgramReplay:
    """Compares the stages "preprocess", each program's name, and "answer"."""

    def __init__(self, bundle: Bundle, engine: Engine, tolerances: Tolerances, cases: Sequence[Case]) -> None:
        """See `verify.Replay`."""
        self._pipeline = open_program_pipeline(bundle, engine)
        self._tolerances = tolerances
        self._scales = scales(case.outputs for case in cases)
        self._input_tolerance = _input_tolerance(bundle.manifest.preprocessing)
        names = ["preprocess", *(program.name for program in bundle.manifest.programs), "answer"]
        self._found: dict[str, list[Comparison]] = {name: [] for name in names}

    def play(self, case: Case) -> None:
        """Replay one case."""
        sample = shorten(case.raw)
        for stage, found in (
            ("preprocess", self._preprocess(case)),
            (case.program, self._program(case)),
            ("answer", self._answer(case)),
        ):
            self._found[stage].append(replace(found, sample=sample))

    def comparisons(self) -> dict[str, list[Comparison]]:
        """What was found so far: every stage in the order of execution."""
        return self._found

    def _preprocess(self, case: Case) -> Comparison:
        pipeline, tolerance = self._pipeline, self._input_tolerance
        try:
            prepared = pipeline.prepare(pipeline.raw_from_json(case.raw))
        except InputError as error:
            raise BundleError(f"{CASES_FILE}: the input {shorten(case.raw)} cannot be used: {error}") from None
        if prepared.program != case.program:
            return Comparison(None, None, tolerance, ok=False)
        return worst_of([compare(prepared.inputs[name], tensor, tolerance) for name, tensor in case.inputs.items()])

    def _program(self, case: Case) -> Comparison:
        tolerance, known = self._tolerances.output, self._scales
        try:
            outputs = self._pipeline.engine.run(case.program, case.inputs)
        except EngineError as error:
            limit = tolerance * max(known[name] for name in case.outputs)
            return Comparison(None, None, limit, ok=False, reason=str(error))
        return worst_of(
            [compare_scaled(outputs[name], tensor, tolerance, known[name]) for name, tensor in case.outputs.items()]
        )

    def _answer(self, case: Case) -> Comparison:
        """The whole way from raw input: scores by label, or the embedding.

        Scores within the tolerance can swap the best two labels only where these are within twice the tolerance.
        """
        pipeline, tolerances = self._pipeline, self._tolerances
        head = pipeline.bundle.manifest.postprocessing
        reference: Tensor
        if isinstance(head, Embedding):
            ((name, output),) = case.outputs.items()
            reference = output[0]
            tolerance = tolerances.score if head.normalized else tolerances.output * self._scales[name]
        else:
            reference = _scores(case.expected, case.expected["labels"])
            tolerance = tolerances.score
        try:
            result = pipeline.run(pipeline.raw_from_json(case.raw))
        except EngineError as error:
            return Comparison(None, None, tolerance, ok=False, reason=str(error))
        if isinstance(head, Embedding):
            return compare(result.vector, reference, tolerance)
        return self._misnamed(case) or compare(_scores(result.to_json(), case.expected["labels"]), reference, tolerance)

    def _misnamed(self, case: Case) -> Comparison | None:
        """What is wrong with the labels where the recorded logits do not give the recorded answer, without any engine.

        So labels in another order are named whatever the precision is, and however unlikely they are.
        """
        labels, pipeline = case.expected["labels"], self._pipeline
        answer = pipeline.answer(case.outputs, pipeline.prepare(pipeline.raw_from_json(case.raw)))
        found, expected = _scores(answer.to_json(), labels), _scores(case.expected, labels)
        comparison = compare(found, expected, RECORDED_TOLERANCE)
        if comparison.ok:
            return None
        wrong = [label for label, a, b in zip(labels, found, expected, strict=True) if abs(a - b) > RECORDED_TOLERANCE]
        moved = compare(np.sort(found), np.sort(expected), RECORDED_TOLERANCE).ok
        if moved and len(wrong) == 2:
            reason = f"the scores are right, but the labels {shorten(wrong[0])} and {shorten(wrong[1])} are exchanged"
        elif moved:
            reason = f"the scores are right, but {len(wrong)} labels stand in another order"
        else:
            reason = "the recorded logits do not give the recorded scores: the activation is another"
        return replace(comparison, reason=reason)


def _input_tolerance(spec: Preprocessing) -> float:
    """Token ids have no tolerance: each of them selects another row of the embedding table. Pixels have a small one."""
    return PIXEL_TOLERANCE_LEVELS / (255 * min(spec.std)) if isinstance(spec, ImagePreprocessing) else 0.0


def _scores(answer: Mapping[str, Any], labels: Sequence[str]) -> Tensor:
    """An answer's scores (N,) in the order of `labels`."""
    scores = dict(zip(answer["labels"], answer["scores"], strict=True))
    return np.array([scores[label] for label in labels], dtype=np.float64)
