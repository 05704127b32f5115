"""JSON without surprises: no duplicate keys, no NaN, bounded size and depth, one canonical text per value."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

from edgeformer_runtime.errors import BundleError, InputError

MAX_DEPTH = 32
MAX_CONTAINERS = 1_000_000
"""Objects and lists of one file, which take 20 times their two characters once they are parsed."""
MAX_VALUES = 4_000_000
MAX_RECORDED_KEYS = 200_000
"""Of recorded vectors, whose objects are few: a key takes ten times its characters."""

_PACKAGE = Path(__file__).parents[1]
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_BEYOND_FLOATS = re.compile("[0-9]{309}")
"""Digits of an integer that no float can hold, or of something shorter that is looked at more closely then."""


def dumps(value: Any) -> str:
    """The canonical text of a value: sorted keys, two spaces of indentation, a final newline, no NaN or infinity."""
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def loads(data: bytes, where: str, max_bytes: int, max_keys: int = MAX_VALUES) -> Any:
    """Parse UTF-8 JSON from an untrusted file.

    Args:
        data: the file's bytes.
        where: the file's name, for messages.
        max_bytes: the largest accepted size.
        max_keys: of all objects together. Colons are counted, those in texts, too.

    Raises:
        BundleError: not JSON, or JSON that other parsers would read differently (duplicate keys, NaN, too deep).
    """
    if len(data) > max_bytes:
        raise BundleError(f"{where}: expected at most {max_bytes} bytes, found {len(data)}")
    check_counts(data, where, max_keys)
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

    def whole(digits: str) -> int:
        finite(digits)
        return int(digits)

    integer = whole if _BEYOND_FLOATS.search(text) else int
    try:
        value = json.loads(
            text, object_pairs_hook=unique, parse_constant=not_json, parse_float=finite, parse_int=integer
        )
    except json.JSONDecodeError as error:
        raise BundleError(f"{where}: not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise BundleError(f"{where}: nested deeper than {MAX_DEPTH} levels") from None
    check_depth(value, where)
    if _SURROGATE_ESCAPE.search(text):  # elsewhere UTF-8 has seen to it
        _check_surrogates(value, where)
    return value


def load_file(path: Path, where: str, max_bytes: int, max_keys: int = MAX_VALUES) -> Any:
    """Parse a file of UTF-8 JSON, as `loads` does."""
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise BundleError(f"{where}: cannot be read: {error.strerror}") from None
    return loads(data, where, max_bytes, max_keys)


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


def check_counts(data: bytes, where: str, max_keys: int = MAX_VALUES) -> None:
    """Refuse JSON of more parts than a file of ours has, before it is parsed.

    Raises:
        BundleError: says which parts are too many.
    """
    parts = (
        (data.count(b"[") + data.count(b"{"), MAX_CONTAINERS, "objects and lists"),
        (data.count(b","), MAX_VALUES, "values"),
        (data.count(b":"), max_keys, "keys"),
    )
    for found, most, what in parts:
        if found > most:
            raise BundleError(f"{where}: {found} {what}: expected {most} at most")


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
        if isinstance(leaf, str) and any("\ud800" <= character <= "\udfff" for character in leaf):
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


# Names of files inside a bundle: relative, ASCII, the same on every file system, never outside the bundle.

MAX_NAME_LENGTH = 255
MAX_NAME_PARTS = 16

_PART = re.compile(r"[A-Za-z0-9_@+.-]+")
_WINDOWS_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}


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
        usable = (
            _PART.fullmatch(part) and not part.endswith(".") and part.partition(".")[0].lower() not in _WINDOWS_DEVICES
        )
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


# Frozen dataclasses to plain JSON values and back, for every record of the format by the same rule.


T = TypeVar("T")

OPTIONAL = {"optional": True}
"""The metadata of a field that is written only where it is not its default: a key that the format had not always."""


def to_data(record: Any) -> Any:
    """A dataclass, or a dict, tuple or plain value of them, as JSON values. None is null.

    Every field is written, but for `OPTIONAL` ones with their default.
    """
    if dataclasses.is_dataclass(record):
        found = ((field, getattr(record, field.name)) for field in dataclasses.fields(record))
        return {
            field.name: to_data(value)
            for field, value in found
            if value != field.default or "optional" not in field.metadata
        }
    if isinstance(record, dict):
        return {key: to_data(value) for key, value in record.items()}
    if isinstance(record, (tuple, list)):
        return [to_data(value) for value in record]
    return record


def from_data(kind: type[T], value: Any, where: str, records: Mapping[Any, type] | None = None) -> T:
    """The dataclass that `to_data` wrote, from a value that has passed its schema.

    Args:
        kind: the dataclass.
        value: the parsed value.
        where: its file's name, for messages.
        records: for fields that are annotated with a protocol, the dataclass that follows it.

    Raises:
        BundleError: a number is written as 1.0 where an integer belongs (JSON Schema cannot tell them apart), or
            values contradict each other.
    """
    try:
        return cast(T, _build(kind, value, "", records or {}))
    except _WrongType as error:
        raise BundleError(f"{where}: {error}") from None
    except InputError as error:  # a record's own __post_init__, which does not know where its values come from
        raise BundleError(f"{where}: {error}") from None


class _WrongType(Exception):
    """A value of another type than its field, at the path in the message."""


def _build(kind: Any, value: Any, path: str, records: Mapping[Any, type]) -> Any:
    kind = records.get(kind, kind)
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    prefix = f"{path}." if path else ""
    if origin in (types.UnionType, typing.Union):
        (member,) = (argument for argument in arguments if argument is not type(None))
        return None if value is None else _build(member, value, path, records)
    if origin is tuple:
        return tuple(_build(arguments[0], item, f"{path}[{index}]", records) for index, item in enumerate(value))
    if origin is dict:
        return {key: _build(arguments[1], item, prefix + key, records) for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        hints = _hints(cast(type, kind))
        built = {key: _build(hints[key], item, prefix + key, records) for key, item in value.items()}
        return cast(Any, kind)(**built)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise _WrongType(f"{path}: expected {kind.__name__}, found {shorten(value)}")
    return value


@cache
def _hints(record: type) -> dict[str, Any]:
    return typing.get_type_hints(record)


# Checks JSON values against the package's JSON Schema files and says in one line what is wrong first, and where.
#
# Only the keywords that those files use are known. A check ends at the first error and looks at counts before it looks
# into anything, so that a hostile file costs no more than an intact one of its size.


Schema = Mapping[str, Any]


def check(value: Any, schema: str | Schema, where: str) -> None:
    """Check a parsed value.

    Args:
        value: what strict_json.loads gave.
        schema: a schema file of this package, like "manifest.schema.json", or a document of the same keywords.
        where: the value's file name, for messages.

    Raises:
        BundleError: names the key path, what was expected there and what was found.
    """
    document = load_schema(schema) if isinstance(schema, str) else schema
    try:
        _check(value, document, document, "")
    except _Invalid as error:
        raise BundleError(f"{where}: {error}") from None


class _Invalid(Exception):
    """A value that its schema refuses, in the message."""


@cache
def load_schema(name: str) -> Schema:
    """A schema file of this package, which is not the caller's to change."""
    text = (_PACKAGE / name).read_text(encoding="utf-8")
    document: Schema = json.loads(text)
    return document


def _check(value: Any, schema: Schema, document: Schema, path: str) -> None:
    if "$ref" in schema:
        schema = document["$defs"][schema["$ref"].rpartition("/")[2]]
    for keyword, expected in schema.items():
        rule = _RULES.get(keyword)
        if rule is not None and not rule(value, expected):
            _refuse(path, f"{_EXPLAINED.get(keyword, _bound)(keyword, expected)}, found {shorten(value)}")
    if isinstance(value, dict):
        _check_object(value, schema, document, path)
    elif isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            _check(item, schema["items"], document, f"{path}[{index}]")
    for branch in schema.get("allOf", ()):
        if _fits(value, branch["if"], document):
            _check(value, branch["then"], document, path)


def _check_object(value: dict[str, Any], schema: Schema, document: Schema, path: str) -> None:
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    if others is False and value.keys() - properties.keys():
        unknown = min(value.keys() - properties.keys())
        _refuse(path, f"unknown key {shorten(unknown)}: expected only {', '.join(sorted(properties))}")
    for key in sorted(schema.get("required", ())):
        if key not in value:
            _refuse(path, f"the key {key!r} is missing")
    for key, needed in schema.get("dependentRequired", {}).items():
        for other in needed if key in value else ():
            if other not in value:
                _refuse(path, f"the key {other!r} is missing beside {key!r}")
    for key, item in value.items():
        inner = f"{path}.{key}" if path else key
        if "propertyNames" in schema:
            _check(key, schema["propertyNames"], document, inner)
        if key in properties:
            _check(item, properties[key], document, inner)
        elif isinstance(others, dict):
            _check(item, others, document, inner)


def _fits(value: Any, schema: Schema, document: Schema) -> bool:
    try:
        _check(value, schema, document, "")
    except _Invalid:
        return False
    return True


def _refuse(path: str, message: str) -> NoReturn:
    where = f"{shorten(path, 160)[1:-1]}: " if path else ""
    raise _Invalid(f"{where}{message}")


def _is_a(value: Any, expected: str | list[str]) -> bool:
    return any(_TYPES[name](value) for name in ([expected] if isinstance(expected, str) else expected))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": _is_number,
    # JSON Schema takes 1.0 for an integer; records.from_data does not.
    "integer": lambda value: _is_number(value) and math.isfinite(value) and value % 1 == 0,
}


def _equal(value: Any, expected: Any) -> bool:
    """JSON's equality, where true is not 1."""
    return bool(value == expected) and isinstance(value, bool) == isinstance(expected, bool)


# What a keyword asks of a value, in the order of the schema's own keywords: types and counts stand before contents.
_RULES: dict[str, Callable[[Any, Any], bool]] = {
    "type": _is_a,
    "const": _equal,
    "enum": lambda value, expected: any(_equal(value, choice) for choice in expected),
    "pattern": lambda value, expected: not isinstance(value, str) or re.search(expected, value) is not None,
    "minLength": lambda value, least: not isinstance(value, str) or len(value) >= least,
    "maxLength": lambda value, most: not isinstance(value, str) or len(value) <= most,
    "minItems": lambda value, least: not isinstance(value, list) or len(value) >= least,
    "maxItems": lambda value, most: not isinstance(value, list) or len(value) <= most,
    "minProperties": lambda value, least: not isinstance(value, dict) or len(value) >= least,
    "maxProperties": lambda value, most: not isinstance(value, dict) or len(value) <= most,
    "minimum": lambda value, least: not _is_number(value) or value >= least,
    "maximum": lambda value, most: not _is_number(value) or value <= most,
    "exclusiveMinimum": lambda value, below: not _is_number(value) or value > below,
}

_OF_AN_OBJECT = ("properties", "additionalProperties", "required", "dependentRequired", "propertyNames")
_KEYWORDS = {*_RULES, *_OF_AN_OBJECT, "items", "allOf", "$ref", "$schema", "$id", "$defs", "title"}
"""All that may stand in a schema of this package; a test holds the files to it."""


def _bound(keyword: str, expected: Any) -> str:
    return f"{keyword} is {expected}"


_EXPLAINED: dict[str, Callable[[str, Any], str]] = {
    "type": lambda _, expected: f"expected {' or '.join([expected] if isinstance(expected, str) else expected)}",
    "const": lambda _, expected: f"expected {expected!r}",
    "enum": lambda _, expected: f"expected one of {', '.join(map(str, expected))}",
    "pattern": lambda _, expected: f"expected text like {expected}",
}
