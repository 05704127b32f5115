"""Replays recorded cases whose answer is one program's outputs: preprocess, program, answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import CASES_FILE
from edgeformer_runtime.bundle.specs import Embedding, Score
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.bundle.vectors import Case, Tolerances
from edgeformer_runtime.engines import Engine, Tensor
from edgeformer_runtime.errors import BundleError, EngineError, InputError
from edgeformer_runtime.pipelines import open_program_pipeline
from edgeformer_runtime.pipelines.program import Prepared
from edgeformer_runtime.pipelines.results import (
    ClassificationResult,
    EmbeddingResult,
    ScoreResult,
    finite_row,
    score_of,
    softmax,
)
from edgeformer_runtime.pipelines.tokens import label_probabilities, span_probabilities, token_logits
from edgeformer_runtime.tasks.task import TASKS
from edgeformer_runtime.tasks.vision import BOX, LOGITS, ObjectDetection
from edgeformer_runtime.verify.verify import Comparison, compare, compare_scaled, scales, worst_of

if TYPE_CHECKING:
    from edgeformer_runtime.pipelines.vision import DetectionResult, SegmentationResult

RECORDED_TOLERANCE = 1e-4
"""Between recorded scores and those of the recorded logits: the rounding of float32 in another implementation."""


class ProgramReplay(ABC):
    """Compares the stages "preprocess", each program's name, and "answer", of which each kind has its own way.

    Attributes:
        pipeline: the bundle's.
        tolerances: the bundle's.
        scales: the largest value of each output over all cases.
    """

    def __init__(self, bundle: Bundle, engine: Engine, tolerances: Tolerances, cases: Sequence[Case]) -> None:
        """See `verify.Replay`."""
        self.pipeline = open_program_pipeline(bundle, engine)
        self.tolerances = tolerances
        self.scales = scales(case.outputs for case in cases)
        manifest = bundle.manifest
        self._input_tolerance = TASKS[manifest.task].takes.tolerance(manifest.preprocessing)
        names = ["preprocess", *(program.name for program in manifest.programs), "answer"]
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
        pipeline, tolerance = self.pipeline, self._input_tolerance
        try:
            prepared = pipeline.prepare(pipeline.raw_from_json(case.raw))
        except InputError as error:
            raise BundleError(f"{CASES_FILE}: the input {shorten(case.raw)} cannot be used: {error}") from None
        if prepared.program != case.program:
            return Comparison(None, None, tolerance, ok=False)
        return worst_of([compare(prepared.inputs[name], tensor, tolerance) for name, tensor in case.inputs.items()])

    def _program(self, case: Case) -> Comparison:
        tolerance, known = self.tolerances.output, self.scales
        try:
            outputs = self.pipeline.engine.run(case.program, case.inputs)
        except EngineError as error:
            limit = tolerance * max(known[name] for name in case.outputs)
            return Comparison(None, None, limit, ok=False, reason=str(error))
        return worst_of(
            [compare_scaled(outputs[name], tensor, tolerance, known[name]) for name, tensor in case.outputs.items()]
        )

    def _answer(self, case: Case) -> Comparison:
        """The whole way from raw input to the answer."""
        pipeline, tolerance = self.pipeline, self.answer_tolerance(case)
        try:
            result = pipeline.run(pipeline.raw_from_json(case.raw), pipeline.options_from_json(case.raw))
        except EngineError as error:
            return Comparison(None, None, tolerance, ok=False, reason=str(error))
        return self.compare_answer(case, result, tolerance)

    def answer_tolerance(self, case: Case) -> float:  # noqa: ARG002
        """How far an answer may be from the recorded one: as scores may."""
        return self.tolerances.score

    @abstractmethod
    def compare_answer(self, case: Case, result: Any, tolerance: float) -> Comparison:
        """Compare a pipeline's result with what the case has recorded."""


class EmbeddingReplay(ProgramReplay):
    """Compares embeddings as vectors."""

    def answer_tolerance(self, case: Case) -> float:
        """Of one that is not normalised a fraction of the outputs' scale."""
        head = self.pipeline.bundle.manifest.postprocessing
        assert isinstance(head, Embedding)
        (name,) = case.outputs
        return self.tolerances.score if head.normalized else self.tolerances.output * self.scales[name]

    def compare_answer(self, case: Case, result: EmbeddingResult, tolerance: float) -> Comparison:
        """Component by component."""
        (output,) = case.outputs.values()
        return compare(result.vector, output[0], tolerance)


class ScoreReplay(ProgramReplay):
    """Compares scores with those of the recorded outputs."""

    def answer_tolerance(self, case: Case) -> float:
        """Of a score that is the output a fraction of the outputs' scale."""
        head = self.pipeline.bundle.manifest.postprocessing
        assert isinstance(head, Score)
        (name,) = case.outputs
        return self.tolerances.score if head.activation == "sigmoid" else self.tolerances.output * self.scales[name]

    def compare_answer(self, case: Case, result: ScoreResult, tolerance: float) -> Comparison:
        """One number each."""
        head = self.pipeline.bundle.manifest.postprocessing
        assert isinstance(head, Score)
        return compare(np.array([result.score]), np.array([score_of(case.outputs, head).score]), tolerance)


class LabelReplay(ProgramReplay):
    """Compares scores by label."""

    def compare_answer(self, case: Case, result: ClassificationResult, tolerance: float) -> Comparison:
        """Scores within the tolerance can swap the best two labels only where these are within twice the tolerance."""
        labels = case.expected["labels"]
        reference = _scores(case.expected, labels)
        return self._misnamed(case) or compare(_scores(result.to_json(), labels), reference, tolerance)

    def _misnamed(self, case: Case) -> Comparison | None:
        """What is wrong with the labels where the recorded logits do not give the recorded answer, without any engine.

        So labels in another order are named whatever the precision is, and however unlikely they are.
        """
        labels, pipeline = case.expected["labels"], self.pipeline
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


def _scores(answer: Mapping[str, Any], labels: Sequence[str]) -> Tensor:
    """An answer's scores (N,) in the order of `labels`."""
    scores = dict(zip(answer["labels"], answer["scores"], strict=True))
    return np.array([scores[label] for label in labels], dtype=np.float64)


class SimilarityReplay(ProgramReplay):
    """Compares embeddings as vectors, and of images with labels the scores."""

    def compare_answer(self, case: Case, result: Any, tolerance: float) -> Comparison:
        """Component by component, or label by label."""
        if not case.expected:
            (output,) = case.outputs.values()
            return compare(result.vector, output[0], tolerance)
        labels = case.expected["labels"]
        return compare(_scores(result.to_json(), labels), _scores(case.expected, labels), tolerance)


class ObjectReplay(ProgramReplay):
    """Compares objects by the probabilities of every label at every place that the model looks at."""

    def compare_answer(self, case: Case, result: DetectionResult, tolerance: float) -> Comparison:
        """The recorded outputs give the recorded objects; the engine's, close to the recorded probabilities.

        Which objects are above the threshold, and which label is the best, may hang on the last digit.
        """
        from edgeformer_runtime.pipelines.vision import RECORDED, detect, object_scores  # needs Pillow

        pipeline = self.pipeline
        head = pipeline.bundle.manifest.postprocessing
        assert isinstance(head, ObjectDetection)
        prepared = pipeline.prepare(pipeline.raw_from_json(case.raw))
        assert prepared.size is not None
        answer = replace(result, objects=tuple(detect(case.outputs, head, prepared.size, RECORDED.threshold or 0.0)))
        found, expected = (_columns(each["objects"]) for each in (answer.to_json(), case.expected))
        if found[0] != expected[0]:
            return Comparison(
                None, None, RECORDED_TOLERANCE, ok=False, reason="the recorded outputs give objects of other labels"
            )
        for column, scale, what in ((1, 1, "scores"), (2, max(prepared.size), "boxes")):
            same = compare(found[column], expected[column], RECORDED_TOLERANCE * scale)
            if not same.ok:
                return replace(same, reason=f"the recorded outputs give other {what}")
        outputs = pipeline.engine.run(prepared.program, prepared.inputs)
        scores = [object_scores(each[LOGITS][0].astype(np.float64), head) for each in (outputs, case.outputs)]
        return compare(scores[0], scores[1], tolerance)


class SegmentReplay(ProgramReplay):
    """Compares the labels of pixels by the probabilities of every label at every place of the model's grid."""

    def compare_answer(self, case: Case, result: SegmentationResult, tolerance: float) -> Comparison:
        """The recorded outputs give the recorded shares of labels; the engine's, close to the recorded probabilities.

        Which label is the best at a pixel may hang on the last digit.
        """
        pipeline = self.pipeline
        prepared = pipeline.prepare(pipeline.raw_from_json(case.raw))
        answer = pipeline.answer(case.outputs, prepared).expected_json()["segments"]
        found, expected = (
            {each["label"]: each["share"] for each in some} for some in (answer, case.expected["segments"])
        )
        shares = [np.array([each.get(label, 0.0) for label in result.labels]) for each in (found, expected)]
        same = compare(shares[0], shares[1], RECORDED_TOLERANCE)
        if not same.ok:
            return replace(same, reason="the recorded outputs give other shares of the image to labels")
        outputs = pipeline.engine.run(prepared.program, prepared.inputs)
        grids = [finite_row(each).astype(np.float64) for each in (outputs, case.outputs)]
        exponents = [np.exp(each - each.max(axis=0)) for each in grids]
        probabilities = [each / each.sum(axis=0) for each in exponents]
        return compare(probabilities[0], probabilities[1], tolerance)


def _columns(objects: Sequence[Mapping[str, Any]]) -> tuple[Any, Tensor, Tensor]:
    """Labels, scores (N,) and boxes (N, 4), by label: objects of equal scores come in any order."""
    ordered = sorted(objects, key=lambda each: (each["label"], each["score"], *each["box"]))
    boxes = np.array([each["box"] for each in ordered], np.float64).reshape(-1, BOX)
    return [each["label"] for each in ordered], np.array([each["score"] for each in ordered], np.float64), boxes


class PlaceReplay(ProgramReplay):
    """Compares answers that are places in a text, and what they were chosen by.

    Attributes:
        places: what answers are, for messages.
    """

    places = "places in the text"

    @abstractmethod
    def probabilities(self, outputs: Mapping[str, Tensor], window: Prepared) -> Tensor:
        """What a window's tokens have, by which answers are chosen."""

    def compare_answer(self, case: Case, result: Any, tolerance: float) -> Comparison:
        """The recorded outputs give the recorded places exactly; the engine's, close to the recorded probabilities.

        Which place is the best may hang on the last digit, so the engine's places themselves are not compared.
        """
        del result  # it could be had
        pipeline = self.pipeline
        windows = pipeline.windows(pipeline.raw_from_json(case.raw))
        found = self.probabilities(pipeline.engine.run(windows[0].program, windows[0].inputs), windows[0])
        expected = self.probabilities(case.outputs, windows[0])
        return (self._misplaced(case) if len(windows) == 1 else None) or compare(found, expected, tolerance)

    def _misplaced(self, case: Case) -> Comparison | None:
        """What is wrong where the recorded outputs of an only window do not give the recorded answer."""
        pipeline = self.pipeline
        answer = pipeline.answer(case.outputs, pipeline.prepare(pipeline.raw_from_json(case.raw))).expected_json()
        ((_, found),), ((_, expected),) = answer.items(), case.expected.items()
        places = [[{**each, "score": 0} for each in answers] for answers in (found, expected)]
        if places[0] != places[1]:
            return Comparison(
                None, None, RECORDED_TOLERANCE, ok=False, reason=f"the recorded outputs give other {self.places}"
            )
        scores = [np.array([each["score"] for each in answers], np.float64) for answers in (found, expected)]
        comparison = compare(scores[0], scores[1], RECORDED_TOLERANCE)
        return None if comparison.ok else replace(comparison, reason="the recorded outputs give other scores")


class SpanReplay(PlaceReplay):
    """Compares answers to questions by how probably they start and end at each token."""

    def probabilities(self, outputs: Mapping[str, Tensor], window: Prepared) -> Tensor:
        """(2, N): of starts and of ends."""
        assert window.places is not None
        return np.stack(span_probabilities(token_logits(outputs, window.places), window.places)[:2])


class EntityReplay(PlaceReplay):
    """Compares entities by the probabilities of each token's labels."""

    def probabilities(self, outputs: Mapping[str, Tensor], window: Prepared) -> Tensor:
        """(N, L)."""
        assert window.places is not None
        return label_probabilities(token_logits(outputs, window.places))


class FillReplay(PlaceReplay):
    """Compares masked tokens by the probabilities of the whole vocabulary."""

    places = "tokens"

    def probabilities(self, outputs: Mapping[str, Tensor], window: Prepared) -> Tensor:  # noqa: ARG002
        """(V,)."""
        return softmax(finite_row(outputs).astype(np.float64))
