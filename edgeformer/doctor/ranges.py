"""How large a program's values become on the recorded vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgeformer.doctor.examiner import Examiner
from edgeformer.doctor.model_view import ModelView
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.specs import Transcription
from edgeformer_runtime.bundle.vectors import Case, bucket_of
from edgeformer_runtime.engines.base import Engine
from edgeformer_runtime.errors import EngineError
from edgeformer_runtime.pipelines.speech import Transcriber
from edgeformer_runtime.verify.speech_replay import read_wav, steps

# Of each program so many recorded cases are run. More change the largest number little and take as much time again.
CASES_PER_PROGRAM = 3
TOKENS = 4


@dataclass(frozen=True)
class Ranges:
    """The largest numbers that were seen.

    Attributes:
        largest: of each program, by its name, the (label, number) of each of its operators.
        failure: what the engine said when it could not go on; None: it could.
        hidden: the target does not show its values.
    """

    largest: dict[str, dict[str, float]]
    failure: str | None = None
    hidden: bool = False

    def peak(self, program: str) -> tuple[str, float] | None:
        """The operator whose result is the largest, and that number; None: the program was not run."""
        found = self.largest.get(program)
        return max(found.items(), key=lambda item: math.inf if math.isnan(item[1]) else item[1]) if found else None


def find_ranges(bundle: Bundle, examiner: Examiner, view: ModelView, cases: Sequence[Case]) -> Ranges:
    """Run recorded cases in an engine that shows what it computes.

    Of speech, whose programs for all lengths of sound have the same weights, the shortest sound is run: it is encoded,
    and its prompt and first tokens are decoded.
    """
    largest: dict[str, dict[str, float]] = {}

    def observe(program: str, label: str, number: float) -> None:
        seen = largest.setdefault(program, {})
        seen[label] = number if math.isnan(number) else max(seen.get(label, 0.0), number)

    engine = examiner.observed(bundle, view, observe)
    if engine is None or not cases:
        return Ranges(largest, hidden=engine is None)
    failure = None
    try:
        head = bundle.manifest.postprocessing
        if isinstance(head, Transcription):
            _transcribe(bundle, engine, next(case for case in cases if case.program == head.buckets[0].encode))
        else:
            for program in bundle.manifest.programs:
                for case in [each for each in cases if each.program == program.name][:CASES_PER_PROGRAM]:
                    engine.run(case.program, case.inputs)
    except EngineError as error:
        failure = str(error)
    finally:
        engine.close()
    return Ranges(largest, failure)


def _transcribe(bundle: Bundle, engine: Engine, case: Case) -> None:
    transcriber = Transcriber(bundle, engine)
    bucket = bucket_of(transcriber.spec, case.program)
    mel = transcriber.mel(read_wav(transcriber, case.raw), bucket)
    tokens = iter(case.expected["tokens"][:TOKENS])
    steps(transcriber.decoder(bucket), mel, case.expected["prompt"], lambda _: next(tokens, None))
