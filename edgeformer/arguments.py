"""Arguments of the public functions: one value or several, and what is refused before torch is imported."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgeformer_runtime.bundle.folder import check_outside
from edgeformer_runtime.delivery import check_folder, check_names
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.interface import StrPath

if TYPE_CHECKING:
    from edgeformer_runtime.interface import Progress

Number = TypeVar("Number", int, float)


def several(values: Any) -> tuple[Any, ...]:
    """One value, or a sequence of them: each once, in their order."""
    if isinstance(values, (str, os.PathLike)) or not isinstance(values, Sequence):
        return (values,)
    return tuple(dict.fromkeys(values))


def at_least_one(names: str | Sequence[str], what: str) -> tuple[str, ...]:
    """Names of which there must be one.

    Raises:
        InputError: there is none.
    """
    found = several(names)
    if not found:
        raise InputError(f"expected at least one {what}, found none")
    return found


def rising(values: Number | Sequence[Number], kind: type[Number], option: str) -> tuple[Number, ...]:
    """Numbers, each once, the smallest first.

    Raises:
        InputError: something else than numbers.
    """
    found = several(values)
    allowed = (int,) if kind is int else (int, float)
    if any(not isinstance(each, allowed) or isinstance(each, bool) for each in found):
        raise InputError(f"expected {option} as {'whole ' if kind is int else ''}numbers, found {values!r}")
    return tuple(sorted(found))


def at(step: str, progress: Progress | None) -> Callable[[int, int], None] | None:
    """A callback that tells how far one step is."""
    return None if progress is None else partial(progress, step)


def check_compression(
    sources: Sequence[StrPath | None],
    target: str,
    formats: str | Sequence[str] | None,
    data: Sequence[StrPath | None],
    recipe: StrPath | None = None,
) -> tuple[str, ...] | None:
    """The formats of layers, after all that can be refused of a compression or a ranking of layers.

    Raises:
        InputError: an unknown name, a recipe that cannot be read, or data or a checkpoint that is not there.
    """
    from edgeformer.compress.recipe import load_recipe
    from edgeformer.convert.layer_plan import check_formats
    from edgeformer.convert.target import check_target

    check_target(target)
    layers = None if formats is None else several(formats)
    check_formats(layers or ())
    if recipe is not None:
        load_recipe(fspath(recipe))
    for each in data:
        check_data(each)
    for checkpoint in sources:
        check_source(checkpoint)
    return layers


def check_exists(path: StrPath, what: str) -> None:
    """Refuse a place where there is nothing."""
    if not Path(path).exists():
        raise InputError(f"no {what} at {path}: expected a {what}'s path")


def check_source(source: StrPath | None, revision: str | None = None) -> None:
    """Refuse a checkpoint that is not there; one of the hub is downloaded."""
    from edgeformer.checkpoints.sources import resolve_source

    if source is not None:
        resolve_source(source, revision)


def check_place(folder: StrPath) -> None:
    """Refuse a place for an output that is a file, lies in a bundle, or has no name in UTF-8."""
    check_names(folder)
    check_folder(Path(folder))
    check_outside(Path(folder))


def check_data(data: StrPath | None) -> None:
    """Refuse labelled data that is not there."""
    from edgeformer.data.labelled import locate

    if data is not None:
        locate(fspath(data))


def check_files(files: Mapping[str, StrPath | None]) -> None:
    """Refuse files that are not there, by what names them."""
    for what, file in files.items():
        if file is not None and not Path(file).exists():
            raise InputError(f"{what}: no file at {file}")


def check_limit(limit: int | None) -> None:
    """Refuse to measure on nothing."""
    if limit is not None and limit < 1:
        raise InputError(f"expected --limit as at least 1 example, found {limit}")
