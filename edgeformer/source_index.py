"""Finds a bundle's source again: where this user converted it from, in the zoo, or where the user says it is.

Bundles name their source by hash and never by a path of the machine that made them.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import cast

from edgeformer.checkpoints import Checkpoint, open_checkpoint
from edgeformer.sentence_files import NO_PROMPT
from edgeformer.zoo import ZOO
from edgeformer_runtime.cache import cache_folder
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.manifest import Manifest, Source

SOURCE_ATTENTION = "fused"
"""The attention kernel of source models: they run in torch, where it is the fastest; all of the table are exact."""


def remember(checkpoint: Checkpoint) -> None:
    """Note the folder of a checkpoint under its weight hash."""
    path = _index_path()
    index = {**_read(path), checkpoint.source.weights_sha256: str(checkpoint.folder.resolve())}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        json.dump(index, file, indent=2, sort_keys=True)
    Path(file.name).replace(path)


def find(source: Source) -> Path:
    """The folder, or weight file alone, that held the weights of a bundle's source when it was converted here.

    A bundle that was made from the zoo finds it on every machine.

    Raises:
        InputError: this user has not converted that checkpoint on this machine, or its folder is gone.
    """
    folder = _read(_index_path()).get(source.weights_sha256)
    if folder is not None and Path(folder).exists():
        return Path(folder)
    zoo, _, name = source.id.partition(":")
    if zoo == "zoo" and name in ZOO:
        return ZOO[name].folder
    raise InputError(f"the checkpoint {source.id} of this bundle is not known here: name it with --source")


def open_source(manifest: Manifest, source: str | None = None) -> Checkpoint:
    """Open the checkpoint that a bundle was made from, for the bundle's task.

    Args:
        manifest: the bundle's.
        source: a folder, a weight file, a hub id or a zoo name; None: where `find` finds it.

    Raises:
        InputError: it is not known here, is no checkpoint, or holds other weights than the bundle was made from.
    """
    checkpoint = open_checkpoint(source or str(find(manifest.source)), task=manifest.task, prompt=NO_PROMPT)
    if checkpoint.source.weights_sha256 != manifest.source.weights_sha256:
        raise InputError(f"{source or checkpoint.folder} does not hold the weights that {manifest.name} was made from")
    return checkpoint


def known_source(manifest: Manifest, source: str | None, notes: list[str]) -> Checkpoint | None:
    """`open_source`, or None and a note where nobody named the checkpoint and it is not found.

    Raises:
        InputError: the named one cannot be used.
    """
    try:
        return open_source(manifest, source)
    except InputError as error:
        if source is not None:
            raise
        notes.append(f"no comparison with the source model: {error}")
        return None


def _index_path() -> Path:
    return cache_folder() / "sources.json"


def _read(path: Path) -> dict[str, str]:
    try:
        return cast(dict[str, str], json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
