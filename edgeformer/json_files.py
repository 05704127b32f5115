"""Reads JSON files of checkpoints."""

from __future__ import annotations

import json
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
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise InputError(f"{path.name} has {path.stat().st_size} bytes: expected {MAX_JSON_BYTES} at most")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path.name}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path.name} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path.name} must hold a JSON object, found {type(value).__name__}")
    return value
