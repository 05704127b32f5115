"""Signs bundles with Ed25519 (RFC 8032) and makes the keys; `edgeformer_runtime.signature` checks what is made here."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from edgeformer_runtime import archive
from edgeformer_runtime.bundle import Bundle
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.manifest import MANIFEST_NAME
from edgeformer_runtime.signature import (
    MAX_KEY_FILE_BYTES,
    NEEDS_PACKAGE,
    SIGNATURE_NAME,
    fingerprint,
    signed_message,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PUBLIC_SUFFIX = ".pub"


def make_keys(path: Path) -> Path:
    """Make a key pair: the private key (PKCS #8 PEM, readable by its owner alone) and, beside it, the public one.

    Args:
        path: the private key's file. The public key's has the suffix `.pub` in place of its own.

    Returns:
        The public key's file.

    Raises:
        InputError: one of the files is there already, or cannot be written.
    """
    private_key = _ed25519().generate()
    from cryptography.hazmat.primitives import serialization

    public = path.with_suffix(PUBLIC_SUFFIX)
    if public == path:
        raise InputError(f"{path}: this is the public key's name: expected one like release.pem")
    if public.exists():
        raise InputError(f"{public}: is there already: expected a new name")
    private_pem = private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public_pem = private_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _create(path, private_pem, 0o600)
    _create(public, public_pem, 0o644)
    return public


def sign_bundle(path: Path, key: Path) -> str:
    """Sign a bundle, folder or zip, in place; the same key and bundle give the same bytes.

    Args:
        path: the bundle. It is checked whole before it is signed; a signature that it has is replaced.
        key: the private key's file, as `make_keys` writes it.

    Returns:
        The fingerprint of the key.

    Raises:
        InputError: the key cannot be used, or the bundle cannot be written.
        BundleError: it is no valid bundle.
    """
    private_key = _read_private_key(key)
    with Bundle.open(path) as bundle:
        members = bundle.members()
        signature = private_key.sign(signed_message(members[MANIFEST_NAME].read_bytes()))
        try:
            if path.is_dir():
                # Beside the bundle first: a strange file in it would make it invalid for whoever looks meanwhile.
                with _replacing(path / SIGNATURE_NAME, path.resolve().parent) as file:
                    file.write(signature)
            else:
                _sign_zip(path, members, signature)
        except OSError as error:
            raise InputError(f"{path}: cannot be signed: {error.strerror}") from None
    return fingerprint(private_key.public_key().public_bytes_raw())


def _sign_zip(path: Path, members: dict[str, Path], signature: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, SIGNATURE_NAME)
        file.write_bytes(signature)
        with _replacing(path, path.resolve().parent) as target:
            archive.write(target, {**members, SIGNATURE_NAME: file})


@contextmanager
def _replacing(path: Path, folder: Path) -> Iterator[IO[bytes]]:
    """A temporary file in a folder of the same file system that takes a file's place when the block ends well."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=folder)
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        partial.chmod(0o644)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _read_private_key(path: Path) -> Ed25519PrivateKey:
    kind = _ed25519()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        with path.open("rb") as file:
            pem = file.read(MAX_KEY_FILE_BYTES)
    except OSError as error:
        raise InputError(f"{path}: cannot read the private key: {error.strerror}") from None
    if b"PUBLIC KEY" in pem:
        raise InputError(f"{path}: this is a public key: signing takes the private one")
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
        raise InputError(f"{path}: is there already: expected a new name") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
