"""Who made a bundle: an Ed25519 signature over its manifest (RFC 8032), whose hashes cover every other file.

BUNDLE.md, "Signature", is normative. The package `cryptography` is imported when a signature is checked, not before.
"""

from __future__ import annotations

import hashlib
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

PublicKey: TypeAlias = str | Path | bytes
"""A PEM file of an Ed25519 public key, or the key's 32 bytes themselves."""

NEEDS_PACKAGE = "signatures need the package cryptography: pip install 'edgeformer-runtime[trust]'"


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
    return hashlib.sha256(key).hexdigest()


def read_public_key(key: PublicKey) -> bytes:
    """The 32 bytes of a public key.

    Raises:
        InputError: no Ed25519 public key, or `cryptography` is not installed.
    """
    if isinstance(key, bytes):
        if len(key) != PUBLIC_KEY_BYTES:
            raise InputError(f"expected {PUBLIC_KEY_BYTES} bytes of an Ed25519 public key, found {len(key)}")
        return key
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
    return loaded.public_bytes_raw()


def check(manifest: bytes, signature: bytes | None, required: bytes | None) -> SignatureState:
    """Check the signature before anything in the manifest is believed.

    Args:
        manifest: the exact bytes of manifest.json.
        signature: the bytes of manifest.sig; None: there is none.
        required: the public key's 32 bytes; None: none is required, and only the form is checked.

    Raises:
        BundleError: no signature where one is required, or not this key's over this manifest, or no signature at all.
        InputError: `cryptography` is not installed.
    """
    if signature is not None and len(signature) != SIGNATURE_BYTES:
        raise BundleError(f"{SIGNATURE_NAME}: expected {SIGNATURE_BYTES} bytes, found {len(signature)}: sign it again")
    if required is None:
        return SignatureState(signature is not None, None)
    if signature is None:
        raise BundleError(f"a signature is required, and the bundle has none: expected {SIGNATURE_NAME} in it")
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        raise InputError(NEEDS_PACKAGE) from None
    name = fingerprint(required)
    try:
        Ed25519PublicKey.from_public_bytes(required).verify(signature, signed_message(manifest))
    except (InvalidSignature, ValueError):
        raise BundleError(
            f"{SIGNATURE_NAME}: not a signature of this manifest by the key {name[:16]}: the bundle was changed after"
            " it was signed, or signed with another key"
        ) from None
    return SignatureState(True, name)
