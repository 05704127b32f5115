"""Names of files inside a bundle: relative, ASCII, the same on every file system, never outside the bundle."""

from __future__ import annotations

import re
from collections.abc import Iterable

from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import BundleError

MAX_NAME_LENGTH = 255
MAX_NAME_PARTS = 16

_PART = re.compile(r"[A-Za-z0-9_@+.-]+")
_WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def check_name(name: str) -> None:
    """Refuse a name that could leave the bundle or that some file system cannot store.

    Raises:
        BundleError: names the rule that the name breaks.
    """
    shown = shorten(name)
    parts = name.split("/")
    outside = name.startswith("/") or "\\" in name or re.match(r"[A-Za-z]:", name) or ".." in parts
    if outside:
        raise BundleError(
            f"file name {shown} points outside the bundle: expected a relative name like 'vectors/a.json'"
        )
    if len(name) > MAX_NAME_LENGTH or len(parts) > MAX_NAME_PARTS:
        raise BundleError(
            f"file name {shown} is too long: at most {MAX_NAME_LENGTH} characters in {MAX_NAME_PARTS} parts are allowed"
        )
    for part in parts:
        usable = _PART.fullmatch(part) and not part.endswith(".") and not _WINDOWS_DEVICE.fullmatch(part)
        if not usable:
            raise BundleError(
                f"file name {shown} is not portable: expected parts of A-Z a-z 0-9 _ @ + . - that do not end with a dot"
            )


def check_distinct(names: Iterable[str]) -> None:
    """Refuse names that are the same on a case-insensitive file system, and files that are also folders.

    Raises:
        BundleError: names the two that collide.
    """
    seen: dict[str, str] = {}
    folders: dict[str, str] = {}
    for name in names:
        key = name.lower()
        if key in seen:
            raise BundleError(f"file names {shorten(seen[key])} and {shorten(name)} are the same on some file systems")
        seen[key] = name
        parts = name.split("/")
        for end in range(1, len(parts)):
            folder = "/".join(parts[:end])
            other = folders.setdefault(folder.lower(), folder)
            if other != folder:
                raise BundleError(f"folders {shorten(other)} and {shorten(folder)} are the same on some file systems")
    for key, name in seen.items():
        if key in folders:
            raise BundleError(f"{shorten(name)} is both a file and a folder")
