"""What a program takes and gives, tensor by tensor."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype ("float32", "int32", ...) and static shape of one input or output."""

    name: str
    dtype: str
    shape: tuple[int, ...]
