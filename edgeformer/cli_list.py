"""`edgeformer list`: every name that the other commands take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from edgeformer_runtime.cli.app import Json
from edgeformer_runtime.cli.console import out, print_json

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


# Values of options: several with commas between them.


def names(text: str | None) -> tuple[str, ...] | None:
    """Names from text with commas."""
    return None if text is None else several([text])


def several(texts: Sequence[str]) -> tuple[str, ...]:
    """Names from an option that may be repeated and may hold several with commas: each once, in their order."""
    return tuple(dict.fromkeys(name.strip() for text in texts for name in text.split(",")))
