"""Checks JSON values against the package's JSON Schema files and says in one line what is wrong first, and where.

Only the keywords that those files use are known. A check ends at the first error and looks at counts before it looks
into anything, so that a hostile file costs no more than a sound one of its size.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from typing import Any, NoReturn

from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import BundleError

Schema = Mapping[str, Any]


def check(value: Any, schema: str, where: str) -> None:
    """Check a parsed value.

    Args:
        value: what strict_json.loads gave.
        schema: a schema file of this package, like "manifest.schema.json".
        where: the value's file name, for messages.

    Raises:
        BundleError: names the key path, what was expected there and what was found.
    """
    document = _document(schema)
    try:
        _check(value, document, document, "")
    except _Invalid as error:
        raise BundleError(f"{where}: {error}") from None


class _Invalid(Exception):
    """A value that its schema refuses, in the message."""


@cache
def _document(schema: str) -> Schema:
    text = resources.files("edgeformer_runtime").joinpath(schema).read_text(encoding="utf-8")
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
