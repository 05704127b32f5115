"""What a folder's bundles and compressed checkpoints say of themselves, and what asking the bundles adds."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from os import fspath
from pathlib import Path
from typing import Any

from edgeformer.attention import APPROXIMATE_KERNELS
from edgeformer.checkpoints.source_index import TorchEngine, known_source, source_programs
from edgeformer.compress.budget.search import SEARCH_FILE, SENSITIVITY_FILE, Change, changes_between, format_counts
from edgeformer.compress.budget.sensitivity import Sensitivity
from edgeformer.convert.layer_plan import CHECKPOINT_FILE, LayerPlan
from edgeformer.convert.lengths import ChosenLengths
from edgeformer.convert.target import verification_engine
from edgeformer.evaluate.evaluate import Answers, answers_of, share_interval
from edgeformer.models.config import read_object
from edgeformer.tasks.task import task_metrics
from edgeformer_runtime.bench.measure import median_latencies_ms
from edgeformer_runtime.bundle import strict_json
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import MANIFEST_NAME, REPORT_FILE
from edgeformer_runtime.bundle.signature import NO_REQUIREMENT, Requirement
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import BundleError, EngineError, InputError
from edgeformer_runtime.interface import CountProgress, StrPath
from edgeformer_runtime.registry import load_attribute

REPORT_VERSION = 1
MAX_ITEMS = 2000
"""Points of a search, steps of a recipe, or layers and formats of a sensitivity."""


@dataclass(frozen=True)
class Variant:
    """One model in one form: a bundle, a point of a search, or a compressed checkpoint after a step.

    Attributes:
        name: relative to the folder; of points and steps with what they are.
        kind: "bundle", "search" or "checkpoint".
        target, precision: of bundles and points.
        size_bytes: of all its files.
        metric: the name of a task's metric; None where nothing was asked.
        value: of the metric, a fraction.
        agreement: share of answers that are the source's at fp32, of embedders the mean cosine to its embeddings; None
            where the source is not known.
        latency_ms: median of one run, one thread, on the machine that measured it.
        note: what a reader should know: a gate that refused it, say.
        changes: answers that are not the source's; None where they are not known.
        n: the number of examples that `value`, or else `agreement`, is of; None where it is not known.
        interval: what holds the metric's value with 95 %; None where it is not known.
        group: what it was measured with, and on: only variants of one group are compared.
        lengths: of texts, where its conversion chose them for some.
        refused: by gates, so it is never among the best.
    """

    name: str
    kind: str
    target: str | None = None
    precision: str | None = None
    size_bytes: int | None = None
    metric: str | None = None
    value: float | None = None
    agreement: float | None = None
    latency_ms: float | None = None
    note: str | None = None
    changes: tuple[Change, ...] | None = None
    n: int | None = None
    interval: tuple[float, float] | None = None
    group: str = ""
    lengths: ChosenLengths | None = None
    refused: bool = False


@dataclass(frozen=True)
class FolderReport:
    """Everything that the page shows.

    Attributes:
        folder: its name.
        variants: bundles first, then points of searches, then checkpoints.
        sensitivities: by the name of the checkpoint.
        recipes: the `edgeformer.json` of each compressed checkpoint, by its name.
        environment: what this report was made with.
        notes: what could not be read or asked, and what answers were compared with, a sentence each.
    """

    folder: str
    variants: tuple[Variant, ...]
    sensitivities: dict[str, Sensitivity]
    recipes: dict[str, dict[str, Any]]
    environment: dict[str, str]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The document that `report --json` prints."""
        return {"version": REPORT_VERSION, **asdict(self)}


def collect(
    folder: StrPath,
    data: StrPath | None = None,
    limit: int | None = None,
    progress: CountProgress | None = None,
    required: Requirement = NO_REQUIREMENT,
) -> FolderReport:
    """Read a folder. What cannot be read or asked is noted, and the rest is told.

    Args:
        folder: searched at any depth; hidden folders are left out. It may be a bundle itself.
        data: labelled, as `edgeformer eval` takes it: every bundle that takes it is asked, and timed beside all others
            in one run. None: only files are read.
        limit: of the data use so many examples.
        progress: called after each bundle.
        required: what each bundle must be.

    Raises:
        BundleError: something is required, and a bundle is not that.
        InputError: no folder, nothing in it, or data that none of its bundles can answer.
    """
    folder, data = Path(folder), None if data is None else fspath(data)
    if not folder.is_dir():
        raise InputError(f"expected a folder of bundles and compressed checkpoints, found no folder {folder}")
    places = _bundles_in(folder)
    checkpoints = _folders_with(folder, CHECKPOINT_FILE)
    if not places and not checkpoints:
        raise InputError(f"{folder} holds no bundle ({MANIFEST_NAME}) and no compressed checkpoint ({CHECKPOINT_FILE})")
    notes: list[str] = []
    with ExitStack() as stack:
        bundles: dict[str, Bundle] = {}
        for path in places:
            try:
                bundles[_name(folder, path)] = stack.enter_context(Bundle.open(path, required, allow_refused=True))
            except BundleError as error:
                if required != NO_REQUIREMENT:
                    raise
                notes.append(f"{_name(folder, path)} is left out: {error}")
        variants = [_bundle(name, bundle) for name, bundle in bundles.items()]
        if data is not None and bundles:
            variants = ask(variants, bundles, data, limit, notes, progress)
    recipes: dict[str, dict[str, Any]] = {}
    sensitivities: dict[str, Sensitivity] = {}
    for path in checkpoints:
        name = _name(folder, path)
        try:
            recipes[name] = read_object(path / CHECKPOINT_FILE)
            variants += [*_points(name, path), *_steps(name, recipes[name])]
            if (path / SENSITIVITY_FILE).is_file():
                sensitivities[name] = _sensitivity(path / SENSITIVITY_FILE)
        except InputError as error:
            notes.append(f"{name} is not told in full: {error}")
    return FolderReport(folder.resolve().name, tuple(variants), sensitivities, recipes, _environment(), tuple(notes))


def _bundles_in(folder: Path) -> list[Path]:
    """The folders of bundles; what lies inside one, such as a Core ML package, is none of its own."""
    found = _folders_with(folder, MANIFEST_NAME)
    return [path for path in found if not any(parent in found for parent in path.parents)]


def _folders_with(folder: Path, file: str) -> list[Path]:
    found = sorted(path.parent for path in folder.rglob(file))
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix() if path != folder else folder.resolve().name


def _bundle(name: str, bundle: Bundle) -> Variant:
    """What a bundle's own files say."""
    found = stated(bundle)
    return Variant(
        name,
        "bundle",
        bundle.manifest.target,
        bundle.manifest.precision,
        bundle.size_bytes,
        agreement=found.agreement,
        note="; ".join((*(["refused by its gates"] if bundle.refused else []), *found.problems)) or None,
        n=found.n,
        group="at conversion",
        lengths=ChosenLengths.from_json(found.lengths, bundle.manifest.target),
        refused=bool(bundle.refused),
    )


def _points(name: str, path: Path) -> list[Variant]:
    """The points of a checkpoint's search."""
    if not (path / SEARCH_FILE).is_file():
        return []
    document = read_object(path / SEARCH_FILE)
    try:
        _check_count(document["points"], f"{name}/{SEARCH_FILE}", "points")
        chosen = document["best"] if document["met"] else None
        examples = document.get("examples")
        return [
            _point(f"{name}: {point['stage']}, point {number}", document["target"], point, number == chosen, examples)
            for number, point in enumerate(document["points"])
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError(f"{name}/{SEARCH_FILE} is not what `edgeformer compress --budget` writes") from None


def _point(name: str, target: str, point: dict[str, Any], chosen: bool, examples: int | None) -> Variant:
    values = {metric: float(value) for metric, value in point["values"].items()}
    metric = next((each for name, each in task_metrics().items() if name in values), None)
    value = None if metric is None else values[metric.name]  # of one with its own interval more counts than is known
    is_share = metric is not None and metric.interval is None
    counted = examples if is_share and isinstance(examples, int) and examples > 0 else None
    return Variant(
        name,
        "search",
        str(target),
        format_counts(LayerPlan.from_json(point["plan"])),
        int(values["size"]) if "size" in values else None,
        None if metric is None else metric.name,
        value,
        values.get("agreement"),
        values.get("latency"),
        "chosen" if chosen else point["refused"] if point["refused"] is None else str(point["refused"]),
        tuple(Change(**{key: str(text) for key, text in change.items()}) for change in point["changes"]),
        examples if isinstance(examples, int) else None,
        None if value is None or counted is None else share_interval(value, counted),
        f"the search of {name.split(': ')[0]}",
        refused=not chosen and point["refused"] is not None,
    )


def _steps(name: str, recipe: dict[str, Any]) -> list[Variant]:
    """The accuracy after each step of a recipe, where the data for it was given."""
    try:
        _check_count(recipe.get("steps", []), f"{name}/{CHECKPOINT_FILE}", "steps")
        return [
            Variant(
                f"{name}: step {number}, {step['kind']}",
                "checkpoint",
                metric="accuracy",
                value=float(step["results"]["accuracy"]),
                group=f"the recipe of {name}",
            )
            for number, step in enumerate(recipe.get("steps", []), 1)
            if "accuracy" in step.get("results", {})
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError(f"{name}/{CHECKPOINT_FILE} is not what `edgeformer compress` writes") from None


def _sensitivity(file: Path) -> Sensitivity:
    found = Sensitivity.from_json(read_object(file), file.name)
    _check_count(found.costs, file.name, "costs")
    return found


def _check_count(items: Sequence[Any], where: str, what: str) -> None:
    """A page shows each; a million of them would take minutes."""
    if len(items) > MAX_ITEMS:
        raise InputError(f"{where} has {len(items)} {what}: expected {MAX_ITEMS} at most")


def _environment() -> dict[str, str]:
    found = {"machine": platform.machine(), "system": platform.system(), "python": platform.python_version()}
    for package in ("edgeformer", "torch", "ai-edge-litert", "onnxruntime", "executorch", "coremltools"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


# What a bundle's report.json says: any file may stand there, so nothing of it is believed before it is looked at.


MAX_BYTES = 4 << 20
MOST_PROBLEMS = 8
LONGEST_PROBLEM = 400


@dataclass(frozen=True)
class Stated:
    """What was found.

    Attributes:
        agreement: share of the inputs of the conversion that got the source's answer.
        n: how many these were.
        problems: of the gates, or what is wrong with the file.
        lengths: what stands there of lengths of texts, whatever it is.
    """

    agreement: float | None = None
    n: int | None = None
    problems: tuple[str, ...] = ()
    lengths: Any = None


def stated(bundle: Bundle) -> Stated:
    """What a bundle's conversion found, as far as the file says it in the right types."""
    entry = bundle.manifest.files.get(REPORT_FILE)
    if entry is None:
        return Stated()
    if entry.size > MAX_BYTES:
        return Stated(problems=(f"{REPORT_FILE} has {entry.size} bytes and was not read",))
    try:
        document: Any = strict_json.loads(bundle.read_bytes(REPORT_FILE), REPORT_FILE, MAX_BYTES)
    except BundleError as error:
        return Stated(problems=(f"{REPORT_FILE} was not read: {error}",))
    if not isinstance(document, dict):
        return Stated(problems=(f"{REPORT_FILE} was not read: expected an object",))
    agreement, problems = document.get("agreement"), document.get("problems")
    found = agreement if isinstance(agreement, dict) else {}
    told = [shorten(each, LONGEST_PROBLEM)[1:-1] for each in _list(problems)[:MOST_PROBLEMS] if isinstance(each, str)]
    share, n = _number(found.get("top1")), _number(found.get("n"))
    if share is not None and share <= 1 and n is not None and n >= 1 and n == int(n):
        return Stated(share, int(n), tuple(told), document.get("lengths"))
    return Stated(problems=tuple(told), lengths=document.get("lengths"))


def _number(value: Any) -> float | None:
    """A number from 0 to what a float holds exactly."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < 1 << 53 else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


# Asks all bundles of a folder about labelled data, and their checkpoints; times them beside one another.


def ask(
    variants: Sequence[Variant],
    bundles: Mapping[str, Bundle],
    data: str,
    limit: int | None,
    notes: list[str],
    progress: CountProgress | None,
) -> list[Variant]:
    """The variants of open bundles with their answers to the data and their latencies from one interleaved run.

    Changes are counted from the checkpoint's own answers in torch, as `eval` counts them; where it is not known here,
    from a bundle of it at fp32; without either they are left out. A bundle that cannot answer is noted and goes on as
    it is.

    Raises:
        InputError: no bundle can answer the data.
    """
    answered: dict[str, Answers] = {}
    refusals: list[str] = []
    for number, (name, bundle) in enumerate(bundles.items(), 1):
        try:
            answered[name] = answers_of(bundle, data, limit)
        except (InputError, EngineError) as error:
            refusals.append(f"{name} was not asked: {error}")
        if progress is not None:
            progress(number, len(bundles))
    if not answered:
        raise InputError(refusals[0])
    notes += refusals
    sources = _Sources(bundles, answered, data, limit, notes)
    runnable = [name for name in answered if verification_engine(bundles[name]) is None]
    times = dict(zip(runnable, median_latencies_ms([bundles[name] for name in runnable]), strict=True))
    return [
        _told(variant, answered[variant.name], sources.of(variant.name), times.get(variant.name), data)
        if variant.name in answered
        else variant
        for variant in variants
    ]


def _told(variant: Variant, own: Answers, source: Answers | None, latency_ms: float | None, data: str) -> Variant:
    n = len(own.given)
    interval = own.metric.interval
    return replace(
        variant,
        metric=own.metric.name,
        value=own.value,
        agreement=None if source is None else own.agreement_with(source),
        latency_ms=latency_ms,
        changes=None if source is None or own.metric.alike is not None else changes_between(source, own),
        n=n,
        interval=share_interval(own.value, n) if interval is None else load_attribute(interval)(own),
        group=f"{n} examples of {shorten(Path(data).name)[1:-1]}",
    )


class _Sources:
    """The answers of the checkpoints that bundles were made from; each is asked once."""

    def __init__(
        self,
        bundles: Mapping[str, Bundle],
        answered: Mapping[str, Answers],
        data: str,
        limit: int | None,
        notes: list[str],
    ) -> None:
        self._bundles, self._answered = bundles, answered
        self._data, self._limit, self._notes = data, limit, notes
        self._known: dict[str, Answers | None] = {}

    def of(self, name: str) -> Answers | None:
        """What the source of a bundle answers, or None where nobody knows."""
        key = _source_key(self._bundles[name])
        if key not in self._known:
            self._known[key] = self._from_checkpoint(name) or self._from_fp32(key)
        return self._known[key]

    def _from_checkpoint(self, name: str) -> Answers | None:
        bundle = self._bundles[name]
        found: list[str] = []
        try:
            checkpoint = known_source(bundle.manifest, None, found)
            if checkpoint is None:
                self._notes += [f"{name}: {note}" for note in found]
                return None
            engine = TorchEngine(source_programs(bundle.manifest, checkpoint))
            answers = answers_of(bundle, self._data, self._limit, engine=engine)
        except (InputError, EngineError) as error:
            self._notes.append(f"{name}: no comparison with the source model: {error}")
            return None
        rate = f"{answers.metric.name} {answers.value:.2%} of {len(answers.given)} examples"
        self._notes.append(f"the checkpoint {checkpoint.source.id} itself, in torch at fp32: {rate}")
        return answers

    def _from_fp32(self, key: str) -> Answers | None:
        for name, answers in self._answered.items():
            bundle = self._bundles[name]
            if bundle.manifest.precision == "fp32" and not bundle.refused and _source_key(bundle) == key:
                self._notes.append(f"answers are compared with {name}, which is the checkpoint's at fp32")
                return answers
        return None


def _source_key(bundle: Bundle) -> str:
    """Equal for bundles whose inputs and source programs are the same."""
    manifest = bundle.manifest
    exact = manifest.attention not in APPROXIMATE_KERNELS
    programs = [(each.name, each.inputs) for each in manifest.programs]
    tokenizer = getattr(manifest.preprocessing, "tokenizer", None) or getattr(
        manifest.postprocessing, "tokenizer", None
    )
    file = None if tokenizer is None else manifest.files[tokenizer].sha256
    known = (manifest.source.weights_sha256, exact or manifest.attention, programs, file)
    return repr((*known, manifest.preprocessing, manifest.postprocessing))
