"""`edgeformer list`: every name that the other commands take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from edgeformer_runtime.cli.app import Json, numbers
from edgeformer_runtime.cli.console import out, print_json
from edgeformer_runtime.errors import InputError

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
    from edgeformer_runtime.tasks.task import TASKS

    return {
        "families": dict.fromkeys(FAMILIES),
        "tasks": {name: f"{task.takes.kind} to {task.gives.kind}" for name, task in TASKS.items()},
        "targets": {name: list(target.precisions) for name, target in TARGETS.items()},
        "zoo": {name: entry.description for name, entry in ZOO.items()},
        "recipes": {name: load_recipe(name).description for name in shipped_recipes()},
    }


# Values of options: several with commas between them, and paths that are looked at before torch is imported.


def seq_lens_of(text: str) -> tuple[int, ...]:
    """Rising lengths from `--seq-len`'s text with commas."""
    return tuple(sorted(numbers(text, int, "--seq-len", "32,64,128")))


def audio_seconds_of(text: str | None) -> tuple[float, ...] | None:
    """Rising lengths from `--audio-seconds`' text with commas; None: it was not given."""
    return None if text is None else tuple(sorted(numbers(text, float, "--audio-seconds", "5,10,30")))


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


def check_files(files: Mapping[str, Path | None]) -> None:
    """Refuse files that are not there, by what names them."""
    for what, file in files.items():
        if file is not None and not file.exists():
            raise InputError(f"{what}: no file at {file}")
