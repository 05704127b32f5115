"""Which release of a bundle this is: `release.json`, whose bytes a name and a version give (BUNDLE.md, "Release")."""

from __future__ import annotations

import re

from edgeformer_runtime.bundle.strict_json import dumps, shorten
from edgeformer_runtime.errors import BundleError

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
