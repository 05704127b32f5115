"""What a folder's bundles and compressed checkpoints say of themselves, and what asking the bundles adds."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from os import fspath
from pathlib import Path
from typing import Any

from edgeformer.compress.budget.search import SEARCH_FILE, SENSITIVITY_FILE, Change, format_counts
from edgeformer.compress.budget.sensitivity import Sensitivity
from edgeformer.convert.layer_plan import CHECKPOINT_FILE, LayerPlan
from edgeformer.models.config import read_object
from edgeformer.report.ask import Progress, ask
from edgeformer.report.stated import stated
from edgeformer.report.variant import Variant, share_interval
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import MANIFEST_NAME
from edgeformer_runtime.bundle.requirement import NO_REQUIREMENT, Requirement
from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.path_field import StrPath

REPORT_VERSION = 1
MAX_ITEMS = 2000
"""Points of a search, steps of a recipe, or layers and formats of a sensitivity."""


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
    progress: Progress | None = None,
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
    metric = next((each for each in ("accuracy", "wer") if each in values), None)
    value = None if metric is None else values[metric]
    # Of word errors the words count, which are not in the file.
    counted = examples if metric == "accuracy" and isinstance(examples, int) and examples > 0 else None
    return Variant(
        name,
        "search",
        str(target),
        format_counts(LayerPlan.from_json(point["plan"])),
        int(values["size"]) if "size" in values else None,
        metric,
        value,
        values.get("agreement"),
        values.get("latency"),
        "chosen" if chosen else point["refused"] if point["refused"] is None else str(point["refused"]),
        tuple(Change(**{key: str(text) for key, text in change.items()}) for change in point["changes"]),
        examples if isinstance(examples, int) else None,
        None if value is None or counted is None else share_interval(value, counted),
        f"the search of {name.split(': ')[0]}",
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
