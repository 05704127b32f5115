"""How a model file is refused, and the limits that all formats share; see "Model files" in BUNDLE.md."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NoReturn

from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import BundleError

MAX_SIZE = (1 << 31) - 1
MAX_RANK = 8
MAX_ELEMENTS = 1 << 26
"""Of a tensor that is computed; constants are bounded by the file that holds their bytes."""

WAY_ON = "convert the bundle again, or get it again from its publisher"

Shape = tuple[int, ...]


class Broken(Exception):
    """A model file breaks a rule; whoever knows the file's name makes a `BundleError` of it."""


def refuse(message: str) -> NoReturn:
    """Raises Broken."""
    raise Broken(message)


def refusal(name: str, error: Broken) -> BundleError:
    """The error for a user."""
    return BundleError(f"{name}: {error}: {WAY_ON}")


def shown(name: object) -> str:
    """A name from the file, short and without control characters."""
    return shorten(name)


def check_shape(shape: Sequence[int], what: str, computed: bool = True) -> Shape:
    """The shape, if it is static and within the limits."""
    if len(shape) > MAX_RANK:
        refuse(f"{what} has {len(shape)} axes, at most {MAX_RANK} are allowed")
    if shape and (min(shape) < 0 or max(shape) > MAX_SIZE):
        refuse(f"{what} has the shape {shorten(list(shape))}: expected sizes of 0 to 2^31 - 1")
    if computed and math.prod(shape) > MAX_ELEMENTS:
        refuse(f"{what} has the shape {shorten(list(shape))}: expected at most 2^26 elements")
    return tuple(shape)


def check_range(offset: int, size: int, end: int, what: str) -> None:
    """Refuse bytes that do not lie before `end`."""
    if not (0 <= offset <= end and 0 <= size <= end - offset):
        refuse(f"{what} lies at {offset} with {size} bytes, of {end}")
