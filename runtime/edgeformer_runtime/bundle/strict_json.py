"""JSON without surprises: no duplicate keys, no NaN, bounded size and depth, one canonical text per value."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from edgeformer_runtime.errors import BundleError

MAX_DEPTH = 32
MAX_CONTAINERS = 1_000_000
"""Objects and lists of one file, which take 20 times their two characters once they are parsed."""
MAX_VALUES = 4_000_000

CONTROL_CHARACTER = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""C0, DEL, C1, and what turns the direction of the text behind it: a terminal obeys them."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def dumps(value: Any) -> str:
    """The canonical text of a value: sorted keys, two spaces of indentation, a final newline, no NaN or infinity."""
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def loads(data: bytes, where: str, max_bytes: int) -> Any:
    """Parse UTF-8 JSON from an untrusted file.

    Args:
        data: the file's bytes.
        where: the file's name, for messages.
        max_bytes: the largest accepted size.

    Raises:
        BundleError: not JSON, or JSON that other parsers would read differently (duplicate keys, NaN, too deep).
    """
    if len(data) > max_bytes:
        raise BundleError(f"{where}: expected at most {max_bytes} bytes, found {len(data)}")
    check_counts(data, where)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(f"{where}: expected UTF-8 text, found byte {data[error.start]:#04x}") from None

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise BundleError(f"{where}: the key {shorten(key)} occurs twice in one object")
            found[key] = value
        return found

    def not_json(constant: str) -> NoReturn:
        raise BundleError(f"{where}: {constant} is not JSON: expected finite numbers")

    def finite(digits: str) -> float:
        number = float(digits)
        if not math.isfinite(number):
            raise BundleError(f"{where}: the number {shorten(digits)} is out of range")
        return number

    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=not_json, parse_float=finite)
    except json.JSONDecodeError as error:
        raise BundleError(f"{where}: not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except ValueError:  # int() refuses thousands of digits
        raise BundleError(f"{where}: a number has too many digits") from None
    except RecursionError:
        raise BundleError(f"{where}: nested deeper than {MAX_DEPTH} levels") from None
    check_depth(value, where)
    if _SURROGATE_ESCAPE.search(text):  # elsewhere UTF-8 has seen to it
        _check_surrogates(value, where)
    return value


def load_file(path: Path, where: str, max_bytes: int) -> Any:
    """Parse a file of UTF-8 JSON, as `loads` does."""
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise BundleError(f"{where}: cannot be read: {error.strerror}") from None
    return loads(data, where, max_bytes)


def walk(value: Any) -> Iterator[tuple[int, Any]]:
    """Every value and key inside a parsed value with its depth, without recursion."""
    stack = [(0, value)]
    while stack:
        depth, item = stack.pop()
        yield depth, item
        if isinstance(item, dict):
            stack += [(depth + 1, key) for key in item]
            stack += [(depth + 1, child) for child in item.values()]
        elif isinstance(item, list):
            stack += [(depth + 1, child) for child in item]


def check_counts(data: bytes, where: str) -> None:
    """Refuse JSON of more parts than a file of ours has, before it is parsed.

    Raises:
        BundleError: says which parts are too many.
    """
    containers, values = data.count(b"[") + data.count(b"{"), data.count(b",")
    if containers > MAX_CONTAINERS or values > MAX_VALUES:
        found = f"{containers} objects and lists" if containers > MAX_CONTAINERS else f"{values} values"
        most = MAX_CONTAINERS if containers > MAX_CONTAINERS else MAX_VALUES
        raise BundleError(f"{where}: {found}: expected {most} at most")


def check_depth(value: Any, where: str) -> None:
    """Refuse a parsed value that is nested deeper than `MAX_DEPTH`.

    Raises:
        BundleError: it is.
    """
    containers = [value] if isinstance(value, (dict, list)) else []
    for _ in range(MAX_DEPTH):
        children = (item.values() if isinstance(item, dict) else item for item in containers)
        containers = [child for inner in children for child in inner if isinstance(child, (dict, list))]
    if any(containers):
        raise BundleError(f"{where}: nested deeper than {MAX_DEPTH} levels")


def _check_surrogates(value: Any, where: str) -> None:
    for _, leaf in walk(value):
        if isinstance(leaf, str) and _SURROGATE.search(leaf):
            raise BundleError(f"{where}: {shorten(leaf)} holds half of a surrogate pair: expected valid Unicode")


def shorten(value: object, limit: int = 80) -> str:
    """A value as it may be shown in a one-line message: what cannot be printed, or turns the direction, is escaped."""
    if isinstance(value, str | bytes):
        value = value[: limit + 1]  # what is cut off need not be written first
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # ValueError: an integer of thousands of digits
        text = f"a {type(value).__name__} too long to show"
    return text if len(text) <= limit else text[: limit - 3] + "..."
