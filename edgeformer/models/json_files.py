"""Reads and writes JSON files of checkpoints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeformer.bounded_files import read_text
from edgeformer_runtime.bundle.strict_json import check_counts, check_depth, shorten
from edgeformer_runtime.errors import BundleError, InputError

MAX_VOCABULARY_JSON_BYTES = 64 << 20
"""Of a tokenizer.json or a vocab.json: the largest public ones, of a quarter of a million tokens, have 35 MB."""
MAX_JSON_BYTES = 8 << 20
"""Of any other file of a checkpoint."""


def read_object(path: Path, most_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """A file's JSON object.

    Args:
        path: the file.
        most_bytes: that a file of its kind has.

    Raises:
        InputError: the file is not UTF-8 JSON, or holds something else.
    """
    value = read_json(path, most_bytes)
    if not isinstance(value, dict):
        raise InputError(f"{path.name} must hold a JSON object, found {type(value).__name__}")
    return value


def read_list(path: Path) -> list[Any]:
    """A file's JSON list.

    Raises:
        InputError: the file is not UTF-8 JSON, or holds something else.
    """
    value = read_json(path)
    if not isinstance(value, list):
        raise InputError(f"{path.name} must hold a JSON list, found {type(value).__name__}")
    return value


def read_json(path: Path, most_bytes: int = MAX_JSON_BYTES) -> Any:
    """A file's JSON value; a byte order mark before it, as Windows' editors write it, is skipped.

    Raises:
        InputError: the file is not UTF-8 JSON.
    """
    return parse_json(read_text(path, most_bytes), path.name)


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text.

    Args:
        text: anyone's.
        where: where it stands, for messages.

    Raises:
        InputError: it is no JSON, holds too many values, or is nested too deep.
    """
    try:
        check_counts(text.encode("utf-8"), where)
        value = json.loads(text)
        check_depth(value, where)
    except BundleError as error:
        raise InputError(str(error)) from None
    except RecursionError:
        raise InputError(f"{where} is not JSON: it is nested too deep") from None
    except ValueError as error:
        raise InputError(f"{where} is not JSON: {shorten(str(error), 200)[1:-1]}") from None
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object as public checkpoints have them."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
