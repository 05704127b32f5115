"""Where a finished bundle goes: its folder and, if asked for, its zip, in place of those that were there."""

from __future__ import annotations

from pathlib import Path

from edgeformer_runtime.bundle import reader as archive
from edgeformer_runtime.bundle.bundle import pack
from edgeformer_runtime.bundle.manifest import MANIFEST_NAME
from edgeformer_runtime.bundle.signature import SIGNATURE_NAME
from edgeformer_runtime.delivery import put
from edgeformer_runtime.errors import BundleError, InputError


def check_destination(path: Path, zipped: bool) -> None:
    """Refuse to replace what is no bundle.

    Args:
        path: of a bundle's folder to be.
        zipped: whether its zip is wanted, too.

    Raises:
        InputError: something else is there.
    """
    ours = path.is_dir() and ((path / MANIFEST_NAME).is_file() or not any(path.iterdir()))
    if path.exists() and not ours:
        raise InputError(f"{path} exists and is not a bundle: choose another --out or --name")
    archived = zip_beside(path)
    if zipped and archived.exists() and _zip_holds(archived) is None:
        raise InputError(f"{archived} exists and is not a bundle's zip: choose another --out or --name")


def deliver(made: Path, path: Path, zipped: bool) -> list[str]:
    """Put a finished bundle in its place.

    A zip of the bundle that it replaces does not stay beside it: it would go on as the same bundle.

    Args:
        made: the bundle's folder, in a work folder.
        path: its place.
        zipped: whether to put a zip beside it, too.

    Returns:
        What somebody who replaces a bundle has to know, a sentence each.
    """
    archived = zip_beside(path)
    in_zip = _zip_holds(archived)
    signed = (path / SIGNATURE_NAME).is_file() or (in_zip is not None and SIGNATURE_NAME in in_zip)
    notes = []
    if zipped:
        packed = made.with_name(archived.name)
        pack(made, packed)
    put(made, path)
    if zipped:
        put(packed, archived)
    elif in_zip is not None:
        archived.unlink()
        notes.append(f"{archived} was of the bundle that is replaced, and is removed: edgeformer pack makes one")
    elif archived.exists():
        notes.append(f"{archived} is no bundle's zip, and stays as it is")
    if signed:
        notes.append(f"the bundle that {path} replaces was signed: sign this one, too, with edgeformer sign")
    return notes


def discard(path: Path, work: Path) -> bool:
    """Remove a bundle in one step, as its folder moves into a work folder.

    Returns:
        Whether there was one.
    """
    if not (path / MANIFEST_NAME).is_file():
        return False
    path.rename(work / path.name)
    return True


def zip_beside(path: Path) -> Path:
    """Where the zip of a bundle's folder lies."""
    return path.with_name(f"{path.name}.zip")


def fresh_folder(parent: Path, name: str) -> Path:
    """A new folder in a work folder."""
    folder = parent / name
    folder.mkdir()
    return folder


def _zip_holds(path: Path) -> set[str] | None:
    """The names of the files in a bundle's zip; None: it is none."""
    if not path.is_file():
        return None
    try:
        with archive.Reader(path) as reader:
            return set(reader.sizes) if MANIFEST_NAME in reader.sizes else None
    except (BundleError, OSError):
        return None
