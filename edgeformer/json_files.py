"""Reads and writes JSON files of checkpoints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeformer_runtime.errors import InputError

MAX_JSON_BYTES = 64 << 20
"""Of one file: the largest of public checkpoints, tokenizers of a quarter of a million tokens, have 35 MB."""


def read_object(path: Path) -> dict[str, Any]:
    """A file's JSON object.

    Raises:
        InputError: the file is not UTF-8 JSON, or holds something else.
    """
    value = read_json(path)
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


def read_json(path: Path) -> Any:
    """A file's JSON value; a byte order mark before it, as Windows' editors write it, is skipped.

    Raises:
        InputError: the file is not UTF-8 JSON.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise InputError(f"{path.name} has {path.stat().st_size} bytes: expected {MAX_JSON_BYTES} at most")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"cannot read {path.name}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path.name} is not JSON: {error}") from None


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object as public checkpoints have them."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
