"""`compress --budget`: the whole chain, from the mildest means to the strongest, until a real bundle meets the budget.

First formats per layer alone; then, each from the source, the recipes of the task: pruned and taught again, then a
smaller student. What a recipe gives is searched in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from os import fspath
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from edgeformer.checkpoints.source_index import remember
from edgeformer.compress.budget.budget import AGREEMENT, Budget, describe, quantities
from edgeformer.compress.budget.search import (
    DEFAULT_BUNDLES,
    PLAN_FILE,
    SEARCH_FILE,
    SENSITIVITY_FILE,
    Point,
    SearchResult,
    changes_between,
    format_counts,
    frontier,
    search,
    unreachable,
)
from edgeformer.compress.budget.sensitivity import Probe, Sensitivity, cached_sensitivity, make_probe
from edgeformer.compress.compress import REPORT_FILE, REPORT_VERSION, CompressOptions, compress
from edgeformer.compress.corpus import read_data
from edgeformer.compress.model import Model, open_model, write_model
from edgeformer.compress.quantize_aware import fake_quantized
from edgeformer.compress.recipe import load_recipe
from edgeformer.convert.convert import ConvertOptions, convert
from edgeformer.convert.layer_plan import CHECKPOINT_FILE, CHECKPOINT_KEY, LayerPlan, check_formats
from edgeformer.convert.result import ConversionResult, Converted
from edgeformer.convert.target import TARGETS, check_target, verification_engine
from edgeformer.evaluate.evaluate import Answers, answers_of
from edgeformer.models.config import read_object
from edgeformer.models.family import LONGEST_DEFAULT
from edgeformer.tasks.task import TASKS
from edgeformer_runtime.bench.measure import median_latencies_ms
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.delivery import alone, put, work_folder
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.interface import Progress, Shown, silent

SEARCH_VERSION = 1
DEFAULT_EXAMPLES = 128

_PACKAGES = ("edgeformer", "safetensors", "tokenizers", "torch")


@dataclass(frozen=True)
class ChainOptions:
    """What `compress --budget` is asked for.

    Attributes:
        source: a checkpoint, as `open_checkpoint` takes it.
        budget: what has to hold.
        data: labelled, to rank layers on and to train on.
        out: the folder to write, which must not exist.
        conversion: how bundles are made, and the data that they are asked.
        formats: that layers may have besides fp32; None: the target's `layer_formats`.
        recipes: that may be run; None: those of the task.
        examples: of the data, to rank layers on.
        bundles: to make at most of each stage.
        seed: of every random number.
    """

    source: str
    budget: Budget
    data: str
    out: Path
    conversion: Conversion
    formats: tuple[str, ...] | None = None
    recipes: tuple[str, ...] | None = None
    examples: int = DEFAULT_EXAMPLES
    bundles: int = DEFAULT_BUNDLES
    seed: int = 0

    def __post_init__(self) -> None:
        # A text or any os.PathLike is taken, too.
        for name, plain in (("source", fspath), ("data", fspath), ("out", Path)):
            object.__setattr__(self, name, plain(getattr(self, name)))
        check_formats(self.formats or ())
        check_target(self.conversion.target)
        for name in ("examples", "bundles"):
            if getattr(self, name) < 1:
                raise InputError(f"expected at least 1 of {name}, found {getattr(self, name)}")


@dataclass(frozen=True, repr=False)
class Chain(Shown):
    """What a search for a budget found.

    Attributes:
        path: the folder that was written; None where the budget was not met.
        found: the points of all stages, and the one that was taken or is nearest.
        report: the content of search.json.
        problem: what is out of reach, and the nearest point, in a line; None where the budget was met.
    """

    path: Path | None
    found: SearchResult
    report: dict[str, Any]
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """What `compress --budget --json` prints: the report."""
        return self.report

    def tables(self) -> list[Table]:
        """A row for each bundle that was made, the chosen one marked."""
        points = self.found.points
        known = [name for name in quantities() if any(name in point.values for point in points)]
        title = f"{self.path or 'not met'}, asked {self.report['examples']} examples"
        table = Table("stage", "layers by format", *known, "of fp32's latency", "", title=title)
        for point in points:
            values = [describe(name, point.values[name]) if name in point.values else "" for name in known]
            mark = "chosen" if point is self.found.best and self.found.met else point.refused or ""
            table.add_row(point.stage, format_counts(point.plan), *values, _latency_ratio(point), mark)
        return [table]


def _latency_ratio(point: Point) -> str:
    """A bundle's latency as a part of its source's at fp32; empty where either was not measured."""
    if not point.fp32_latency_ms or "latency" not in point.values:
        return ""
    return f"{point.values['latency'] / point.fp32_latency_ms:.2f}"


@dataclass(frozen=True)
class _Stage:
    """One means: a model, its sensitivity, and what was found."""

    model: Model
    sensitivity: Sensitivity
    found: SearchResult
    report: dict[str, Any]
    examples: int


def compress_to_budget(options: ChainOptions, progress: Progress = silent) -> Chain:
    """Find the mildest means that meet a budget, and write the checkpoint with its plan.

    Args:
        options: what to make of what.
        progress: called with each step, and within one after each measurement or update.

    Raises:
        InputError: anything that is not as it should be; nothing is then at `options.out`. A budget that cannot be met
            is no error here: see `Chain.path`.
    """
    if options.out.exists():
        raise InputError(f"{options.out} exists: name a new folder, or remove it first")
    model = open_model(options.source)
    options.budget.check_task(model.checkpoint.task)
    training = TASKS[model.checkpoint.task].training
    assert training is not None  # `open_model` refuses other tasks
    recipes = training.recipes if options.recipes is None else options.recipes
    for recipe in recipes:
        load_recipe(recipe)  # refused now, not after the search that comes first
    with work_folder(options.out.parent, create=True) as work, alone(options.out):
        job = _Job(options, work, progress)
        try:
            stages = _stages(job, model, recipes)
        finally:
            # Conversions have noted copies, which go now, as the place of these weights.
            remember(model.checkpoint)
        found = _best(options.budget, stages)
        report = job.report(found, stages)
        if not found.met or found.best is None:
            return Chain(None, found, report, unreachable(options.budget, found))
        result = work / "result"
        _write(result, stages[-1], found.best, options.budget, report)
        put(result, options.out)
    return Chain(options.out, found, report)


def _stages(job: _Job, model: Model, recipes: Sequence[str]) -> list[_Stage]:
    """Formats alone, then recipe after recipe until the budget is met."""
    stages = [job.quantize(model, QUANTIZE, {})]
    for recipe in recipes:
        if stages[-1].found.met:
            break
        made = job.compressed(recipe)
        stages.append(job.quantize(open_model(str(made)), Path(recipe).stem, read_object(made / REPORT_FILE)))
    return stages


class _Job:
    """The stages of one command, which share the source's bundle and answers."""

    def __init__(self, options: ChainOptions, work: Path, progress: Progress) -> None:
        self._options, self._work, self._progress = options, work, progress
        self._formats = options.formats or TARGETS[options.conversion.target].layer_formats
        self._source: BundleEvaluator | None = None

    def compressed(self, recipe: str) -> Path:
        """Run a recipe on the source."""
        options = self._options
        out = self._work / f"made-{Path(recipe).stem}"
        wanted = CompressOptions(options.source, recipe, options.data, out, seed=options.seed)
        return compress(wanted, self._progress).path

    def quantize(self, model: Model, stage: str, report: dict[str, Any]) -> _Stage:
        """Search formats for a model."""
        options = self._options
        data, notes = read_data(options.data, model.checkpoint)
        for note in notes:
            self._say(f"note: {note}")
        data = data.limited(options.examples)
        target = options.conversion.target

        @cache
        def probe() -> Probe:
            return make_probe(model, data)

        self._say(f"{stage}: what each layer costs, on {len(data)} examples")
        progress = partial(self._progress, f"{stage}: sensitivity")
        costs = cached_sensitivity(model, probe, data.sha256(), target, self._formats, progress)
        bench = BundleEvaluator(
            model, stage, options.conversion, self._work / f"bench-{stage}", self._source, self._progress
        )
        self._source = self._source or bench
        if options.budget.limit("latency") is not None and "latency" not in bench.fp32.values:
            raise InputError(f"budget: {target} does not run on this machine: expected a budget without latency")
        self._say(str(bench.fp32))

        def predicted(plan: LayerPlan) -> Mapping[str, float]:
            with fake_quantized(model.module, plan, target):
                reading = probe().measure()
            return _expected(bench.fp32, probe(), reading.value, reading.agreement)

        def measured(plan: LayerPlan) -> Point:
            point = bench.measure(plan)
            self._say(str(point))
            return point

        found = search(options.budget, frontier(costs), predicted, measured, bench.fp32, options.bundles)
        return _Stage(model, costs, found, report, bench.examples)

    def report(self, found: SearchResult, stages: list[_Stage]) -> dict[str, Any]:
        """The content of search.json."""
        conversion = self._options.conversion
        return {
            "version": SEARCH_VERSION,
            "budget": str(self._options.budget),
            "met": found.met,
            "target": conversion.target,
            "formats": list(self._formats),
            "best": None if found.best is None else found.points.index(found.best),
            "examples": stages[0].examples,
            "points": [point.to_json() for point in found.points],
            "sensitivity": {stage.found.points[0].stage: stage.sensitivity.to_json() for stage in stages},
            "versions": {package: version(package) for package in _PACKAGES},
        }

    def _say(self, line: str) -> None:
        self._progress(line, 0, 0)


def _expected(fp32: Point, probe: Probe, value: float, agreement: float) -> dict[str, float]:
    """Qualities that a bundle may have, from what torch found on other examples: fp32's, changed by as much."""
    metric, was = probe.metric, probe.reference.value
    expected = {
        metric.name: fp32.values[metric.name] + value - was,
        metric.change: fp32.values[metric.change] + metric.loss(value, was),
    }
    if probe.predicts_agreement:
        expected[AGREEMENT] = fp32.values[AGREEMENT] * agreement
    return expected


def _best(budget: Budget, stages: list[_Stage]) -> SearchResult:
    """All stages as one: the last one's best where it meets the budget, or else the nearest of all."""
    points = tuple(point for stage in stages for point in stage.found.points)
    last = stages[-1].found
    if last.met:
        return SearchResult(points, last.best, True)
    bests = [stage.found.best for stage in stages if stage.found.best is not None]
    return SearchResult(points, min(bests, key=lambda point: budget.distance(point.values), default=None), False)


def _write(folder: Path, stage: _Stage, best: Point, budget: Budget, report: dict[str, Any]) -> None:
    """The checkpoint with its plan, ready for convert, and what was found on the way."""
    write_model(stage.model, folder, _stored(stage.model))
    source = stage.model.checkpoint.source
    head = stage.report or {
        "version": REPORT_VERSION,
        "source": {"id": source.id, "revision": source.revision, "weights_sha256": source.weights_sha256},
    }
    document = {**head, "budget": str(budget), CHECKPOINT_KEY: best.plan.to_json()}
    for name, content in (
        (REPORT_FILE, document),
        (PLAN_FILE, best.plan.to_json()),
        (SEARCH_FILE, report),
        (SENSITIVITY_FILE, stage.sensitivity.to_json()),
    ):
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        (folder / name).write_text(text + "\n", encoding="utf-8")


def _stored(model: Model) -> torch.dtype:
    """float16 where that loses nothing, as a source that was stored so."""
    tensors = (tensor for tensor in model.module.state_dict().values() if tensor.is_floating_point())
    exact = all(torch.equal(tensor.half().float(), tensor) for tensor in tensors)
    return torch.float16 if exact else torch.float32


# The bundles of plans, made and measured: answers, size, and latency beside the source at fp32 in one run.


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
    seq_lens: tuple[int, ...] = LONGEST_DEFAULT
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
