"""Tensors whose names, types and shapes both sides know, as their bytes one after the other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeformer_runtime.bundle.specs import TensorSpec


def pack(tensors: Mapping[str, Any], specs: Sequence[TensorSpec]) -> bytes:
    """The tensors' bytes, in the order of their specs."""
    return b"".join(np.ascontiguousarray(tensors[spec.name]).tobytes() for spec in specs)


def unpack(data: bytes, specs: Sequence[TensorSpec]) -> dict[str, Any]:
    """The tensors, which are the caller's to change.

    Raises:
        ValueError: there are more or fewer bytes than they have.
    """
    found, at = {}, 0
    for spec in specs:
        count, kind = math.prod(spec.shape), np.dtype(spec.dtype)
        found[spec.name] = np.frombuffer(data, kind, count, at).reshape(spec.shape).copy()
        at += count * kind.itemsize
    if at != len(data):
        raise ValueError(f"expected {at} bytes of tensors, found {len(data)}")
    return found
