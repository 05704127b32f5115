"""Opens bundles: a folder, or a stored zip of one, checked whole against its manifest before anything is used."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, NoReturn, TypeAlias

from edgeformer_runtime import archive, file_sizes, folder, signature
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
from edgeformer_runtime.names import check_name
from edgeformer_runtime.signature import SIGNATURE_BYTES, SIGNATURE_NAME, PublicKey, SignatureState
from edgeformer_runtime.strict_json import shorten

MAX_FILES = archive.MAX_FILES
Reader: TypeAlias = archive.Reader | folder.Reader
_CHUNK_BYTES = 1 << 20


class Bundle:
    """An open bundle whose every file has the size and hash that its manifest states.

    A zip, and a bundle whose signature was required, is copied into a private temporary folder as it is checked, and
    only the copy is used. `close` removes it; so does the end of the process.
    """

    def __init__(self, folder: Path, manifest: Manifest, signature: SignatureState, temporary: bool) -> None:
        """Use `Bundle.open`, which checks what this takes for granted."""
        self.manifest = manifest
        self.signature = signature
        self._folder = folder
        self._remove = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True) if temporary else None

    @classmethod
    def open(cls, path: str | Path, require_signature: PublicKey | None = None) -> Bundle:
        """Open a bundle and check all of it.

        Args:
            path: the bundle's folder, or a stored zip of it.
            require_signature: the public key that must have signed the bundle; None: it may be unsigned.

        Raises:
            BundleError: it does not follow BUNDLE.md, or is not signed as required; the message says where.
            InputError: the key cannot be used.
        """
        source = Path(path)
        key = None if require_signature is None else signature.read_public_key(require_signature)
        try:
            if source.is_dir():
                return _open_folder(source, key)
            if source.is_file():
                return _open_zip(source, key)
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

    def members(self) -> dict[str, Path]:
        """Where each file lies that a zip of the bundle holds, the manifest and its signature included."""
        unlisted = [MANIFEST_NAME, SIGNATURE_NAME] if self.signature.signed else [MANIFEST_NAME]
        return {name: self._folder / name for name in (*unlisted, *self.manifest.files)}

    @property
    def manifest_sha256(self) -> str:
        """The SHA-256 of `manifest.json`, in hexadecimal: it names every other file by hash, so it names the bundle."""
        return hashlib.sha256((self._folder / MANIFEST_NAME).read_bytes()).hexdigest()

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
        try:
            descriptor, partial = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    archive.write(file, bundle.members())
                Path(partial).chmod(0o644)
                Path(partial).replace(target)
            except BaseException:
                Path(partial).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise BundleError(f"{target}: cannot be written: {error.strerror}") from None


def _open_folder(path: Path, key: bytes | None) -> Bundle:
    with folder.Reader(path) as reader:
        manifest, signature, raw = _read_manifest(reader, key)
        file_sizes.refuse_holes(path / name for name in manifest.files)
        # What a key vouches for must be what is used, even if somebody may still write to the bundle's folder.
        if key is not None:
            return Bundle(_unpacked(reader, manifest, raw), manifest, signature, temporary=True)
        for name, entry in _smallest_first(manifest):
            with reader.open(name) as file:
                _compare_hash(name, entry, _chunks(file))
    return Bundle(path, manifest, signature, temporary=False)


def _open_zip(path: Path, key: bytes | None) -> Bundle:
    with archive.Reader(path) as reader:
        manifest, signature, raw = _read_manifest(reader, key)
        file_sizes.refuse_holes([path])
        bundle = Bundle(_unpacked(reader, manifest, raw), manifest, signature, temporary=True)
    if key is not None and not archive.is_canonical(path, bundle.members()):
        bundle.close()
        raise BundleError(f"{path}: it holds other bytes than its signed files give: pack it again")
    return bundle


def _read_manifest(reader: Reader, key: bytes | None) -> tuple[Manifest, SignatureState, dict[str, bytes]]:
    """The manifest, if it fits its signature and the names and sizes of the files; and the files that it cannot list,
    with their bytes.
    """
    raw = {MANIFEST_NAME: reader.read(MANIFEST_NAME, MAX_MANIFEST_BYTES)}
    if SIGNATURE_NAME in reader.sizes:
        raw[SIGNATURE_NAME] = reader.read(SIGNATURE_NAME, SIGNATURE_BYTES)
    state = signature.check(raw[MANIFEST_NAME], raw.get(SIGNATURE_NAME), key)
    manifest = parse(raw[MANIFEST_NAME])
    _compare_names(manifest, reader.sizes)
    for name, entry in manifest.files.items():
        _compare_size(name, entry, reader.sizes[name])
    file_sizes.check_sizes(manifest)
    return manifest, state, raw


def _unpacked(reader: Reader, manifest: Manifest, raw: Mapping[str, bytes]) -> Path:
    """A private temporary folder with a copy of the files, checked as they are copied."""
    private = Path(tempfile.mkdtemp(prefix="edgeformer-"))
    try:
        free = shutil.disk_usage(private).free
        if sum(reader.sizes.values()) > free:
            raise BundleError(f"not enough space in {private.parent}: {free >> 20} MiB are free")
        for name, data in raw.items():
            (private / name).write_bytes(data)
        for name, entry in _smallest_first(manifest):
            target = private / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with reader.open(name) as source, target.open("xb") as copy:
                _compare_hash(name, entry, _copied(_chunks(source), copy))
    except BaseException:
        shutil.rmtree(private, ignore_errors=True)
        raise
    return private


def _smallest_first(manifest: Manifest) -> list[tuple[str, FileEntry]]:
    """The files in an order in which a wrong one is found soonest."""
    return sorted(manifest.files.items(), key=lambda item: (item[1].size, item[0]))


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


def _copied(chunks: Iterable[bytes], copy: IO[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        copy.write(chunk)
        yield chunk


def _compare_names(manifest: Manifest, found: Iterable[str]) -> None:
    listed = {MANIFEST_NAME, *manifest.files}
    present = set(found) - {SIGNATURE_NAME}
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
