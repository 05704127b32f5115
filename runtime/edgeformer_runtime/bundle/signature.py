"""Who made a bundle, which release it is, and what is required of it.

An Ed25519 signature is over the manifest (RFC 8032), whose hashes cover every other file.

BUNDLE.md, "Signature", is normative. The package `cryptography` is imported when a signature is checked, not before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from edgeformer_runtime.bundle.strict_json import dumps, shorten
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
    signer = signer_of(signed_message(manifest), signature, required)
    if signer is not None:
        return SignatureState(True, signer)
    names = " or ".join(fingerprint(key)[:16] for key in required)
    raise BundleError(
        f"{SIGNATURE_NAME}: not a signature of this manifest by the key {names}: the bundle was changed after"
        " it was signed, or signed with another key"
    )


def signer_of(message: bytes, signature: bytes, keys: Sequence[bytes]) -> str | None:
    """The fingerprint of the first of some keys whose signature of a message this is; None: it is none's.

    Args:
        message: what is signed, its domain included.
        signature: its 64 bytes.
        keys: the 32 bytes of each public key.

    Raises:
        InputError: `cryptography` is not installed.
    """
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        raise InputError(NEEDS_PACKAGE) from None
    for key in keys:
        try:
            if not is_weak(key) and not is_weak(signature[:PUBLIC_KEY_BYTES]):
                Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
                return fingerprint(key)
        except (InvalidSignature, ValueError):
            continue
    return None


def _strong(key: bytes, where: object) -> bytes:
    """The key, if not everybody can sign for it.

    Raises:
        InputError: it is of small order, or is not written as RFC 8032 says.
    """
    if is_weak(key):
        raise InputError(f"{where}: a key of small order, for which anybody can sign: make one with edgeformer sign")
    return key


# What a bundle must be to be opened: signed by one of some keys, of a name, of a release that is new enough.


@dataclass(frozen=True)
class Requirement:
    """What is required of a bundle; nothing, where nothing is given.

    Name and version bind together with keys only: who may write a manifest may write both.

    Attributes:
        keys: public keys, of which one must have signed it; none: it may be unsigned.
        name: the manifest's; None: any.
        version: the lowest release; None: any, or none at all.
    """

    keys: tuple[PublicKey, ...] = ()
    name: str | None = None
    version: int | None = None

    def __post_init__(self) -> None:
        version: object = self.version
        if version is not None and (
            not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= MAX_VERSION
        ):
            raise InputError(f"expected the required version as an integer from 1 to {MAX_VERSION}, found {version!r}")
        if self.name is not None and not self.name:
            raise InputError("expected the required name as a bundle's name, found an empty text")

    def key_bytes(self) -> tuple[bytes, ...]:
        """The 32 bytes of each key.

        Raises:
            InputError: one of them cannot be used.
        """
        return tuple(read_public_key(key) for key in self.keys)

    def check(self, name: str, version: int | None) -> None:
        """Compare with what a manifest and a release state.

        Raises:
            BundleError: another product's bundle, or too old a release.
        """
        too_old = self.version is not None and (version or 0) < self.version
        if too_old or self.name not in (None, name):
            expected, found = self._words(name), f"{shorten(name)}, {_release(version)}"
            raise BundleError(f"expected {expected}, found {found}: get the bundle that is meant")

    def to_json(self) -> dict[str, Any] | None:
        """Plain values, for another process of this machine; None: nothing is required."""
        if self == NO_REQUIREMENT:
            return None
        keys = [{"bytes": key.hex()} if isinstance(key, bytes) else {"file": os.fspath(key)} for key in self.keys]
        return {"keys": keys, "name": self.name, "version": self.version}

    @classmethod
    def from_json(cls, value: dict[str, Any] | None) -> Requirement:
        """The inverse of `to_json`."""
        if value is None:
            return cls()
        keys = tuple(bytes.fromhex(key["bytes"]) if "bytes" in key else key["file"] for key in value["keys"])
        return cls(keys, value["name"], value["version"])

    def _words(self, name: str) -> str:
        release = "" if self.version is None else f", release {self.version} or later"
        return f"{shorten(self.name or name)}{release}"


NO_REQUIREMENT = Requirement()

Required: TypeAlias = PublicKey | Sequence[PublicKey] | Requirement
"""A key, several of which one must have signed, or a `Requirement`."""


def requirement_of(required: Required | None, name: str | None = None, version: int | None = None) -> Requirement:
    """What is given to `load` and `Bundle.open`, as one value.

    Raises:
        InputError: an empty list of keys, which is no way to require none; or a name or version that cannot be.
    """
    if isinstance(required, Requirement):
        if name is not None or version is not None:
            raise InputError("expected name and version inside the Requirement, or beside keys")
        return required
    if required is None:
        return Requirement((), name, version)
    if isinstance(required, (str, bytes, os.PathLike)):
        return Requirement((required,), name, version)
    if not required:
        raise InputError("expected at least one public key, found an empty list: None requires none")
    return Requirement(tuple(required), name, version)


def _release(version: int | None) -> str:
    return f"which has no {RELEASE_FILE}" if version is None else f"release {version}"


# Which release of a bundle this is: `release.json`, whose bytes a name and a version give (BUNDLE.md, "Release").


RELEASE_FILE = "release.json"
MAX_RELEASE_BYTES = 4096
MAX_VERSION = (1 << 53) - 1
"""The largest integer up to which every reader of JSON tells each from the next."""

_TEXT = rb'\{\n  "name": "([A-Za-z0-9._-]+)",\n  "version": ([1-9][0-9]{0,15})\n\}\n'


def encode_release(name: str, version: int) -> bytes:
    """The file's bytes."""
    return dumps({"name": name, "version": version}).encode()


def decode_release(data: bytes, name: str) -> int:
    """The version that the file states.

    Args:
        data: the file's bytes.
        name: of the bundle, as its manifest states it.

    Raises:
        BundleError: any other bytes than `encode` gives for that name and some version.
    """
    match = re.fullmatch(_TEXT, data)
    if match is None or int(match[2]) > MAX_VERSION:
        raise BundleError(
            f'{RELEASE_FILE}: expected the canonical text of {{"name": {shorten(name)}, "version": 1 to {MAX_VERSION}}}'
            f", found {shorten(data[:200])}: sign with --release"
        )
    stated = match[1].decode("ascii")
    if stated != name:
        raise BundleError(f"{RELEASE_FILE}: it is of {shorten(stated)}, and the manifest of {shorten(name)}")
    return int(match[2])
