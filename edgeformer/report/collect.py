"""What a folder's bundles and compressed checkpoints say of themselves, and what asking the bundles adds."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgeformer.compression.answers import Answers, answers_of
from edgeformer.compression.search import SEARCH_FILE, SENSITIVITY_FILE, Change, changes_between, format_counts
from edgeformer.compression.sensitivity import Sensitivity
from edgeformer.compression.workbench import interleaved_ms
from edgeformer.json_files import read_object
from edgeformer.layer_plan import CHECKPOINT_FILE, LayerPlan
from edgeformer.targets import verification_engine
from edgeformer_runtime.bundle import Bundle
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.manifest import MANIFEST_NAME
from edgeformer_runtime.requirement import NO_REQUIREMENT, Requirement

REPORT_VERSION = 1
BUNDLE_REPORT_FILE = "report.json"

Progress = Callable[[int, int], None]
"""Called with the number of finished bundles and of all of them."""


@dataclass(frozen=True)
class Variant:
    """One model in one form: a bundle, a point of a search, or a compressed checkpoint after a step.

    Attributes:
        name: relative to the folder; of points and steps with what they are.
        kind: "bundle", "search" or "checkpoint".
        target, precision: of bundles and points.
        size_bytes: of all its files.
        metric: "accuracy" or "wer"; None where nothing was asked.
        value: of the metric, a fraction.
        agreement: share of answers that are the source's at fp32.
        latency_ms: median of one run, one thread, on the machine that measured it.
        note: what a reader should know: a gate that refused it, say.
        changes: answers that are not the source's; None where they are not known.
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


@dataclass(frozen=True)
class FolderReport:
    """Everything that the page shows.

    Attributes:
        folder: its name.
        variants: bundles first, then points of searches, then checkpoints.
        sensitivities: by the name of the checkpoint.
        recipes: the `edgeformer.json` of each compressed checkpoint, by its name.
        environment: what this report was made with.
    """

    folder: str
    variants: tuple[Variant, ...]
    sensitivities: dict[str, Sensitivity]
    recipes: dict[str, dict[str, Any]]
    environment: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The document that `report --json` prints."""
        return {"version": REPORT_VERSION, **asdict(self)}


def collect(
    folder: Path,
    data: str | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
    required: Requirement = NO_REQUIREMENT,
) -> FolderReport:
    """Read a folder.

    Args:
        folder: searched at any depth; hidden folders are left out.
        data: labelled, as `edgeformer eval` takes it: every bundle is asked, and timed beside all others in one run.
            The first fp32 bundle, or else the first, is what changes are counted from. None: only files are read.
        limit: of the data use so many examples.
        progress: called after each bundle.
        required: what each bundle must be.

    Raises:
        BundleError: one of the bundles is spoiled, or not what is required.
        InputError: no folder, nothing in it, or something that cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"expected a folder of bundles and compressed checkpoints, found no folder {folder}")
    bundles = _folders_with(folder, MANIFEST_NAME)
    checkpoints = _folders_with(folder, CHECKPOINT_FILE)
    if not bundles and not checkpoints:
        raise InputError(f"{folder} holds no bundle ({MANIFEST_NAME}) and no compressed checkpoint ({CHECKPOINT_FILE})")
    if data:
        variants = _asked(folder, bundles, data, limit, progress, required)
    else:
        variants = [_bundle(folder, each, required) for each in bundles]
    recipes: dict[str, dict[str, Any]] = {}
    sensitivities: dict[str, Sensitivity] = {}
    for path in checkpoints:
        name = _name(folder, path)
        recipes[name] = read_object(path / CHECKPOINT_FILE)
        variants += [*_points(name, path), *_steps(name, recipes[name])]
        if (path / SENSITIVITY_FILE).is_file():
            sensitivities[name] = Sensitivity.from_json(read_object(path / SENSITIVITY_FILE), SENSITIVITY_FILE)
    return FolderReport(folder.resolve().name, tuple(variants), sensitivities, recipes, _environment())


def pareto(variants: Sequence[Variant]) -> tuple[Variant, ...]:
    """Those to which no other is equal or better in value, size and latency at once; what is unknown is not compared.

    Variants without a value or a size are never among them.
    """
    complete = [each for each in variants if each.value is not None and each.size_bytes is not None]
    return tuple(each for each in complete if not any(_dominates(other, each) for other in complete))


def _dominates(one: Variant, other: Variant) -> bool:
    if one is other or one.metric != other.metric:
        return False
    sign = 1 if one.metric == "wer" else -1
    pairs: list[tuple[float, float]] = [
        (sign * value, sign * against)
        for value, against in ((one.value, other.value),)
        if value is not None and against is not None
    ]
    for mine, theirs in ((one.size_bytes, other.size_bytes), (one.latency_ms, other.latency_ms)):
        if mine is not None and theirs is not None:
            pairs.append((mine, theirs))
    return all(mine <= theirs for mine, theirs in pairs) and any(mine < theirs for mine, theirs in pairs)


def _folders_with(folder: Path, file: str) -> list[Path]:
    found = sorted(path.parent for path in folder.rglob(file))
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix() if path != folder else folder.resolve().name


def _bundle(folder: Path, path: Path, required: Requirement) -> Variant:
    """What a bundle's own files say."""
    with Bundle.open(path, required) as bundle:
        manifest = bundle.manifest
        own = json.loads(bundle.read_bytes(BUNDLE_REPORT_FILE)) if BUNDLE_REPORT_FILE in manifest.files else {}
        agreement = own.get("agreement") or {}
        return Variant(
            _name(folder, path),
            "bundle",
            manifest.target,
            manifest.precision,
            bundle.size_bytes,
            agreement=agreement.get("top1"),
            note="; ".join(own.get("problems", [])) or None,
        )


def _asked(
    folder: Path,
    paths: Sequence[Path],
    data: str,
    limit: int | None,
    progress: Progress | None,
    required: Requirement,
) -> list[Variant]:
    """Bundles' files, their answers, and their latencies from one interleaved run."""
    variants = [_bundle(folder, path, required) for path in paths]
    with ExitStack() as stack:
        bundles = [stack.enter_context(Bundle.open(path, required)) for path in paths]
        answers: list[Answers] = []
        for number, bundle in enumerate(bundles, 1):
            answers.append(answers_of(bundle, data, limit))
            if progress is not None:
                progress(number, len(bundles))
        runnable = [number for number, bundle in enumerate(bundles) if verification_engine(bundle) is None]
        times = dict(zip(runnable, interleaved_ms([bundles[number] for number in runnable]), strict=True))
    if not answers:
        return variants
    first = next((number for number, each in enumerate(variants) if each.precision == "fp32"), 0)
    return [
        replace(
            variant,
            metric=own.metric,
            value=own.value,
            agreement=sum(own.same_as(answers[first])) / len(own.given),
            latency_ms=times.get(number),
            changes=changes_between(answers[first], own),
        )
        for number, (variant, own) in enumerate(zip(variants, answers, strict=True))
    ]


def _points(name: str, path: Path) -> list[Variant]:
    """The points of a checkpoint's search."""
    if not (path / SEARCH_FILE).is_file():
        return []
    document = read_object(path / SEARCH_FILE)
    try:
        chosen = document["best"] if document["met"] else None
        return [
            _point(f"{name}: {point['stage']}, point {number}", document["target"], point, number == chosen)
            for number, point in enumerate(document["points"])
        ]
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{name}/{SEARCH_FILE} is not what `edgeformer compress --budget` writes") from None


def _point(name: str, target: str, point: dict[str, Any], chosen: bool) -> Variant:
    values = point["values"]
    metric = next((each for each in ("accuracy", "wer") if each in values), None)
    return Variant(
        name,
        "search",
        target,
        format_counts(LayerPlan.from_json(point["plan"])),
        int(values["size"]) if "size" in values else None,
        metric,
        None if metric is None else values[metric],
        values.get("agreement"),
        values.get("latency"),
        "chosen" if chosen else point["refused"],
        tuple(Change(**change) for change in point["changes"]),
    )


def _steps(name: str, recipe: dict[str, Any]) -> list[Variant]:
    """The accuracy after each step of a recipe, where the data for it was given."""
    return [
        Variant(
            f"{name}: step {number}, {step['kind']}", "checkpoint", metric="accuracy", value=step["results"]["accuracy"]
        )
        for number, step in enumerate(recipe.get("steps", []), 1)
        if "accuracy" in step.get("results", {})
    ]


def _environment() -> dict[str, str]:
    found = {"machine": platform.machine(), "system": platform.system(), "python": platform.python_version()}
    for package in ("edgeformer", "torch", "ai-edge-litert", "onnxruntime", "executorch", "coremltools"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
