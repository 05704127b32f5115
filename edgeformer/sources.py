"""Where checkpoints come from: a folder, the zoo, or the Hugging Face hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from os import fspath
from pathlib import Path

from edgeformer.zoo import ZOO
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.path_field import StrPath

CONFIG_FILE = "config.json"

_DESCRIPTION_FILES = ["*.json", "*.txt", "README.md", "1_Pooling/config.json"]
_SAFETENSORS_FILES = ["model*.safetensors"]
_PICKLE_FILES = ["pytorch_model*.bin", "model.bin"]
_WEIGHT_SUFFIXES = (".safetensors", ".pth", ".bin")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class SourceFolder:
    """A checkpoint's files on this machine.

    Attributes:
        id: "zoo:<name>", "hub:<org>/<name>" or "local:<folder name>"; never a path of this machine.
        revision: the hub's commit, None for other sources.
        folder: where the files are, or a weight file alone.
    """

    id: str
    revision: str | None
    folder: Path


def resolve_source(source: StrPath, revision: str | None = None) -> SourceFolder:
    """Find a source's files, downloading them from the hub where it is neither a folder nor in the zoo.

    Args:
        source: a folder, a name in the zoo, or a hub id.
        revision: branch, tag or commit of a hub id.

    Raises:
        InputError: there is no such source, it holds no checkpoint, or the hub cannot be reached.
    """
    source = fspath(source)
    path = Path(source).expanduser()
    if path.exists():
        name = path.resolve().stem if path.is_file() else path.resolve().name
        found = SourceFolder(f"local:{name}", None, path)
    elif source in ZOO:
        found = SourceFolder(f"zoo:{source}", None, ZOO[source].folder)
    elif _HUB_ID.fullmatch(source):
        return _checked(_download(source, revision), source)
    else:
        raise InputError(f"no checkpoint {source!r}: there is no such folder, and {_expected()}")
    if revision is not None:
        raise InputError(f"a revision belongs to a hub id, and {source!r} is {found.id}: leave it out")
    return _checked(found, source)


def _expected() -> str:
    return f"expected a folder, a hub id (org/name) or one of the zoo: {', '.join(ZOO)}"


def _checked(found: SourceFolder, source: str) -> SourceFolder:
    if found.folder.is_file():
        if found.folder.suffix not in _WEIGHT_SUFFIXES:
            raise InputError(
                f"{source!r} is a file: expected a folder with {CONFIG_FILE} and weights, "
                f"or a weight file ({', '.join(_WEIGHT_SUFFIXES)})"
            )
        return found
    if not (found.folder / CONFIG_FILE).is_file():
        raise InputError(f"{source!r} is no checkpoint: there is no {CONFIG_FILE} in it")
    return found


def _download(source: str, revision: str | None) -> SourceFolder:
    """The hub's files in the user's cache; pickled weights and CTranslate2's only where there are no safetensors."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError

    try:
        patterns = _DESCRIPTION_FILES + _SAFETENSORS_FILES
        folder = Path(snapshot_download(source, revision=revision, allow_patterns=patterns))
        if not list(folder.glob(_SAFETENSORS_FILES[0])):
            folder = Path(
                snapshot_download(source, revision=revision, allow_patterns=_DESCRIPTION_FILES + _PICKLE_FILES)
            )
    except (OSError, EntryNotFoundError, HFValidationError) as error:  # its HTTP errors are OSErrors
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        at = f" at revision {revision}" if revision else ""
        raise InputError(
            f"no checkpoint {source!r}{at}: {_expected()}; no such folder here, and the hub answered: {reason}"
        ) from None
    # The cache keeps a snapshot under its commit, so that a branch's name is pinned here.
    return SourceFolder(f"hub:{source}", folder.name, folder)
