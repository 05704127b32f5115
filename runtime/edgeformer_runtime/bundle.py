"""Opens bundles: a folder, or a stored zip of one, checked whole against its manifest before anything is used."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, NoReturn

from edgeformer_runtime import archive
from edgeformer_runtime.errors import BundleError
from edgeformer_runtime.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    REPORT_FILE,
    VECTORS_FOLDER,
    FileEntry,
    Manifest,
    TextPreprocessing,
    parse,
)
from edgeformer_runtime.names import MAX_NAME_PARTS, check_name
from edgeformer_runtime.strict_json import shorten

MAX_FILES = archive.MAX_FILES
_CHUNK_BYTES = 1 << 20


class Bundle:
    """An open bundle whose every file has the size and hash that its manifest states.

    A zip is unpacked into a private temporary folder, which `close` removes; so does the end of the process.
    """

    def __init__(self, folder: Path, manifest: Manifest, temporary: bool) -> None:
        """Use `Bundle.open`, which checks what this takes for granted."""
        self.manifest = manifest
        self._folder = folder
        self._remove = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True) if temporary else None

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Open a bundle and check all of it.

        Args:
            path: the bundle's folder, or a stored zip of it.

        Raises:
            BundleError: it does not follow BUNDLE.md; the message says where.
        """
        source = Path(path)
        try:
            if source.is_dir():
                return _open_folder(source)
            if source.is_file():
                return _open_zip(source)
        except OSError as error:
            _unreadable(source, error)
        except ValueError:  # a NUL in the path
            raise BundleError(f"no bundle at {shorten(str(path))}: expected a path") from None
        raise BundleError(f"no bundle at {source}: expected a bundle's folder or zip")

    def path(self, name: str) -> Path:
        """Where a file of the bundle, or a folder of files such as a Core ML package, lies while the bundle is open.

        Raises:
            BundleError: the manifest does not list it.
        """
        files = self.manifest.files
        if name not in files and not any(listed.startswith(name + "/") for listed in files):
            raise BundleError(f"no file {shorten(name)} in the bundle {self.manifest.name}")
        return self._folder.joinpath(*name.split("/"))

    def read_bytes(self, name: str) -> bytes:
        """The bytes of a listed file."""
        try:
            return self.path(name).read_bytes()
        except OSError as error:
            _unreadable(Path(name), error)

    @property
    def size_bytes(self) -> int:
        """The size of all files that the manifest lists."""
        return sum(entry.size for entry in self.manifest.files.values())

    @property
    def model_size_bytes(self) -> int:
        """The size of the model's files, with those that they refer to: all but vectors, tokenizer and report."""
        spec = self.manifest.preprocessing
        others = {REPORT_FILE, spec.tokenizer if isinstance(spec, TextPreprocessing) else None}
        return sum(
            entry.size
            for name, entry in self.manifest.files.items()
            if name not in others and not name.startswith(VECTORS_FOLDER)
        )

    def close(self) -> None:
        """Remove the temporary folder of a zip. A second call does nothing."""
        if self._remove is not None:
            self._remove()

    def __enter__(self) -> Bundle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def pack(folder: str | Path, zip_path: str | Path) -> None:
    """Write a bundle's folder as a stored zip whose bytes depend on nothing but the files; it appears whole or not.

    Raises:
        BundleError: the folder is no valid bundle, or the zip cannot be written.
    """
    target = Path(zip_path)
    with Bundle.open(folder) as bundle:
        names = [MANIFEST_NAME, *bundle.manifest.files]
        try:
            descriptor, partial = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    archive.write(file, {name: bundle._folder / name for name in names})
                Path(partial).chmod(0o644)
                Path(partial).replace(target)
            except BaseException:
                Path(partial).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise BundleError(f"{target}: cannot be written: {error.strerror}") from None


def _open_folder(folder: Path) -> Bundle:
    found = sorted(islice(_scan(folder), MAX_FILES + 2))
    if len(found) > MAX_FILES + 1:  # with the manifest
        raise BundleError(f"{folder}: expected at most {MAX_FILES} files")
    if MANIFEST_NAME not in found:
        raise BundleError(f"{folder}: no {MANIFEST_NAME} in it: expected a bundle's folder or zip")
    with (folder / MANIFEST_NAME).open("rb") as file:
        manifest = parse(file.read(MAX_MANIFEST_BYTES + 1))
    _compare_names(manifest, found)
    for name, entry in manifest.files.items():
        path = folder / name
        _compare_size(name, entry, path.stat().st_size)
        with path.open("rb") as file:
            _compare_hash(name, entry, _chunks(file))
    return Bundle(folder, manifest, temporary=False)


def _scan(folder: Path, prefix: str = "", depth: int = 1) -> Iterator[str]:
    """Names of all files below a folder; links, devices and empty folders are errors, not followed."""
    if depth > MAX_NAME_PARTS:
        raise BundleError(f"{shorten(prefix)}: more than {MAX_NAME_PARTS} folders deep")
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            if entry.is_symlink():
                raise BundleError(f"{shorten(name)} is a symbolic link: a bundle holds plain files only")
            if entry.is_dir(follow_symlinks=False):
                inner = _scan(Path(entry.path), name + "/", depth + 1)
                first = next(inner, None)
                if first is None:
                    raise BundleError(f"{shorten(name)} is an empty folder that the manifest does not list")
                yield first
                yield from inner
            elif stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
                yield name
            else:
                raise BundleError(f"{shorten(name)} is not a plain file")


def _open_zip(path: Path) -> Bundle:
    with archive.Reader(path) as reader:
        manifest = parse(reader.read(MANIFEST_NAME, MAX_MANIFEST_BYTES))
        _compare_names(manifest, reader.sizes)
        for name, entry in manifest.files.items():
            _compare_size(name, entry, reader.sizes[name])
        folder = Path(tempfile.mkdtemp(prefix="edgeformer-"))
        try:
            free = shutil.disk_usage(folder).free
            if sum(reader.sizes.values()) > free:
                raise BundleError(f"{path}: not enough space in {folder.parent}: {free >> 20} MiB are free")
            (folder / MANIFEST_NAME).write_bytes(reader.read(MANIFEST_NAME, MAX_MANIFEST_BYTES))
            for name, entry in manifest.files.items():
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with reader.open(name) as source, target.open("xb") as copy:
                    _compare_hash(name, entry, _copied(_chunks(source), copy))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return Bundle(folder, manifest, temporary=True)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


def _copied(chunks: Iterable[bytes], copy: IO[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        copy.write(chunk)
        yield chunk


def _compare_names(manifest: Manifest, found: Iterable[str]) -> None:
    listed = {MANIFEST_NAME, *manifest.files}
    present = set(found)
    for name in sorted(present - listed):
        check_name(name)
        raise BundleError(f"extra file {shorten(name)}: the manifest does not list it")
    for name in sorted(listed - present):
        raise BundleError(f"file {shorten(name)} is missing: the manifest lists it")


def _compare_size(name: str, entry: FileEntry, size: int) -> None:
    if size != entry.size:
        raise BundleError(f"{name}: expected {entry.size} bytes as in the manifest, found {size}: download it again")


def _compare_hash(name: str, entry: FileEntry, chunks: Iterable[bytes]) -> None:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    if digest.hexdigest() != entry.sha256:
        raise BundleError(f"{name}: its SHA-256 differs from the manifest's: the file is spoiled, download it again")


def _unreadable(path: Path, error: OSError) -> NoReturn:
    raise BundleError(f"{error.filename or path}: cannot be read: {error.strerror or error}") from None
