"""How golden files are written and compared: a case per line, floats to the digits that all processors agree on."""

from __future__ import annotations

import io
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

FOLDER = Path(__file__).parent

JSON_TOLERANCE = 2e-6
TENSOR_TOLERANCE = 1e-5
"""Vector instructions of another processor round sums, exponentials and transforms otherwise in the last digits."""

LOGARITHMS = {"log_mel.safetensors": 2e-4, "recording.safetensors": 2e-4}
"""A float32 transform leaves rounding where a frequency is nearly silent, and the logarithm shows it: 7e-5 was seen
between two processors. The bundle format allows .001."""

Tensors = dict[str, np.ndarray]


def document(made_by: str, cases: list[Any], **header: Any) -> bytes:
    """A JSON file: what made it, what all cases share, then one case per line."""
    head = json.dumps({"made_by": made_by, **header}, ensure_ascii=False, allow_nan=False)
    lines = ",\n".join(json.dumps(case, ensure_ascii=False, allow_nan=False) for case in cases)
    return f'{head[:-1]}, "cases": [\n{lines}\n]}}\n'.encode()


def tensors(values: Tensors) -> bytes:
    """A safetensors file of contiguous arrays."""
    return save({name: np.ascontiguousarray(values[name]) for name in sorted(values)})


def difference(name: str, committed: bytes, made: bytes) -> str | None:
    """Where two versions of a golden file differ by more than rounding; None where they do not."""
    if committed == made:
        return None
    if name.endswith(".json"):
        return _difference(json.loads(committed), json.loads(made), name)
    if name.endswith(".safetensors"):
        return _tensor_difference(load(committed), load(made), LOGARITHMS.get(name, TENSOR_TOLERANCE))
    if name.endswith(".zip"):
        return _bundle_difference(committed, made)
    return f"{name}: other bytes"


def _difference(a: Any, b: Any, path: str) -> str | None:
    if isinstance(a, float) and isinstance(b, float):
        return None if math.isclose(a, b, rel_tol=JSON_TOLERANCE, abs_tol=JSON_TOLERANCE) else f"{path}: {a} and {b}"
    if type(a) is not type(b):
        return f"{path}: {a!r} and {b!r}"
    if isinstance(a, dict):
        if a.keys() != b.keys():
            return f"{path}: the keys {sorted(a)} and {sorted(b)}"
        pairs = [(f"{path}.{key}", a[key], b[key]) for key in a]
    elif isinstance(a, list):
        if len(a) != len(b):
            return f"{path}: {len(a)} and {len(b)} items"
        pairs = [(f"{path}[{index}]", *pair) for index, pair in enumerate(zip(a, b, strict=True))]
    else:
        return None if a == b else f"{path}: {a!r} and {b!r}"
    return next((found for where, x, y in pairs if (found := _difference(x, y, where))), None)


def _tensor_difference(a: Tensors, b: Tensors, most: float) -> str | None:
    if a.keys() != b.keys():
        return f"the tensors {sorted(a)} and {sorted(b)}"
    for key in a:
        if a[key].dtype != b[key].dtype or a[key].shape != b[key].shape:
            return f"{key}: {a[key].dtype} {a[key].shape} and {b[key].dtype} {b[key].shape}"
        tolerance = most if a[key].dtype.kind == "f" else 0
        if not np.allclose(a[key], b[key], rtol=tolerance, atol=tolerance):
            return f"{key}: other values"
    return None


def _bundle_difference(a: bytes, b: bytes) -> str | None:
    """Two bundles, but for the hashes in their manifests."""
    with zipfile.ZipFile(io.BytesIO(a)) as left, zipfile.ZipFile(io.BytesIO(b)) as right:
        if left.namelist() != right.namelist():
            return f"the files {left.namelist()} and {right.namelist()}"
        for name in left.namelist():
            pair = left.read(name), right.read(name)
            if name == "manifest.json":
                pair = (_without_files(pair[0]), _without_files(pair[1]))
            if found := difference(name, *pair):
                return found
    return None


def _without_files(manifest: bytes) -> bytes:
    value = json.loads(manifest)
    value["files"] = sorted(value["files"])
    return json.dumps(value).encode()
