"""Replays a bundle's recorded vectors stage by stage and names the first stage that diverges from the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.vectors import Case, Tolerances, read_vectors
from edgeformer_runtime.engines import open_engine
from edgeformer_runtime.engines.base import Engine
from edgeformer_runtime.lazy import load_attribute
from edgeformer_runtime.verify.comparison import Comparison, worst_of

Progress = Callable[[int, int], None]
"""Called with the number of finished cases and of all cases."""

# How the cases of each kind of answer are replayed.
REPLAYS: dict[str, str] = {
    "classification": "edgeformer_runtime.verify.program_replay:ProgramReplay",
    "embedding": "edgeformer_runtime.verify.program_replay:ProgramReplay",
    "transcription": "edgeformer_runtime.verify.speech_replay:SpeechReplay",
}


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

    def with_layers(self, layers: tuple[LayerStage, ...], note: str) -> Verification:
        """The same with stages of layers behind the first stage, and with a further sentence for `note`."""
        stages = (*self.stages[:1], *layers, *self.stages[1:])
        first = next((stage.name for stage in stages if not stage.ok), None)
        notes = " ".join(each for each in (self.note, note) if each is not None)
        return Verification(first is None, self.executed_by, stages, first, notes or None)

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


class Replay(Protocol):
    """Replays cases of one kind and compares each stage with the reference."""

    def __init__(self, bundle: Bundle, engine: Engine, tolerances: Tolerances, cases: Sequence[Case]) -> None:
        """Compare what the engine makes of the bundle's cases; all of them say how large an output gets."""

    def play(self, case: Case) -> None:
        """Replay one case."""

    def comparisons(self) -> dict[str, list[Comparison]]:
        """What was found so far: every stage in the order of execution."""


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
        make: Any = load_attribute(REPLAYS[bundle.manifest.postprocessing.kind])
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


def _worst(name: str, comparisons: list[Comparison]) -> Stage:
    worst = worst_of(comparisons)
    sample = None if worst.ok else worst.sample
    return Stage(name, worst.max_abs, worst.cosine, worst.tolerance, worst.ok, worst.reason, sample)
