"""A task as another author would add it, in this one file: a text in, how much of something it has out.

First what apps need, the runtime's record, then what makes and measures such bundles, the core's: classifiers whose
labels are numbers, as stars of reviews, get their mean by probability computed in the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import FastAPI, Request, Response
from rich.table import Table

from edgeformer.data.labelled import TEXT_COLUMNS, Example, locate, read_pairs
from edgeformer.evaluate.evaluate import Asker, EvaluationResult, ask
from edgeformer.models.family import ProgramOptions
from edgeformer.tasks.task import TaskSpec
from edgeformer.tasks.text import CLASSIFICATION, text_spec
from edgeformer_runtime.bundle import strict_json
from edgeformer_runtime.bundle.manifest import Manifest, TensorSpec
from edgeformer_runtime.bundle.vectors import Case
from edgeformer_runtime.engines import Tensor
from edgeformer_runtime.errors import EngineError
from edgeformer_runtime.pipelines.program import Prepared
from edgeformer_runtime.pipelines.results import Statistics, header_of
from edgeformer_runtime.pipelines.text import TextPipeline
from edgeformer_runtime.serve.app import documents, respond
from edgeformer_runtime.serve.inputs import TEXT_BODY, Answer, cost_of, read_texts
from edgeformer_runtime.serve.metrics import ANSWER_PATH
from edgeformer_runtime.serve.service import RequestPlan, Service, answer_at_once
from edgeformer_runtime.tasks.programs import TEXT, check_nothing_expected, check_only_output
from edgeformer_runtime.tasks.task import AnswerKind, Task
from edgeformer_runtime.verify.program_replay import ProgramReplay
from edgeformer_runtime.verify.verify import Comparison, compare

if TYPE_CHECKING:
    from edgeformer.checkpoints.checkpoint import Checkpoint
    from edgeformer.convert.agreement import Agreement, ComparedOutput
    from edgeformer.models.family import Program


@dataclass(frozen=True)
class Score:
    """The manifest's record: the program's only output times `scale` is the score."""

    scale: float
    kind: str = "stars"


@dataclass(frozen=True)
class ScoreResult:
    score: float
    truncated: bool = False
    statistics: Statistics | None = None

    def to_json(self) -> dict[str, Any]:
        return {"score": self.score}

    def expected_json(self) -> dict[str, Any]:
        return {}

    def to_frame(self) -> tuple[dict[str, Any], bytes]:
        return header_of(self)

    @classmethod
    def from_frame(cls, header: dict[str, Any], body: bytes, head: Score) -> ScoreResult:  # noqa: ARG003
        result = strict_json.from_data(cls, header["result"], "answer")
        if not np.isfinite(result.score):
            raise ValueError("its score is no number")
        return result


class TextScorer(TextPipeline[ScoreResult]):
    def answer(self, outputs: Mapping[str, Tensor], prepared: Prepared) -> ScoreResult:
        head = self.bundle.manifest.postprocessing
        assert isinstance(head, Score)
        (output,) = outputs.values()
        if not np.isfinite(output).all():
            raise EngineError("the model's output is no number")
        return ScoreResult(head.scale * float(output[0, 0]), prepared.truncated)


class ScoreReplay(ProgramReplay):
    def compare_answer(self, case: Case, result: ScoreResult, tolerance: float) -> Comparison:
        prepared = self.pipeline.prepare(self.pipeline.raw_from_json(case.raw))
        reference = self.pipeline.answer(case.outputs, prepared)
        return compare(np.array([result.score]), np.array([reference.score]), tolerance)


class ScoreAnswer(Answer):
    score: float


def to_answer(result: ScoreResult) -> ScoreAnswer:
    return ScoreAnswer(statistics=cost_of(result), **result.to_json())


def add_text_rating(app: FastAPI, service: Service) -> None:
    @app.post(ANSWER_PATH, summary="Score texts", **documents(ScoreAnswer, TEXT_BODY))
    async def answer(request: Request) -> Response:
        read = partial(read_texts, max_inputs=service.options.max_inputs)
        return await respond(service, request, RequestPlan(read, answer_at_once, to_answer))


def check_score(manifest: Manifest) -> None:
    check_only_output(manifest, 1)


SCORE = AnswerKind(
    kind="stars",
    record=Score,
    schema={
        "type": "object",
        "additionalProperties": False,
        "required": ["kind", "scale"],
        "properties": {"kind": {"const": "stars"}, "scale": {"type": "number", "exclusiveMinimum": 0}},
    },
    check=check_score,
    check_expected=check_nothing_expected,
    describe=lambda head: f"a score, times {head.scale:g}",
    result=f"{__name__}:ScoreResult",
    show=lambda result, _: f"{result.score:.2f}",
    plural="scores",
    replay=f"{__name__}:ScoreReplay",
)

TASK = Task(
    name="text-rating",
    takes=TEXT,
    gives=SCORE,
    pipeline=f"{__name__}:TextScorer",
    serve=f"{__name__}:add_text_rating",
)


# The core's half.


def score_programs(checkpoint: Checkpoint, programs: tuple[Program, ...]) -> tuple[Program, ...]:
    from torch import nn, tensor

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = programs[0].module
            self.register_buffer("values", tensor([[float(label)] for label in checkpoint.labels]))

        def forward(self, *inputs: Tensor) -> tuple[Tensor]:
            return (self.network(*inputs)[0].softmax(-1) @ self.get_buffer("values"),)

    module, output = Mean().eval(), TensorSpec("score", "float32", (1, 1))
    return tuple(replace(program, module=module, outputs=(output,)) for program in programs)


def score_spec(checkpoint: Checkpoint, programs: tuple[Program, ...], options: ProgramOptions) -> TaskSpec:  # noqa: ARG001
    return text_spec(SCORING, checkpoint, programs, Score(scale=1.0))


def compare_scores(found: list[ComparedOutput], broken: int, head: Score) -> Agreement:  # noqa: ARG001
    from edgeformer.convert.agreement import Agreement

    moved = [float(abs(own - given).max()) for _, own, given in found]
    return Agreement(len(found), divergence=sum(moved) / len(moved), broken=broken, sample=found[0][0].sample)


@dataclass(frozen=True, repr=False)
class ScoreEvaluation(EvaluationResult):
    error: float
    n: int

    def to_json(self) -> dict[str, Any]:
        return {"metric": "mean_error", "value": self.error, "n": self.n}

    def tables(self) -> list[Table]:
        table = Table("model", "mean error", "n")
        table.add_row(self.model, f"{self.error:.3f}", str(self.n))
        return [table]


def evaluate_scores(asker: Asker, data: str, limit: int | None) -> ScoreEvaluation:
    rows = read_pairs(*locate(data), TEXT_COLUMNS)[:limit]
    asked = ask(asker, [Example(row.name, 0, partial(str, row.input)) for row in rows], lambda result: result.score)
    errors = [abs(own - float(row.answer)) for own, row in zip(asked.own, rows, strict=True)]
    return ScoreEvaluation(notes=asked.notes, error=sum(errors) / len(errors), n=len(rows))


SCORING = replace(
    CLASSIFICATION,
    name=TASK.name,
    noun="text scorer",
    aliases=("stars",),
    network=CLASSIFICATION.name,
    programs=score_programs,
    spec=score_spec,
    agreement=f"{__name__}:compare_scores",
    evaluation=f"{__name__}:evaluate_scores",
    judged_by_labels=False,
    metric=None,
    training=None,
    checks={"tokenizer": CLASSIFICATION.checks["tokenizer"]},
)
