"""Opens bundles: a folder, or a stored zip of one, checked whole against its manifest before anything is used."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias

from edgeformer_runtime.bundle import folder, signature
from edgeformer_runtime.bundle.folder import check_outside
from edgeformer_runtime.bundle.manifest import (
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    REFUSED_FILE,
    REPORT_FILE,
    VECTORS_FOLDER,
    FileEntry,
    Manifest,
    check_sizes,
    parse,
)
from edgeformer_runtime.bundle.signature import (
    MAX_RELEASE_BYTES,
    RELEASE_FILE,
    SIGNATURE_BYTES,
    SIGNATURE_NAME,
    Required,
    Requirement,
    SignatureState,
    requirement_of,
)
from edgeformer_runtime.bundle.strict_json import check_name, shorten
from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.tasks.task import TASKS

if TYPE_CHECKING:
    from edgeformer_runtime.bundle import archive
    from edgeformer_runtime.bundle.unpacked import Copy
    from edgeformer_runtime.model_files import Rows

MAX_FILES = folder.MAX_FILES
Reader: TypeAlias = "archive.Reader | folder.Reader"
_CHUNK_BYTES = 1 << 20


class Bundle:
    """An open bundle whose every file has the size and hash that its manifest states.

    A zip, and a bundle whose signature was required, is copied into a private temporary folder as it is checked, and
    only the copy is used. All who have the same bundle open share one. `close` lets go of it; so does the end of the
    process.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        signature: SignatureState,
        copy: Copy | None = None,
        checked: _Checked | None = None,
    ) -> None:
        """Use `Bundle.open`, which checks what this takes for granted."""
        self.manifest = manifest
        self.signature = signature
        self.parsed: dict[str, Any] = {}
        """What was made of a file, by its name, for who asks again while the bundle is open: see `read_vectors`."""
        self._folder = folder
        self._checked = checked
        self.rows: Rows | None = None if checked is None else checked.rows
        """What `check_model_files` found; None: the model files have not been looked through."""
        self._remove = None if copy is None else weakref.finalize(self, copy.close)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        require_signature: Required | None = None,
        *,
        require_name: str | None = None,
        require_version: int | None = None,
        allow_refused: bool = False,
        remembered: bool = False,
    ) -> Bundle:
        """Open a bundle and check all of it.

        Args:
            path: the bundle's folder, or a stored zip of it.
            require_signature: the public key that must have signed the bundle, or several of which one must, or a
                `Requirement`; None: it may be unsigned.
            require_name: the name that it must have; None: any.
            require_version: the lowest release that is taken; None: any, or none at all.
            allow_refused: take one that its conversion's gates refused, too.
            remembered: do not hash the files of a folder that was loaded before and is the same: `bundle/folder.py`
                says how that is known. A bundle whose signature is required is hashed in any case.

        Raises:
            BundleError: it does not follow BUNDLE.md, is not what is required, or is marked as refused; the message
                says where.
            InputError: a key cannot be used.
        """
        source = Path(path)
        required = requirement_of(require_signature, require_name, require_version)
        keys = required.key_bytes()
        try:
            if source.is_dir():
                return _usable(_open_folder(source, required, keys, remembered), source, allow_refused)
            if source.is_file():
                return _usable(_open_zip(source, required, keys), source, allow_refused)
        except OSError as error:
            _unreadable(source, error)
        except ValueError:  # a NUL in the path
            raise BundleError(f"no bundle at {shorten(str(path))}: expected a path") from None
        raise BundleError(f"no bundle at {source}: expected a bundle's folder or zip")

    @property
    def folder(self) -> Path:
        """Where its files lie while it is open."""
        return self._folder

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
    def refused(self) -> bool:
        """Whether its conversion's gates refused it; `REFUSED_FILE` says why."""
        return REFUSED_FILE in self.manifest.files

    @property
    def release(self) -> int | None:
        """The version that `release.json` states; None: it has none."""
        if RELEASE_FILE not in self.manifest.files:
            return None
        return signature.decode_release(self.read_bytes(RELEASE_FILE), self.manifest.name)

    @property
    def manifest_sha256(self) -> str:
        """The SHA-256 of `manifest.json`, in hexadecimal: it names every other file by hash, so it names the bundle."""
        import hashlib

        return hashlib.sha256((self._folder / MANIFEST_NAME).read_bytes()).hexdigest()

    @property
    def size_bytes(self) -> int:
        """The size of all files that the manifest lists."""
        return sum(entry.size for entry in self.manifest.files.values())

    @property
    def model_size_bytes(self) -> int:
        """The size of the model's files, with those that they refer to: all but vectors, tokenizer and report."""
        named = TASKS[self.manifest.task].files(self.manifest)
        others = {REPORT_FILE, REFUSED_FILE, *(file.name for file in named if not file.is_model)}
        return sum(
            entry.size
            for name, entry in self.manifest.files.items()
            if name not in others and not name.startswith(VECTORS_FOLDER)
        )

    @property
    def known(self) -> bool:
        """Whether these very files were checked when they were loaded before, and not now."""
        return self._checked is not None and self._checked.rows is not None

    def remember(self) -> None:
        """Note that these files were checked, if model files were, too: see `open`. A copy's are gone after `close`."""
        if self._checked is not None and self.rows is not None and not self.known:
            folder.remember(self._folder, self._checked.state, self.rows, self._checked.from_s)

    def close(self) -> None:
        """Let go of the temporary copy, if there is one. A second call does nothing."""
        if self._remove is not None:
            self._remove()

    def __enter__(self) -> Bundle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def pack(folder: str | os.PathLike[str], zip_path: str | os.PathLike[str]) -> None:
    """Write a bundle's folder as a stored zip whose bytes depend on nothing but the files; it appears whole or not.

    Raises:
        BundleError: the folder is no valid bundle.
        InputError: it is none but a zip already, something else has the zip's place, or that cannot be written.
    """
    from edgeformer_runtime.bundle import archive
    from edgeformer_runtime.delivery import alone, check_names, replacing

    target = Path(zip_path)
    check_names(target)
    if not Path(folder).is_dir() and Path(folder).exists():
        raise InputError(f"{folder}: expected a bundle's folder to pack, found a file")
    if target.is_dir():
        raise InputError(f"{target} is a folder: expected the zip's own name")
    check_outside(target)
    with Bundle.open(folder) as bundle, alone(target.resolve()), replacing(target) as fresh:
        try:
            with fresh.open("wb") as file:
                archive.write(file, bundle.members())
        except OSError as error:
            raise InputError(f"{target}: cannot be written: {error.strerror}") from None


def _usable(bundle: Bundle, path: Path, allow_refused: bool) -> Bundle:
    """The bundle, unless it is marked as refused and nobody said that it may be."""
    if bundle.refused and not allow_refused:
        bundle.close()
        raise BundleError(
            f"{path}: the gates of its conversion refused this bundle ({REFUSED_FILE} says why): convert it otherwise, "
            "or, to look into it, run it with --allow-refused (in Python allow_refused=True)"
        )
    return bundle


class _Checked(NamedTuple):
    """What was checked of a folder: the state of its files and when that was, or before, with what was found then."""

    state: folder.State
    from_s: float
    rows: Rows | None = None


def _open_folder(path: Path, required: Requirement, keys: Sequence[bytes], trusted: bool) -> Bundle:
    _check_path(path)
    from_s = time.time()
    with folder.Reader(path) as reader:
        state = folder.state_of(reader.stats)
        rows = folder.rows_of(path, state) if trusted and not keys else None
        manifest, signature, raw = _read_manifest(reader, required, keys, known=rows is not None)
        if rows is not None:
            return Bundle(path, manifest, signature, checked=_Checked(state, from_s, rows))
        folder.refuse_holes(path / name for name in manifest.files)
        # What a key vouches for must be what is used, even if somebody may still write to the bundle's folder.
        if keys:
            copy = _unpacked(reader, manifest, raw)
            return Bundle(copy.folder, manifest, signature, copy)
        _compare_hashes(reader, manifest)
    return Bundle(path, manifest, signature, checked=_Checked(state, from_s))


def _open_zip(path: Path, required: Requirement, keys: Sequence[bytes]) -> Bundle:
    from edgeformer_runtime.bundle import archive

    with archive.Reader(path) as reader:
        manifest, signature, raw = _read_manifest(reader, required, keys)
        folder.refuse_holes([path])
        copy = _unpacked(reader, manifest, raw)
        bundle = Bundle(copy.folder, manifest, signature, copy)
    if keys and not archive.is_canonical(path, bundle.members()):
        bundle.close()
        raise BundleError(f"{path}: it holds other bytes than its signed files give: pack it again")
    return bundle


def _read_manifest(
    reader: Reader, required: Requirement, keys: Sequence[bytes], known: bool = False
) -> tuple[Manifest, SignatureState, dict[str, bytes]]:
    """The manifest, if it fits its signature and the names and sizes of the files; and the files that it cannot list,
    with their bytes. A manifest that is `known` passed `parse` before.
    """
    raw = {MANIFEST_NAME: reader.read(MANIFEST_NAME, MAX_MANIFEST_BYTES)}
    if SIGNATURE_NAME in reader.sizes:
        raw[SIGNATURE_NAME] = reader.read(SIGNATURE_NAME, SIGNATURE_BYTES)
    state = signature.check(raw[MANIFEST_NAME], raw.get(SIGNATURE_NAME), keys)
    manifest = parse(raw[MANIFEST_NAME], known)
    _compare_names(manifest, reader.sizes)
    for name, entry in manifest.files.items():
        _compare_size(name, entry, reader.sizes[name])
    check_sizes(manifest)
    required.check(manifest.name, _read_release(reader, manifest))
    return manifest, state, raw


def _read_release(reader: Reader, manifest: Manifest) -> int | None:
    """The version of the bundle's release, checked like every file, but before the large ones; None: it has none."""
    entry = manifest.files.get(RELEASE_FILE)
    if entry is None:
        return None
    data = reader.read(RELEASE_FILE, MAX_RELEASE_BYTES)
    _compare_hash(RELEASE_FILE, entry, [data])
    return signature.decode_release(data, manifest.name)


def _unpacked(reader: Reader, manifest: Manifest, raw: Mapping[str, bytes]) -> Copy:
    """A private copy of the files, checked as they are copied, or against the copy that another user of it made."""
    import hashlib

    from edgeformer_runtime.bundle.unpacked import open_copy

    digest = hashlib.sha256(repr(sorted(raw.items())).encode()).hexdigest()

    def fill(private: Path) -> None:
        _check_path(private)
        for name, data in raw.items():
            (private / name).write_bytes(data)
        for name, entry in _smallest_first(manifest):
            target = private / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with reader.open(name) as source, target.open("xb") as copy:
                _compare_hash(name, entry, _copied(_chunks(source), copy))

    return open_copy(digest, sum(reader.sizes.values()), fill, lambda: _compare_hashes(reader, manifest))


def _compare_hashes(reader: Reader, manifest: Manifest) -> None:
    for name, entry in _smallest_first(manifest):
        with reader.open(name) as file:
            _compare_hash(name, entry, _chunks(file))


def _check_path(folder: Path) -> None:
    """Refuse a path that the engines, whose paths are UTF-8 text, cannot be given."""
    try:
        str(folder).encode("utf-8")
    except UnicodeEncodeError:
        raise BundleError(
            f"{shorten(str(folder), 300)}: engines open paths in UTF-8 only: rename it, or use a zip"
        ) from None


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
        raise BundleError(
            f"extra file {shorten(name)}: the manifest does not list it: delete it if a program left it there, or get "
            "the bundle again"
        )
    for name in sorted(listed - present):
        raise BundleError(f"file {shorten(name)} is missing: the manifest lists it")


def _compare_size(name: str, entry: FileEntry, size: int) -> None:
    if size != entry.size:
        raise BundleError(f"{name}: expected {entry.size} bytes as in the manifest, found {size}: download it again")


def _compare_hash(name: str, entry: FileEntry, chunks: Iterable[bytes]) -> None:
    import hashlib  # OpenSSL's; who has checked a bundle before does without

    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    if digest.hexdigest() != entry.sha256:
        raise BundleError(f"{name}: its SHA-256 differs from the manifest's: the file is corrupted, download it again")


def _unreadable(path: Path, error: OSError) -> NoReturn:
    raise BundleError(f"{error.filename or path}: cannot be read: {error.strerror or error}") from None
