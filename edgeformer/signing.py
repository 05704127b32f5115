"""Signs bundles with Ed25519 (RFC 8032) and makes the keys; `edgeformer_runtime.bundle.signature` checks signatures."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeformer_runtime.bundle import archive
from edgeformer_runtime.bundle.bundle import Bundle
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
from edgeformer_runtime.delivery import alone, put, work_folder
from edgeformer_runtime.errors import InputError

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
