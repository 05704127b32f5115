"""Makes plans' bundles and measures them: answers, size, and latency beside the source at fp32 in one run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from edgeformer.compress.budget.budget import AGREEMENT
from edgeformer.compress.budget.search import Point, changes_between
from edgeformer.compress.model import Model, write_model
from edgeformer.convert.convert import ConvertOptions, convert
from edgeformer.convert.layer_plan import CHECKPOINT_FILE, CHECKPOINT_KEY, LayerPlan
from edgeformer.convert.result import ConversionResult, Converted
from edgeformer.convert.target import verification_engine
from edgeformer.evaluate.evaluate import Answers, answers_of
from edgeformer.models.program import DEFAULT_SEQ_LENS
from edgeformer.progress import Progress, silent
from edgeformer_runtime.bench.measure import median_latencies_ms
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.errors import InputError

QUANTIZE = "quantize"
FP32, MIXED = "fp32", "mixed"


@dataclass(frozen=True)
class Conversion:
    """How bundles are made, and what they are asked.

    Attributes:
        target: of `TARGETS`.
        data: labelled, as `edgeformer eval` takes it.
        limit: of the data use so many examples; None: all.
        seq_lens: of texts.
        audio_seconds: of speech; None: the target's own choice.
    """

    target: str
    data: str
    limit: int | None = None
    seq_lens: tuple[int, ...] = DEFAULT_SEQ_LENS
    audio_seconds: tuple[float, ...] | None = None


class BundleEvaluator:
    """Bundles of one model, all measured against the source.

    Attributes:
        fp32: the model's own point at fp32.
    """

    def __init__(
        self,
        model: Model,
        stage: str,
        conversion: Conversion,
        folder: Path,
        source: BundleEvaluator | None = None,
        progress: Progress = silent,
    ) -> None:
        """Make the bundle at fp32.

        Args:
            model: whose bundles are made.
            stage: what was done to it, for its points.
            conversion: how.
            folder: a new one for everything that is made; the caller removes it.
            source: of the source model; None: this is it.
            progress: called with each step of a conversion, and with a line before bundles are asked.

        Raises:
            InputError: the model cannot be converted, or the data not be used.
        """
        self._model, self._stage, self._conversion, self._folder = model, stage, conversion, folder
        self._progress = progress
        self._made = 0
        self._checkpoint = folder / "checkpoint"
        folder.mkdir(parents=True)
        write_model(model, self._checkpoint)
        (row,) = self._convert(FP32)
        if not row.ok:
            raise InputError(
                f"{model.checkpoint.source.id} cannot be converted at fp32: {row.problems[0]}: "
                "edgeformer convert --keep-refused keeps the bundle to look into"
            )
        self._bundle = row.path
        self._source_bundle = row.path if source is None else source._bundle
        self._answers: Answers | None = None if source is None else source._answers
        self.fp32 = self._measured(row, LayerPlan(default=FP32))

    @property
    def examples(self) -> int:
        """The number of examples that bundles are asked."""
        return 0 if self._answers is None else len(self._answers.given)

    def measure(self, plan: LayerPlan) -> Point:
        """Make a plan's bundle and measure it; one that fails a gate gives a point without values."""
        text = json.dumps({"version": 1, CHECKPOINT_KEY: plan.to_json()})
        (self._checkpoint / CHECKPOINT_FILE).write_text(text, encoding="utf-8")
        (row,) = self._convert(MIXED)
        if not row.ok:
            return Point(self._stage, plan, {}, refused=row.problems[0])
        return self._measured(row, plan)

    def _convert(self, precision: str) -> ConversionResult:
        self._made += 1
        out = self._folder / f"bundles-{self._made}"
        options = ConvertOptions(
            source=str(self._checkpoint),
            out=out,
            targets=(self._conversion.target,),
            precisions=(precision,),
            seq_lens=self._conversion.seq_lens,
            audio_seconds=self._conversion.audio_seconds,
            name=self._stage,
        )
        return convert(options, lambda step, *how_far: self._progress(f"{self._stage}: {step}", *how_far))

    def _measured(self, row: Converted, plan: LayerPlan) -> Point:
        """A delivered bundle's point."""
        with Bundle.open(row.path) as bundle, Bundle.open(self._source_bundle) as source:
            self._progress(f"{self._stage}: asking the bundle of {row.size_bytes / 1e6:.2f} MB", 0, 0)
            answers = answers_of(bundle, self._conversion.data, self._conversion.limit)
            reference = self._answers = self._answers or answers
            same = answers.same_as(reference)
            times = None if verification_engine(bundle) else median_latencies_ms((source, bundle))
        metric = answers.metric
        values = {
            metric.name: answers.value,
            metric.change: metric.loss(answers.value, reference.value),
            AGREEMENT: sum(same) / len(same),
            "size": float(row.size_bytes),
        }
        if times is not None:
            values["latency"] = times[1]
        changes = changes_between(reference, answers)
        return Point(self._stage, plan, values, None if times is None else times[0], None, changes)
