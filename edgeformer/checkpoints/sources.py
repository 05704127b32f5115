"""Where checkpoints come from: a folder, the zoo, or the Hugging Face hub; and whether all of it is there.

Nothing here imports torch, so that commands refuse a source that is none before they wait for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from os import fspath
from pathlib import Path

from edgeformer.models.config import read_list, read_object
from edgeformer.zoo import ZOO
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.interface import StrPath
from edgeformer_runtime.registry import did_you_mean

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".pth.tar")
CONFIG_FILE, MODULES_FILE = "config.json", "modules.json"
ADAPTER_FILE = "adapter_config.json"

_DESCRIPTION_FILES = ["*.json", "*.txt", "README.md", "1_Pooling/config.json", "[1-9]_Dense/model.safetensors"]
_SAFETENSORS_FILES = ["model*.safetensors", "0_*/model*.safetensors"]
_PICKLE_FILES = ["pytorch_model*.bin", "0_*/pytorch_model*.bin", "model.bin"]
_READ = (
    *("*config*.json", "modules.json", "tokenizer.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.*", "vocabulary.*", "merges.txt", "model*", "pytorch_model*", "*.index.json", "README.md"),
)
"""The files of a folder that anything here opens."""
_MODULE_FOLDERS = "[0-9]_*/*"
"""Of sentence-transformers."""
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_HUB_SNAPSHOTS, _HUB_BLOBS = "snapshots", "blobs"
"""Of the hub's cache: a snapshot's files are symbolic links into the blobs beside all snapshots."""


@dataclass(frozen=True)
class SourceFolder:
    """A checkpoint's files on this machine.

    Attributes:
        id: "zoo:<name>", "hub:<org>/<name>" or "local:<folder name>"; never a path of this machine.
        revision: the hub's commit, None for other sources.
        root: where the files are, or a weight file alone.
        folder: where the transformer's config.json is: the root, or a folder in it that sentence-transformers'
            modules.json names.
    """

    id: str
    revision: str | None
    root: Path
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
        found = SourceFolder(f"local:{name}", None, path, path)
    elif source in ZOO:
        found = SourceFolder(f"zoo:{source}", None, ZOO[source].folder, ZOO[source].folder)
    # Nobody wants a slip in a name of the zoo to be looked for in the hub.
    elif HUB_ID.fullmatch(source) and ("/" in source or not did_you_mean(source, ZOO)):
        return _checked(_download(source, revision), source)
    else:
        raise InputError(f"no checkpoint {source!r}: there is no such folder, and {_expected_source(source)}")
    if revision is not None:
        raise InputError(f"a revision belongs to a hub id, and {source!r} is {found.id}: leave it out")
    return _checked(found, source)


def _expected_source(source: str) -> str:
    """The end of a message about what is no source."""
    return f"{did_you_mean(source, ZOO)}expected a folder, a hub id (org/name) or one of the zoo: {', '.join(ZOO)}"


def weight_suffix(path: Path) -> str:
    """What a weight file's name ends in; training scripts call their pickles `.pth.tar` too."""
    return "".join(path.suffixes[-2:]) if path.name.endswith(".pth.tar") else path.suffix


def _checked(found: SourceFolder, source: str) -> SourceFolder:
    if found.root.is_file():
        if weight_suffix(found.root) not in WEIGHT_SUFFIXES:
            raise InputError(
                f"{source!r} is a file: expected a folder with {CONFIG_FILE} and weights, "
                f"or a weight file ({', '.join(WEIGHT_SUFFIXES)})"
            )
        _refuse_pointer(found.root)
        return found
    _check_files(found.root)
    folder = _transformer_folder(found.root)
    for place in (found.root, folder):
        if (place / ADAPTER_FILE).is_file():
            _refuse_adapter(place, source)
    if not (folder / CONFIG_FILE).is_file():
        raise InputError(f"{source!r} is no checkpoint: there is no {CONFIG_FILE} in it")
    return replace(found, folder=folder)


def _check_files(root: Path) -> None:
    """Refuse links that leave the checkpoint, and pointers in place of files."""
    for path in sorted((*root.iterdir(), *root.glob(_MODULE_FOLDERS))):
        if not any(fnmatchcase(path.name, pattern) for pattern in _READ):
            continue
        if not is_inside(path, root):
            raise InputError(f"{path.relative_to(root)} is a link to a file outside of the checkpoint: copy it there")
        if path.is_file():
            _refuse_pointer(path)


def is_inside(path: Path, root: Path) -> bool:
    """Whether a path, with its links followed, stays in the checkpoint, or in the blobs of its cache of the hub."""
    target, folder = path.resolve(), root.resolve()
    places = [folder]
    if folder.parent.name == _HUB_SNAPSHOTS:
        places.append(folder.parent.parent / _HUB_BLOBS)
    return any(target.is_relative_to(place) for place in places)


def _refuse_pointer(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise InputError(f"{path.name} is a git-lfs pointer and not the file itself: run git lfs pull there")


def _refuse_adapter(folder: Path, source: str) -> None:
    kind = read_object(folder / ADAPTER_FILE).get("peft_type", "PEFT")
    raise InputError(
        f"{source!r} holds an adapter ({ADAPTER_FILE}, {kind}), which changes its base model's answers: merge it with "
        "peft's merge_and_unload(), save the result with save_pretrained(), and convert that folder"
    )


def _transformer_folder(root: Path) -> Path:
    """The root, or the folder that sentence-transformers keeps the transformer in."""
    if (root / CONFIG_FILE).is_file() or not (root / MODULES_FILE).is_file():
        return root
    for module in read_list(root / MODULES_FILE):
        named = module.get("path") if isinstance(module, dict) else None
        kind = str(module.get("type", "")) if isinstance(module, dict) else ""
        if kind.rpartition(".")[2] == "Transformer" and isinstance(named, str) and named:
            if not is_inside(root / named, root):
                raise InputError(f"{MODULES_FILE} names {named!r}, which is outside of the checkpoint")
            return root / named
    return root


def _download(source: str, revision: str | None) -> SourceFolder:
    """The hub's files in the user's cache; pickled weights and CTranslate2's only where there are no safetensors."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

    try:
        patterns = _DESCRIPTION_FILES + _SAFETENSORS_FILES
        folder = Path(snapshot_download(source, revision=revision, allow_patterns=patterns))
        if not any(list(folder.glob(pattern)) for pattern in _SAFETENSORS_FILES):
            folder = Path(
                snapshot_download(source, revision=revision, allow_patterns=_DESCRIPTION_FILES + _PICKLE_FILES)
            )
    except (OSError, EntryNotFoundError, HFValidationError) as error:  # its HTTP errors are OSErrors
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        is_away = isinstance(error, LocalEntryNotFoundError)
        at = f" at revision {revision}" if revision else ""
        raise InputError(
            f"no checkpoint {source!r}{at}: {_expected_source(source)}; no such folder here, "
            f"{'it is not in the cache of the hub, and the hub was not reached' if is_away else 'and the hub answered'}"
            f": {reason}"
        ) from None
    # The cache keeps a snapshot under its commit, so that a branch's name is pinned here.
    return SourceFolder(f"hub:{source}", folder.name, folder, folder)
