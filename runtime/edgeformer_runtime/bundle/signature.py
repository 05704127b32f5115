"""Who made a bundle: an Ed25519 signature over its manifest (RFC 8032), whose hashes cover every other file.

BUNDLE.md, "Signature", is normative. The package `cryptography` is imported when a signature is checked, not before.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from edgeformer_runtime.errors import BundleError, InputError

SIGNATURE_NAME = "manifest.sig"
SIGNATURE_BYTES = 64
PUBLIC_KEY_BYTES = 32
MAX_KEY_FILE_BYTES = 16 << 10

DOMAIN = b"edgeformer-bundle-manifest-1\n"
"""What stands before the manifest's bytes in what is signed, so that no signature made for anything else fits."""

PublicKey: TypeAlias = str | bytes | os.PathLike[str]
"""A PEM file of an Ed25519 public key, or the key's 32 bytes themselves."""

NEEDS_PACKAGE = "signatures need the package cryptography: pip install 'edgeformer-runtime[trust]'"


_KEY_INFO = bytes.fromhex("302a300506032b6570032100")  # what RFC 8410 has before the key's bytes
_PRIME = (1 << 255) - 19
_SMALL_ORDER = {
    bytes.fromhex(point)
    for point in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
}
"""The y of the eight points whose order divides 8: multiplied by it, every key gives the same, so anybody can sign."""


@dataclass(frozen=True)
class SignatureState:
    """What is known of a bundle's signature.

    Attributes:
        signed: the bundle has one.
        checked_by: the fingerprint of the key that it was checked with and fits; None: no key was required.
    """

    signed: bool
    checked_by: str | None

    @property
    def name(self) -> str:
        """ "unsigned", "unchecked" or "valid"."""
        if self.checked_by is not None:
            return "valid"
        return "unchecked" if self.signed else "unsigned"

    def to_json(self) -> dict[str, str | None]:
        """As `inspect --json` prints it."""
        return {"state": self.name, "key": self.checked_by}


def signed_message(manifest: bytes) -> bytes:
    """What is signed: the domain and the manifest file's exact bytes."""
    return DOMAIN + manifest


def fingerprint(key: bytes) -> str:
    """A public key's name for people: the SHA-256 of its 32 bytes, in hexadecimal."""
    import hashlib

    return hashlib.sha256(key).hexdigest()


def read_public_key(key: PublicKey) -> bytes:
    """The 32 bytes of a public key.

    Raises:
        InputError: no Ed25519 public key, or `cryptography` is not installed.
    """
    if isinstance(key, bytes):
        if len(key) != PUBLIC_KEY_BYTES:
            raise InputError(f"expected {PUBLIC_KEY_BYTES} bytes of an Ed25519 public key, found {len(key)}")
        return _strong(key, key.hex()[:16])
    try:
        with Path(key).open("rb") as file:
            pem = file.read(MAX_KEY_FILE_BYTES)
    except (OSError, ValueError) as error:
        raise InputError(f"{key}: cannot read the public key: {getattr(error, 'strerror', None) or error}") from None
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError:
        raise InputError(NEEDS_PACKAGE) from None
    if b"PRIVATE KEY" in pem:
        raise InputError(f"{key}: this is a private key: keep it to yourself and name the .pub beside it")
    try:
        loaded = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(f"{key}: expected a PEM file of an Ed25519 public key, as edgeformer sign makes") from None
    if not isinstance(loaded, Ed25519PublicKey):
        raise InputError(f"{key}: expected an Ed25519 public key, found another kind: make one with edgeformer sign")
    return _strong(loaded.public_bytes_raw(), key)


def public_pem(key: bytes) -> bytes:
    """A PEM file of a public key, as `read_public_key` takes it."""
    import base64

    body = base64.b64encode(_KEY_INFO + key).decode("ascii")
    return f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n".encode()


def is_weak(point: bytes) -> bool:
    """Whether 32 bytes are no point as RFC 8032 writes it, or one of small order."""
    y = point[:-1] + bytes([point[-1] & 0x7F])
    return int.from_bytes(y, "little") >= _PRIME or y in _SMALL_ORDER


def check(manifest: bytes, signature: bytes | None, required: Sequence[bytes]) -> SignatureState:
    """Check the signature before anything in the manifest is believed.

    Args:
        manifest: the exact bytes of manifest.json.
        signature: the bytes of manifest.sig; None: there is none.
        required: the 32 bytes of each key that may have signed; none: only the signature's form is checked.

    Raises:
        BundleError: no signature where one is required, or none of these keys' over this manifest, or no signature at
            all.
        InputError: `cryptography` is not installed.
    """
    if signature is not None and len(signature) != SIGNATURE_BYTES:
        raise BundleError(f"{SIGNATURE_NAME}: expected {SIGNATURE_BYTES} bytes, found {len(signature)}: sign it again")
    if not required:
        return SignatureState(signature is not None, None)
    if signature is None:
        raise BundleError(f"a signature is required, and the bundle has none: expected {SIGNATURE_NAME} in it")
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        raise InputError(NEEDS_PACKAGE) from None
    message = signed_message(manifest)
    for key in required:
        try:
            if not is_weak(key) and not is_weak(signature[:PUBLIC_KEY_BYTES]):
                Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
                return SignatureState(True, fingerprint(key))
        except (InvalidSignature, ValueError):
            continue
    names = " or ".join(fingerprint(key)[:16] for key in required)
    raise BundleError(
        f"{SIGNATURE_NAME}: not a signature of this manifest by the key {names}: the bundle was changed after"
        " it was signed, or signed with another key"
    )


def _strong(key: bytes, where: object) -> bytes:
    """The key, if not everybody can sign for it.

    Raises:
        InputError: it is of small order, or is not written as RFC 8032 says.
    """
    if is_weak(key):
        raise InputError(f"{where}: a key of small order, for which anybody can sign: make one with edgeformer sign")
    return key
