"""What a benchmark runs of a bundle: a program on a recorded input, or of speech a recorded sound from mel to text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.requirement import Requirement
from edgeformer_runtime.bundle.specs import Transcription
from edgeformer_runtime.bundle.vectors import Case, longest_case, read_vectors
from edgeformer_runtime.choices import did_you_mean
from edgeformer_runtime.engines.base import Engine
from edgeformer_runtime.errors import InputError


@dataclass(frozen=True)
class Workload:
    """One recorded case as something to run again and again.

    Attributes:
        program: the program that runs; of speech the one that begins, `encode`, with all that follows it.
        case: what it runs on.
    """

    program: str
    case: Case

    def bind(self, bundle: Bundle, engine: Engine) -> Callable[[], object]:
        """The call that a benchmark times; `bundle` stays open as long as it is used."""
        if not isinstance(bundle.manifest.postprocessing, Transcription):
            return lambda: engine.run(self.program, self.case.inputs)
        from edgeformer_runtime.pipelines.speech import Transcriber
        from edgeformer_runtime.verify.speech_replay import read_wav

        transcriber = Transcriber(bundle, engine)
        samples = read_wav(transcriber, self.case.raw)
        return lambda: transcriber.plain_text(samples)


def workload(bundle: Bundle, program: str | None = None) -> Workload:
    """The largest recorded input, of all programs or of one; of speech the sound in the middle of the recorded ones.

    Raises:
        BundleError: the bundle has no vectors.
        InputError: the bundle has no such program, or none that begins there.
    """
    if not isinstance(bundle.manifest.postprocessing, Transcription):
        case = longest_case(bundle, program)
        return Workload(case.program, case)
    cases = {case.program: case for case in read_vectors(bundle)[0]}
    chosen = program or list(cases)[len(cases) // 2]
    if chosen not in cases:
        guess = did_you_mean(chosen, cases)
        raise InputError(
            f"speech is measured from mel to text: {guess}expected one of {', '.join(cases)}, found {program!r}"
        )
    return Workload(chosen, cases[chosen])


def measurable_programs(bundle: Bundle) -> tuple[str, ...]:
    """The programs that a workload may begin with, in the order of the recorded cases.

    Raises:
        BundleError: the bundle has no vectors.
    """
    return tuple(dict.fromkeys(case.program for case in read_vectors(bundle)[0]))


def bundle_run(
    path: str, program: str, threads: int, required: dict[str, Any] | None = None, batch: int = 1
) -> Callable[[], object]:
    """A benchmark's factory: the engine alone, on recorded inputs, or of speech from mel to text.

    Args:
        path: the bundle's folder or zip.
        program: which of its programs runs.
        threads: how many the engine may use.
        required: what it must be, as `Requirement.to_json` has it.
        batch: how often a run calls the program, which takes one input at a time.
    """
    # To measure says nothing of answers.
    bundle = Bundle.open(path, Requirement.from_json(required), allow_refused=True)
    return open_run(bundle, program, threads, batch)


def open_run(bundle: Bundle, program: str, threads: int, batch: int) -> Callable[[], object]:
    """`bundle_run` of a bundle that is open."""
    from edgeformer_runtime.engines import open_engine

    call = workload(bundle, program).bind(bundle, open_engine(bundle, threads))

    def run() -> object:
        for _ in range(batch - 1):
            call()
        return call()

    # Lives as long as the callable does: a zip's temporary folder goes with the bundle.
    run.bundle = bundle  # type: ignore[attr-defined]
    return run
