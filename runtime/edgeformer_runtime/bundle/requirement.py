"""What a bundle must be to be opened: signed by one of some keys, of a name, of a release that is new enough."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from edgeformer_runtime.bundle.signature import PublicKey, read_public_key
from edgeformer_runtime.bundle.strict_json import dumps, shorten
from edgeformer_runtime.errors import BundleError, InputError


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

_TEXT = re.compile(rb'\{\n  "name": "([A-Za-z0-9._-]+)",\n  "version": ([1-9][0-9]{0,15})\n\}\n')


def encode(name: str, version: int) -> bytes:
    """The file's bytes."""
    return dumps({"name": name, "version": version}).encode()


def decode(data: bytes, name: str) -> int:
    """The version that the file states.

    Args:
        data: the file's bytes.
        name: of the bundle, as its manifest states it.

    Raises:
        BundleError: any other bytes than `encode` gives for that name and some version.
    """
    match = _TEXT.fullmatch(data)
    if match is None or int(match[2]) > MAX_VERSION:
        raise BundleError(
            f'{RELEASE_FILE}: expected the canonical text of {{"name": {shorten(name)}, "version": 1 to {MAX_VERSION}}}'
            f", found {shorten(data[:200])}: sign with --release"
        )
    stated = match[1].decode("ascii")
    if stated != name:
        raise BundleError(f"{RELEASE_FILE}: it is of {shorten(stated)}, and the manifest of {shorten(name)}")
    return int(match[2])
