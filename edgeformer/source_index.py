"""Remembers, per user, where the weights of converted checkpoints are, so that a bundle finds its source again.

Bundles name their source by hash and never by a path of the machine that made them.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import cast

from edgeformer.checkpoints import Checkpoint
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.manifest import Source


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

    Raises:
        InputError: this user has not converted that checkpoint on this machine, or its folder is gone.
    """
    folder = _read(_index_path()).get(source.weights_sha256)
    if folder is None or not Path(folder).exists():
        raise InputError(f"the checkpoint {source.id} of this bundle is not known here: name it with --source")
    return Path(folder)


def _index_path() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "edgeformer" / "sources.json"


def _read(path: Path) -> dict[str, str]:
    try:
        return cast(dict[str, str], json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
