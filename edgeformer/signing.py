"""Signs bundles with Ed25519 (RFC 8032), makes the keys, and publishes bundles for devices to fetch.

`edgeformer_runtime.bundle.signature` checks signatures, and `edgeformer_runtime.fetch` reads what is published.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from edgeformer.arguments import check_place
from edgeformer_runtime.bundle import archive
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.delta import make_delta
from edgeformer_runtime.bundle.folder import check_outside
from edgeformer_runtime.bundle.manifest import MANIFEST_NAME, FileEntry
from edgeformer_runtime.bundle.signature import (
    MAX_KEY_FILE_BYTES,
    MAX_VERSION,
    NEEDS_PACKAGE,
    RELEASE_FILE,
    SIGNATURE_NAME,
    encode_release,
    fingerprint,
    signed_message,
)
from edgeformer_runtime.bundle.site import (
    DOMAIN,
    EMPTY,
    INDEX_NAME,
    LINE_BYTES,
    MAX_DELTA_BYTES,
    MAX_DELTAS,
    TIME_FORMAT,
    Delta,
    Index,
    PublishedBundle,
    PublishedFile,
    check_bundle_name,
    file_address,
    parse_index,
)
from edgeformer_runtime.bundle.strict_json import dumps, to_data
from edgeformer_runtime.delivery import alone, put, work_folder
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.interface import Progress, StrPath, silent

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PUBLIC_SUFFIX = ".pub"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_keys(path: str | os.PathLike[str]) -> Path:
    """Make a key pair: the private key (PKCS #8 PEM, readable by its owner alone) and, beside it, the public one.

    Args:
        path: the private key's file. The public key's has the suffix `.pub` in place of its own.

    Returns:
        The public key's file.

    Raises:
        InputError: one of the files is there already, or cannot be written.
    """
    path = Path(path)
    check_outside(path)
    private_key = _ed25519().generate()
    from cryptography.hazmat.primitives import serialization

    public = path.with_suffix(PUBLIC_SUFFIX)
    if public == path:
        raise InputError(f"{path}: this is the public key's name: expected one like release.pem")
    if public.exists():
        raise InputError(f"{public} exists: expected a new name")
    private_pem = private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public_pem = private_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _create(path, private_pem, 0o600)
    _create(public, public_pem, 0o644)
    return public


@dataclass(frozen=True)
class Signed:
    """What `sign_bundle` did: the key's fingerprint, and the release that the bundle now states, or None."""

    fingerprint: str
    release: int | None

    @property
    def words(self) -> str:
        """For the terminal."""
        release = "" if self.release is None else f", release {self.release}"
        return f"signed by the key {self.fingerprint[:16]}{release}"


def sign_bundle(path: str | os.PathLike[str], key: str | os.PathLike[str], release: int | None = None) -> Signed:
    """Sign a bundle, folder or zip, in place; the same key and bundle give the same bytes.

    Whenever this is interrupted, the bundle as it was or the signed one is there.

    Args:
        path: the bundle. It is checked whole before it is signed; a signature that it has is replaced.
        key: the private key's file, as `make_keys` writes it.
        release: the version to write into it; None: what it states, if anything, stays.

    Raises:
        InputError: the key cannot be used, or the bundle cannot be written.
        BundleError: it is no valid bundle.
    """
    place = Path(path).resolve()
    private_key = _read_private_key(Path(key))
    if release is not None and not 1 <= release <= MAX_VERSION:
        raise InputError(f"expected the release as an integer from 1 to {MAX_VERSION}, found {release}")
    with Bundle.open(path) as bundle:
        # Beside the bundle: a strange file in it would make it invalid for whoever looks meanwhile.
        with work_folder(place.parent) as work, alone(place):
            try:
                fresh = {} if release is None else _released(bundle, release, work)
                members = {**bundle.members(), **fresh}
                signature = private_key.sign(signed_message(members[MANIFEST_NAME].read_bytes()))
                fresh[SIGNATURE_NAME] = work / SIGNATURE_NAME
                fresh[SIGNATURE_NAME].write_bytes(signature)
                if place.is_file():
                    with (work / place.name).open("wb") as file:
                        archive.write(file, {**members, **fresh})
                    put(work / place.name, place)
                elif list(fresh) == [SIGNATURE_NAME]:
                    fresh[SIGNATURE_NAME].replace(place / SIGNATURE_NAME)
                else:
                    put(_copied(members, fresh, work / place.name), place)
            except OSError as error:
                raise InputError(f"{path}: cannot be signed: {error.strerror}") from None
        stated = bundle.release if release is None else release
    return Signed(fingerprint(private_key.public_key().public_bytes_raw()), stated)


def _released(bundle: Bundle, release: int, work: Path) -> dict[str, Path]:
    """The files that are other ones in a bundle of that release: the release and the manifest."""
    data = encode_release(bundle.manifest.name, release)
    entry = FileEntry(hashlib.sha256(data).hexdigest(), len(data))
    manifest = replace(bundle.manifest, files={**bundle.manifest.files, RELEASE_FILE: entry})
    (work / RELEASE_FILE).write_bytes(data)
    (work / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    return {RELEASE_FILE: work / RELEASE_FILE, MANIFEST_NAME: work / MANIFEST_NAME}


def _copied(members: Mapping[str, Path], fresh: Mapping[str, Path], folder: Path) -> Path:
    """A bundle's folder with some files in place of its own; the others are the same files under a second name."""
    for name, source in {**members, **fresh}.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.hardlink_to(source)
        except OSError:  # a file system without such links
            shutil.copyfile(source, target)
    return folder


def _read_private_key(path: Path) -> Ed25519PrivateKey:
    kind = _ed25519()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            pem = file.read(MAX_KEY_FILE_BYTES)
    except OSError as error:
        raise InputError(f"{path}: cannot read the private key: {error.strerror}") from None
    if b"PUBLIC KEY" in pem:
        raise InputError(f"{path}: this is a public key: signing takes the private one")
    if os.name == "posix" and mode & _OTHERS:
        raise InputError(
            f"{path}: others can read this private key (mode {stat.S_IMODE(mode):04o}): chmod 600 {path}; if they may "
            "have, make a new key with edgeformer sign --new-key"
        )
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise InputError(
            f"{path}: the private key is encrypted: expected a plain one (openssl pkey decrypts)"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(f"{path}: expected a PEM file of an Ed25519 private key, as edgeformer sign makes") from None
    if not isinstance(key, kind):
        raise InputError(f"{path}: expected an Ed25519 private key, found another kind: make one with edgeformer sign")
    return key


def _ed25519() -> type[Ed25519PrivateKey]:
    """The class of private keys. Called first, so that a package that is not there is said in one line."""
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError:
        raise InputError(NEEDS_PACKAGE) from None
    return Ed25519PrivateKey


def _create(path: Path, content: bytes, mode: int) -> None:
    """Write a new file that nobody else may read even for a moment."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise InputError(f"{path} exists: expected a new name") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


# A publisher's site: what `edgeformer_runtime.fetch` reads. docs/delivery.md is normative.


HISTORY_FOLDER = "indexes"
DAYS = 30
KEEP = 3
_LEAST_DELTA_BYTES = 1 << 10
_PAYS = 0.9
"""What a delta may have of the bytes that are downloaded without it."""


@dataclass(frozen=True)
class Publication:
    """What `publish` wrote.

    Attributes:
        site: the folder to put on a server.
        number: of the index.
        expires: when the next one must have been published, in UTC.
        first_bytes: by each bundle's name what a device without it downloads.
        update_bytes: the same for a device that has the bundle of the index before, where that had one.
        left_out: bundles that the gates of their conversion refused.
    """

    site: Path
    number: int
    expires: datetime
    first_bytes: dict[str, int]
    update_bytes: dict[str, int]
    left_out: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """As `publish --json` prints it."""
        return {**vars(self), "site": str(self.site), "expires": self.expires.strftime(TIME_FORMAT)}


def publish(
    folder: StrPath,
    key: StrPath,
    out: StrPath | None = None,
    *,
    days: int = DAYS,
    keep: int = KEEP,
    progress: Progress = silent,
) -> Publication:
    """Write the bundles of a folder as a static site: a signed index, files by their hash, and deltas.

    Whenever this is interrupted, the site as it was or the new one is there: the index is replaced last.

    Args:
        folder: of bundles, as `convert` writes it. Each becomes `NAME` of the site.
        key: the private key's file, as `make_keys` writes it.
        out: the site's folder, which is made, or brought up to date; None: `FOLDER.site`.
        days: how long readers believe that this index is the newest: publish again before.
        keep: how many indexes before this one still have their files, for deltas and for who is downloading them.
        progress: called with the bundles that are finished and all there are.

    Raises:
        InputError: the key, a place or a number cannot be used, or there is no bundle.
        BundleError: a bundle is none, or what the site's folder holds is no site.
    """
    private_key, source = _read_private_key(Path(key)), Path(folder)
    site = Path(f"{source.resolve()}.site") if out is None else Path(out).resolve()
    if days < 1 or not 0 <= keep <= MAX_DELTAS // 2:
        raise InputError(f"expected --days of 1 or more and --keep of 0 to {MAX_DELTAS // 2}, found {days} and {keep}")
    check_place(site)
    places = sorted(each for each in source.iterdir() if (each / MANIFEST_NAME).is_file()) if source.is_dir() else []
    if not places:
        raise InputError(f"{source}: no bundles in it: expected a folder as convert writes it")
    site.mkdir(parents=True, exist_ok=True)
    with alone(site), work_folder(site) as work:
        writer = _Site(site, work, keep)
        found, left_out = {}, []
        for done, place in enumerate(places):
            progress("publishing", done, len(places))
            check_bundle_name(place.name)
            with Bundle.open(place, allow_refused=True) as bundle:
                if bundle.refused:
                    left_out.append(place.name)
                    continue
                found[place.name] = writer.add(place.name, bundle)
        if not found:
            raise InputError(f"{source}: the gates refused every bundle in it")
        now = datetime.now(UTC).replace(microsecond=0)
        index = Index(writer.number, now, now + timedelta(days=days), found)
        content = _index_json(index)
        signature = private_key.sign(DOMAIN + content).hex()
        writer.finish(f"edgeformer-index-1 {signature}\n".encode() + content, index)
    before = writer.history[0].bundles if writer.history else {}
    first = {name: update_bytes(PublishedBundle({}), each) for name, each in found.items()}
    update = {name: update_bytes(before[name], each) for name, each in found.items() if name in before}
    return Publication(site, index.number, index.expires, first, update, tuple(left_out))


def update_bytes(old: PublishedBundle, new: PublishedBundle) -> int:
    """What a device that has one bundle downloads to have another, without the index."""
    have = {EMPTY, *(file.sha256 for file in old.files.values())}
    return sum({file.sha256: file.cost_bytes(have) for file in new.files.values()}.values())


def _index_json(index: Index) -> bytes:
    """The canonical JSON, which is signed; a file without deltas has no such key."""
    data = {"format_version": 1, **to_data(index)}
    data |= {key: getattr(index, key).strftime(TIME_FORMAT) for key in ("published", "expires")}
    for bundle in data["bundles"].values():
        for file in bundle["files"].values():
            if not file["deltas"]:
                del file["deltas"]
    return dumps(data).encode()


class _Site:
    """The folder of a site while the next index is made. Its own files are trusted: readers check what they get."""

    def __init__(self, folder: Path, work: Path, keep: int) -> None:
        self._folder, self._work, self._keep = folder, work, keep
        numbers = sorted((int(file.stem) for file in (folder / HISTORY_FOLDER).glob("*.signed")), reverse=True)
        self.number = numbers[0] + 1 if numbers else 1
        self.history = [
            parse_index((folder / HISTORY_FOLDER / f"{number}.signed").read_bytes()[LINE_BYTES:])
            for number in numbers[:keep]
        ]
        """The indexes before this one that are kept, newest first."""

    def add(self, name: str, bundle: Bundle) -> PublishedBundle:
        """Take in a bundle's files, with deltas from the same files of the indexes that are kept."""
        files = {}
        for file_name, path in bundle.members().items():
            data = path.read_bytes()
            sha256 = self._put(data)
            before = [each.bundles[name].files.get(file_name) for each in self.history if name in each.bundles]
            known = {delta.base: delta for each in before if each and each.sha256 == sha256 for delta in each.deltas}
            bases = dict.fromkeys([EMPTY, *(each.sha256 for each in before if each and each.sha256 != sha256)])
            deltas: list[Delta] = []
            for base in bases if _LEAST_DELTA_BYTES <= len(data) <= MAX_DELTA_BYTES else ():
                delta = known.get(base) or self._delta(base, data)
                if delta is not None and delta.size <= _PAYS * min([len(data), *(each.size for each in deltas[:1])]):
                    deltas.append(delta)
            files[file_name] = PublishedFile(sha256, len(data), tuple(deltas))
        return PublishedBundle(files)

    def finish(self, data: bytes, index: Index) -> None:
        """Put the index into its place, and remove what no index that is kept refers to."""
        for place in (self._folder / HISTORY_FOLDER / f"{index.number}.signed", self._folder / INDEX_NAME):
            self._write(place, data)
        kept = [index, *self.history]
        listed = [file for each in kept for bundle in each.bundles.values() for file in bundle.files.values()]
        wanted = {hash_ for file in listed for hash_ in (file.sha256, *(delta.sha256 for delta in file.deltas))}
        for file in (self._folder / "files").glob("*/*"):
            if file.name not in wanted:
                file.unlink()
        for old in (self._folder / HISTORY_FOLDER).glob("*.signed"):
            if int(old.stem) < index.number - self._keep:
                old.unlink()

    def _delta(self, base: str, data: bytes) -> Delta | None:
        try:
            old = b"" if base == EMPTY else (self._folder / file_address(base)).read_bytes()
        except FileNotFoundError:
            return None
        delta = make_delta(old, data)
        return Delta(base, self._put(delta), len(delta)) if len(delta) <= _PAYS * len(data) else None

    def _put(self, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        place = self._folder / file_address(sha256)
        if not place.exists():
            self._write(place, data)
        return sha256

    def _write(self, place: Path, data: bytes) -> None:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            (self._work / place.name).write_bytes(data)
            put(self._work / place.name, place)
        except OSError as error:
            raise InputError(f"{place}: cannot be written: {error.strerror}") from None
