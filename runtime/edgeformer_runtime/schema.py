"""Checks JSON values against the package's JSON Schema files and says in one line what is wrong and where."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Any

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from jsonschema.exceptions import ValidationError, best_match  # type: ignore[import-untyped]

from edgeformer_runtime.errors import BundleError
from edgeformer_runtime.strict_json import shorten


def check(value: Any, schema: str, where: str) -> None:
    """Check a parsed value.

    Args:
        value: what strict_json.loads gave.
        schema: a schema file of this package, like "manifest.schema.json".
        where: the value's file name, for messages.

    Raises:
        BundleError: names the key path, what was expected there and what was found.
    """
    error = best_match(_validator(schema).iter_errors(value))
    if error is not None:
        raise BundleError(f"{where}: {_path(error.absolute_path)}{_explain(error)}")


@cache
def _validator(schema: str) -> Draft202012Validator:
    text = resources.files("edgeformer_runtime").joinpath(schema).read_text(encoding="utf-8")
    return Draft202012Validator(json.loads(text))


def _path(parts: Iterable[str | int]) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return f"{shorten(text.removeprefix('.'), 160)[1:-1]}: " if text else ""


def _explain(error: ValidationError) -> str:
    """One sentence for each keyword that the schemas use."""
    expected: Any = error.validator_value
    found = shorten(error.instance)
    match error.validator:
        case "additionalProperties":
            valid = error.schema.get("properties", {})
            unknown = sorted(set(error.instance) - set(valid))
            return f"unknown key {shorten(unknown[0])}: expected only {', '.join(sorted(valid))}"
        case "required":
            missing = sorted(set(expected) - set(error.instance))
            return f"the key {missing[0]!r} is missing"
        case "enum":
            return f"expected one of {', '.join(map(str, expected))}, found {found}"
        case "const":
            return f"expected {expected!r}, found {found}"
        case "type":
            names = expected if isinstance(expected, list) else [expected]
            return f"expected {' or '.join(names)}, found {found}"
        case "pattern":
            return f"expected text like {expected}, found {found}"
        case keyword:
            return f"{keyword} is {expected}, found {found}"
