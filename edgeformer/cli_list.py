"""`edgeformer list`: every name that the other commands take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.table import Table

from edgeformer_runtime.bundle.folder import check_outside
from edgeformer_runtime.cli.app import Json
from edgeformer_runtime.cli.console import out, print_json
from edgeformer_runtime.delivery import check_folder, check_names
from edgeformer_runtime.errors import InputError

if TYPE_CHECKING:
    from edgeformer.convert.options import ConvertOptions

_ALIASES = {"precision": ("targets",), "precisions": ("targets",), "model": ("zoo",), "models": ("zoo", "families")}


def list_names(
    kind: Annotated[
        str | None,
        typer.Argument(metavar="[KIND]", help="families, tasks, targets, zoo or recipes.", show_default="all"),
    ] = None,
    as_json: Json = False,
) -> None:
    """List what there is: families of models, tasks, targets with their precisions, the zoo and recipes."""
    from edgeformer_runtime.choices import check_choice

    found = _names()
    if kind is not None:
        check_choice(kind, found, "kind of names", _ALIASES)
        found = {kind: found[kind]}
    if as_json:
        print_json(found)
        return
    for title, entries in found.items():
        table = Table(title=title, title_justify="left", show_header=False)
        for name, says in entries.items():
            table.add_row(name, *([] if says is None else [says if isinstance(says, str) else ", ".join(says)]))
        out.print(table)


def _names() -> dict[str, dict[str, Any]]:
    """For each kind its names, with a line or a list on each where there is more to say. Nothing here imports torch."""
    from edgeformer.compress.recipe import load_recipe, shipped_recipes
    from edgeformer.convert.target import TARGETS
    from edgeformer.models.family import FAMILIES
    from edgeformer.zoo import ZOO
    from edgeformer_runtime.bundle.manifest import TASKS

    return {
        "families": dict.fromkeys(FAMILIES),
        "tasks": {name: f"{takes} to {gives}" for name, (takes, gives) in TASKS.items()},
        "targets": {name: list(target.precisions) for name, target in TARGETS.items()},
        "zoo": {name: entry.description for name, entry in ZOO.items()},
        "recipes": {name: load_recipe(name).description for name in shipped_recipes()},
    }


# Values of options: several with commas between them, and paths that are looked at before torch is imported.


Number = TypeVar("Number", int, float)


def numbers(text: str, kind: type[Number], option: str, example: str) -> tuple[Number, ...]:
    """Rising numbers from text with commas."""
    try:
        return tuple(sorted({kind(number) for number in text.split(",")}))
    except ValueError:
        raise InputError(f"expected {option} as numbers with commas, like {example}, found {text!r}") from None


def names(text: str | None) -> tuple[str, ...] | None:
    """Names from text with commas."""
    return None if text is None else several([text])


def several(texts: Sequence[str]) -> tuple[str, ...]:
    """Names from an option that may be repeated and may hold several with commas: each once, in their order."""
    return tuple(dict.fromkeys(name.strip() for text in texts for name in text.split(",")))


def check_exists(path: Path, what: str) -> None:
    """Refuse a place where there is nothing, before what reads it imports torch."""
    if not path.exists():
        raise InputError(f"no {what} at {path}: expected a {what}'s path")


def check_data(data: str | None) -> None:
    """Refuse labelled data that is not there."""
    from edgeformer.data.labelled import locate

    if data is not None:
        locate(data)


def check_source(source: str | None, revision: str | None = None) -> None:
    """Refuse a checkpoint that is not there; one of the hub is downloaded."""
    from edgeformer.checkpoints.sources import resolve_source

    if source is not None:
        resolve_source(source, revision)


def check_place(folder: Path) -> None:
    """Refuse a place for an output that is a file, lies in a bundle, or has no name in UTF-8."""
    check_names(folder)
    check_folder(folder)
    check_outside(folder)


def check_conversion(options: ConvertOptions) -> None:
    """Refuse a place, files or a checkpoint that `convert` could not use; the hub, if any, is asked last."""
    from edgeformer.convert.layer_plan import LayerPlan

    check_place(options.out)
    files = {"--labels": options.labels_file, "--plan": options.plan, "--calibration": options.calibration}
    for option, file in files.items():
        if file is not None and not file.exists():
            raise InputError(f"{option}: no file at {file}")
    if options.plan is not None:
        LayerPlan.read(options.plan)
    check_data(options.evaluation)
    check_source(options.source, options.revision)
