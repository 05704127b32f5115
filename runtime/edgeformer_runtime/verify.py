"""Replays a bundle's recorded vectors stage by stage and names the first stage that diverges from the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeformer_runtime.bundle import Bundle
from edgeformer_runtime.engines import open_engine
from edgeformer_runtime.engines.base import Engine, Tensor
from edgeformer_runtime.errors import BundleError, EngineError, InputError
from edgeformer_runtime.manifest import CASES_FILE, Embedding, TextPreprocessing
from edgeformer_runtime.pipelines import open_program_pipeline
from edgeformer_runtime.pipelines.program import ProgramPipeline
from edgeformer_runtime.preprocess.image_spec import ImagePreprocessing
from edgeformer_runtime.strict_json import shorten
from edgeformer_runtime.vectors import Case, Tolerances, read_vectors

PIXEL_TOLERANCE_LEVELS = 2.01
"""Of 256: implementations of one filter may round differently in each of its two passes; the rest is float32's."""

Progress = Callable[[int, int], None]
"""Called with the number of finished cases and of all cases."""


@dataclass(frozen=True)
class Stage:
    """How one stage compares with the reference, at its worst over all cases.

    Attributes:
        name: "preprocess", a program's name, or "answer".
        max_abs: the largest absolute difference, of the case that is closest to its tolerance or farthest beyond it.
        cosine: the smallest cosine of a case's result and its reference.
        tolerance: what `max_abs` may be in that case.
        ok: every case is within its tolerance.
    """

    name: str
    max_abs: float | None
    cosine: float | None
    tolerance: float
    ok: bool


@dataclass(frozen=True)
class Verification:
    """The outcome of a verification.

    Attributes:
        ok: every stage is.
        executed_by: what ran the programs, with its version.
        stages: in the order of execution.
        first_diverging: the first stage that is not ok, None where all are.
        note: what the verification cannot show, None where there is nothing to say.
    """

    ok: bool
    executed_by: str
    stages: tuple[Stage, ...]
    first_diverging: str | None
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON values without NaN: a figure that could not be computed is null."""
        document: dict[str, Any] = {
            "ok": self.ok,
            "executed_by": self.executed_by,
            "stages": [vars(stage).copy() for stage in self.stages],
            "first_diverging": self.first_diverging,
        }
        if self.note is not None:
            document["note"] = self.note
        return document


@dataclass(frozen=True)
class Comparison:
    """One case's result against its reference; None: not comparable (another shape, NaN, or no result at all)."""

    max_abs: float | None
    cosine: float | None
    tolerance: float
    ok: bool

    def badness(self) -> tuple[bool, float]:
        """A key that is largest for the worst comparison."""
        if self.max_abs is None:
            return True, np.inf
        if self.tolerance == 0:
            return not self.ok, np.inf if self.max_abs else 0.0
        return not self.ok, self.max_abs / self.tolerance


def verify(bundle: Bundle, engine: Engine | None = None, progress: Progress | None = None) -> Verification:
    """Replay the recorded vectors.

    Args:
        bundle: an open bundle.
        engine: what runs the programs; None opens the engine of the bundle's target, with one thread.
        progress: called after each case.

    Raises:
        BundleError: the bundle has no vectors, or they do not follow BUNDLE.md.
        EngineError: the engine cannot be opened. One that fails while it runs is a stage that is not ok.
    """
    cases, tolerances = read_vectors(bundle)
    opened = open_engine(bundle) if engine is None else engine
    try:
        pipeline = open_program_pipeline(bundle, opened)
        comparisons: dict[str, list[Comparison]] = {"preprocess": []}
        comparisons |= {program.name: [] for program in bundle.manifest.programs}
        comparisons["answer"] = []
        for index, case in enumerate(cases):
            comparisons["preprocess"].append(_preprocess(pipeline, case))
            comparisons[case.program].append(_program(opened, case, tolerances))
            comparisons["answer"].append(_answer(pipeline, case, tolerances))
            if progress is not None:
                progress(index + 1, len(cases))
        stages = tuple(_worst(name, found) for name, found in comparisons.items())
        first = next((stage.name for stage in stages if not stage.ok), None)
        return Verification(first is None, opened.executed_by, stages, first, opened.not_covered)
    finally:
        if engine is None:
            opened.close()


def compare(found: Tensor, reference: Tensor, tolerance: float) -> Comparison:
    """Compare two tensors of any shape; NaN, infinity or another shape are not comparable and not ok."""
    if found.shape != reference.shape or not np.isfinite(found).all():
        return Comparison(None, None, tolerance, ok=False)
    a = found.astype(np.float64).ravel()
    b = reference.astype(np.float64).ravel()
    max_abs = float(np.abs(a - b).max(initial=0.0))
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    cosine = float(np.clip(a @ b / norms, -1, 1)) if norms else None
    return Comparison(max_abs, cosine, tolerance, max_abs <= tolerance)


def _preprocess(pipeline: ProgramPipeline[Any, Any], case: Case) -> Comparison:
    tolerance = _input_tolerance(pipeline.bundle.manifest.preprocessing)
    try:
        prepared = pipeline.prepare(pipeline.raw_from_json(case.raw))
    except InputError as error:
        raise BundleError(f"{CASES_FILE}: the input {shorten(case.raw)} cannot be used: {error}") from None
    if prepared.program != case.program:
        return Comparison(None, None, tolerance, ok=False)
    return _worst_of([compare(prepared.inputs[name], tensor, tolerance) for name, tensor in case.inputs.items()])


def _input_tolerance(spec: TextPreprocessing | ImagePreprocessing) -> float:
    """Token ids have no tolerance: each of them selects another row of the embedding table. Pixels have a small one."""
    return PIXEL_TOLERANCE_LEVELS / (255 * min(spec.std)) if isinstance(spec, ImagePreprocessing) else 0.0


def _program(engine: Engine, case: Case, tolerances: Tolerances) -> Comparison:
    limits = {name: tolerances.output * _largest(tensor) for name, tensor in case.outputs.items()}
    try:
        outputs = engine.run(case.program, case.inputs)
    except EngineError:
        return Comparison(None, None, max(limits.values()), ok=False)
    return _worst_of([compare(outputs[name], tensor, limits[name]) for name, tensor in case.outputs.items()])


def _answer(pipeline: ProgramPipeline[Any, Any], case: Case, tolerances: Tolerances) -> Comparison:
    """The whole way from raw input: scores by label, or the embedding.

    Scores within the tolerance can swap the best two labels only where these are within twice the tolerance.
    """
    head = pipeline.bundle.manifest.postprocessing
    reference: Tensor
    if isinstance(head, Embedding):
        (reference,) = (tensor[0] for tensor in case.outputs.values())
        tolerance = tolerances.score if head.normalized else tolerances.output * _largest(reference)
    else:
        reference = _scores(case.expected, case.expected["labels"])
        tolerance = tolerances.score
    try:
        result = pipeline.run(pipeline.raw_from_json(case.raw))
    except EngineError:
        return Comparison(None, None, tolerance, ok=False)
    if isinstance(head, Embedding):
        return compare(result.vector, reference, tolerance)
    return compare(_scores(result.to_json(), case.expected["labels"]), reference, tolerance)


def _scores(answer: Mapping[str, Any], labels: Sequence[str]) -> Tensor:
    """An answer's scores (N,) in the order of `labels`."""
    scores = dict(zip(answer["labels"], answer["scores"], strict=True))
    return np.array([scores[label] for label in labels], dtype=np.float64)


def _largest(tensor: Tensor) -> float:
    return float(np.abs(tensor).max(initial=0.0))


def _worst_of(comparisons: Sequence[Comparison]) -> Comparison:
    """The worst comparison, with the smallest cosine of all of them."""
    worst = max(comparisons, key=Comparison.badness)
    cosines = [found.cosine for found in comparisons if found.cosine is not None]
    return Comparison(worst.max_abs, min(cosines, default=None), worst.tolerance, worst.ok)


def _worst(name: str, comparisons: Sequence[Comparison]) -> Stage:
    worst = _worst_of(comparisons)
    return Stage(name, worst.max_abs, worst.cosine, worst.tolerance, worst.ok)
