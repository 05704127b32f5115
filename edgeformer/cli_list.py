"""Names that commands take: how the shell completes them, several in one option, and `edgeformer list`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from edgeformer_runtime.cli.app import Json
from edgeformer_runtime.cli.console import out, print_json


def completing(kind: str) -> Callable[[str], list[str]]:
    """What completes the last of several names with commas between them.

    Args:
        kind: of names, as `list` takes it, or another of `_choices`.
    """

    def complete(incomplete: str) -> list[str]:
        before, comma, start = incomplete.rpartition(",")
        return [before + comma + name for name in _choices(kind) if name.startswith(start)]

    return complete


Source = Annotated[
    str,
    typer.Argument(help="Checkpoint: a folder, a hub id, or a name in the zoo.", autocompletion=completing("zoo")),
]


def _choices(kind: str) -> Iterable[str]:
    from edgeformer.attention import ALL_KERNELS
    from edgeformer.convert.layer_plan import FORMATS
    from edgeformer.convert.target import PRECISIONS
    from edgeformer.models.program import METHODS, WINDOWS
    from edgeformer.tasks.task import TASKS

    names = _names()
    choices: dict[str, Iterable[str]] = {
        "kinds": names,
        "precisions": PRECISIONS,
        "attention": ALL_KERNELS,
        "methods": METHODS,
        "windows": WINDOWS,
        "peers": dict.fromkeys(peer for task in TASKS.values() for peer in task.peers.names),
        "formats": FORMATS,
    }
    return choices.get(kind) or names[kind]


def names(text: str | None) -> tuple[str, ...] | None:
    """Names from text with commas."""
    return None if text is None else several([text])


def several(texts: Sequence[str]) -> tuple[str, ...]:
    """Names from an option that may be repeated and may hold several with commas: each once, in their order."""
    return tuple(dict.fromkeys(name.strip() for text in texts for name in text.split(",")))


# `edgeformer list`.


_ALIASES = {"precision": ("targets",), "precisions": ("targets",), "model": ("zoo",), "models": ("zoo", "families")}


def list_names(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="[KIND]",
            help="Kind of names: families, tasks, targets, zoo or recipes.",
            show_default="all",
            autocompletion=completing("kinds"),
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List names: model families, tasks, targets with their precisions, the zoo and recipes."""
    from edgeformer_runtime.registry import check_choice

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
