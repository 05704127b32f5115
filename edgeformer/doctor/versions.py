"""Versions of runtimes and systems, compared number by number."""

from __future__ import annotations

import re

from edgeformer_runtime.errors import InputError

Version = tuple[int, ...]


def parse_version(text: str, option: str) -> Version:
    """The numbers of a version like 2.1.0; what follows the first three, as in 2.13.0+cpu or 1.0.0rc1, is not compared.

    Raises:
        InputError: the text does not begin with a number; `option` is named as what is wrong.
    """
    found = re.match(r"\d+(\.\d+){0,2}", text)
    if found is None:
        raise InputError(f"expected {option} as a version like 2.1.0, found {text!r}")
    return tuple(int(number) for number in found[0].split("."))


def show(version: Version) -> str:
    """The version as text."""
    return ".".join(map(str, version))


def older(version: Version, needed: Version) -> bool:
    """Whether a version is older than the needed one; 2.1 is as old as 2.1.0."""
    length = max(len(version), len(needed))
    return version + (0,) * (length - len(version)) < needed + (0,) * (length - len(needed))
