"""Replays a bundle's recorded vectors stage by stage and names the first stage that diverges from the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.signature import NO_REQUIREMENT, Requirement
from edgeformer_runtime.bundle.vectors import Case, Tolerances, read_vectors
from edgeformer_runtime.engines import Engine, Tensor, open_engine
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.interface import CountProgress, Shown, StrPath
from edgeformer_runtime.registry import load_attribute
from edgeformer_runtime.tasks.task import TASKS

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Stage:
    """How one stage compares with the reference, at its worst over all cases.

    Attributes:
        name: "preprocess", a program's name, or "answer"; of speech "mel", "encode", "steps" ("step 7" where that is
            the first one to diverge) or "text".
        max_abs: the largest absolute difference, of the case that is closest to its tolerance or farthest beyond it.
        cosine: the smallest cosine of a case's result and its reference.
        tolerance: what `max_abs` may be in that case.
        ok: every case is within its tolerance.
        reason: what the engine said where it gave no result in that case, or what is known to be wrong, such as two
            labels that are exchanged; else None.
        sample: where the stage is not ok the raw input of that case, shortened; else None.
    """

    name: str
    max_abs: float | None
    cosine: float | None
    tolerance: float
    ok: bool
    reason: str | None = None
    sample: str | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON values; the reason and the sample only where there is one."""
        optional = ("reason", "sample")
        return {key: value for key, value in vars(self).items() if key not in optional or value is not None}


@dataclass(frozen=True)
class LayerStage(Stage):
    """How the output of one layer compares with the source model's, where a verification was asked to look inside.

    `max_abs` and `cosine` are as of every stage, but of the run with the largest `distance`; what `tolerance` bounds
    is the distance. All three are None where the model file computes nothing of the layer's size.

    Attributes:
        distance: the L2 norm of the difference as a fraction of the norm of the source model's output. (Of thousands of
            values, a few of which are large, the largest difference says less.)
    """

    distance: float | None = None


@dataclass(frozen=True, repr=False)
class Verification(Shown):
    """The outcome of a verification.

    Attributes:
        ok: every stage is.
        executed_by: what ran the programs, with its version.
        stages: in the order of execution.
        first_diverging: the first stage that is not ok, None where all are.
        note: what the verification cannot show, None where there is nothing to say.
        refusals: why the gates of its conversion refused the bundle; none of one that they delivered.
    """

    ok: bool
    executed_by: str
    stages: tuple[Stage, ...]
    first_diverging: str | None
    note: str | None = None
    refusals: tuple[str, ...] = ()

    def with_layers(self, layers: tuple[LayerStage, ...], note: str) -> Verification:
        """The same with stages of layers behind the first stage, and with a further sentence for `note`."""
        stages = (*self.stages[:1], *layers, *self.stages[1:])
        first = next((stage.name for stage in stages if not stage.ok), None)
        notes = " ".join(each for each in (self.note, note) if each is not None)
        return replace(self, ok=first is None, stages=stages, first_diverging=first, note=notes or None)

    def to_json(self) -> dict[str, Any]:
        """JSON values without NaN: a figure that could not be computed is null."""
        document: dict[str, Any] = {
            "ok": self.ok,
            "executed_by": self.executed_by,
            "stages": [stage.to_json() for stage in self.stages],
            "first_diverging": self.first_diverging,
        }
        if self.note is not None:
            document["note"] = self.note
        return document

    def tables(self) -> list[RenderableType]:
        """A row per stage, and the note."""
        from edgeformer_runtime.cli.tables import verification_table

        return [verification_table(self), *([self.note] if self.note else [])]


class Replay(Protocol):
    """Replays cases of one kind and compares each stage with the reference."""

    def __init__(self, bundle: Bundle, engine: Engine, tolerances: Tolerances, cases: Sequence[Case]) -> None:
        """Compare what the engine makes of the bundle's cases; all of them say how large an output gets."""

    def play(self, case: Case) -> None:
        """Replay one case."""

    def comparisons(self) -> dict[str, list[Comparison]]:
        """What was found so far: every stage in the order of execution."""


def verify(bundle: Bundle, engine: Engine | None = None, progress: CountProgress | None = None) -> Verification:
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
        make: Any = load_attribute(TASKS[bundle.manifest.task].gives.replay)
        replay: Replay = make(bundle, opened, tolerances, cases)
        for index, case in enumerate(cases):
            replay.play(case)
            if progress is not None:
                progress(index + 1, len(cases))
        stages = tuple(_worst(name, found) for name, found in replay.comparisons().items())
        first = next((stage.name for stage in stages if not stage.ok), None)
        return Verification(first is None, opened.executed_by, stages, first, opened.not_covered)
    finally:
        if engine is None:
            opened.close()


def verify_file(
    path: StrPath,
    threads: int = 1,
    required: Requirement = NO_REQUIREMENT,
    isolated: bool = False,
    progress: CountProgress | None = None,
    engine_for: Callable[[Bundle], Engine | None] | None = None,
    refine: Callable[[Bundle, Verification], Verification] | None = None,
) -> Verification:
    """Open a bundle, one that the gates of its conversion refused included, and replay its recorded vectors.

    Args:
        path: the bundle's folder or zip.
        threads: for the target's own engine.
        required: what the bundle must be.
        isolated: replay the vectors in a process of its own; `engine_for` is not asked.
        progress: called after each case.
        engine_for: an engine in place of the target's own, or None where that is to be used.
        refine: looks closer at what was found, or None.

    Raises:
        BundleError, EngineError: as `Bundle.open` and `verify`.
        InputError: `isolated` with `refine`, which looks into the model in this process.
    """
    from edgeformer_runtime.cli.tables import refusals  # it imports this module

    if isolated and refine is not None:
        raise InputError("--isolated: layers are compared in this process, expected one of the two options")
    with Bundle.open(path, required, allow_refused=True) as bundle:
        if isolated:
            from edgeformer_runtime.isolation.pipeline import verify_isolated

            verification = verify_isolated(bundle, threads, progress=progress)
        else:
            engine = (None if engine_for is None else engine_for(bundle)) or open_engine(bundle, threads)
            try:
                verification = verify(bundle, engine, progress)
            finally:
                engine.close()
        if refine is not None:
            verification = refine(bundle, verification)
        return replace(verification, refusals=tuple(refusals(bundle)))


def _worst(name: str, comparisons: list[Comparison]) -> Stage:
    worst = worst_of(comparisons)
    sample = None if worst.ok else worst.sample
    return Stage(name, worst.max_abs, worst.cosine, worst.tolerance, worst.ok, worst.reason, sample)


# Compares a result with its reference, tensor by tensor, and keeps the worst.


SMALL = 0.1
"""Of an output's scale: a reference whose values are all below has no direction that a format could keep."""


@dataclass(frozen=True)
class Comparison:
    """One case's result against its reference; None: not comparable (another shape, NaN, or no result at all).

    `reason` is what the engine said where it gave no result, or what is known to be wrong. `sample` is the raw input.
    """

    max_abs: float | None
    cosine: float | None
    tolerance: float
    ok: bool
    reason: str | None = None
    sample: str | None = None

    def badness(self) -> tuple[bool, float]:
        """A key that is largest for the worst comparison."""
        if self.max_abs is None:
            return True, np.inf
        if self.tolerance == 0:
            return not self.ok, np.inf if self.max_abs else 0.0
        return not self.ok, self.max_abs / self.tolerance


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


def largest(tensor: Tensor) -> float:
    """The largest absolute value."""
    return float(np.abs(tensor).max(initial=0.0))


def scales(outputs: Iterable[Mapping[str, Tensor]]) -> dict[str, float]:
    """For each output's name its largest absolute value over all cases: what a tolerance is a fraction of.

    Buckets of one model share it. An input without meaning may have logits near 0, of which no format keeps a fraction.
    """
    found: dict[str, float] = {}
    for tensors in outputs:
        for name, tensor in tensors.items():
            found[name] = max(found.get(name, 0.0), largest(tensor))
    return found


def compare_scaled(found: Tensor, reference: Tensor, tolerance: float, scale: float) -> Comparison:
    """`compare` within a fraction of the output's scale; beside a small reference a cosine says nothing: None."""
    comparison = compare(found, reference, tolerance * scale)
    return replace(comparison, cosine=None) if largest(reference) < SMALL * scale else comparison


def worst_of(comparisons: Sequence[Comparison]) -> Comparison:
    """The worst comparison, with the smallest cosine of all of them."""
    worst = max(comparisons, key=Comparison.badness)
    cosines = [found.cosine for found in comparisons if found.cosine is not None]
    return replace(worst, cosine=min(cosines, default=None))
