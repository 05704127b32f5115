"""Safetensors files from strangers: the header is compared with what is there before any tensor is read."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeformer_runtime.bundle import strict_json
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.bundle.tensor_spec import TensorSpec
from edgeformer_runtime.engines.base import Tensor
from edgeformer_runtime.errors import BundleError

MAX_HEADER_BYTES = 16 << 20

_MAX_RANK = 8
_LENGTH = struct.Struct("<Q")
_METADATA = "__metadata__"
_DTYPES = {
    "F32": "float32", "I32": "int32", "U8": "uint8", "F64": "float64", "F16": "float16", "I64": "int64", "I8": "int8",
}  # fmt: skip
"""By the names of the format: what a bundle's tensors are, and what they are taken for by mistake."""


@dataclass(frozen=True)
class _Entry:
    """A tensor's place in the file."""

    spec: TensorSpec
    begin: int
    end: int


class TensorFile:
    """The tensors of a file, each read when it is taken, and each taken once."""

    def __init__(self, path: Path, where: str) -> None:
        """Read and check the header.

        Args:
            path: the file.
            where: its name, for messages.

        Raises:
            BundleError: it is no safetensors file, or its tensors do not lie one behind the other and fill it.
        """
        self._path = path
        self._where = where
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                start = file.read(_LENGTH.size)
                length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else size
                if not length <= min(size - _LENGTH.size, MAX_HEADER_BYTES):
                    raise self._spoiled(f"a header of {length} bytes in a file of {size}")
                header = file.read(length)
        except OSError as error:
            raise BundleError(f"{where}: cannot be read: {error.strerror}") from None
        self._begin = _LENGTH.size + length
        self._entries = self._parse(header, size - self._begin)

    @property
    def names(self) -> list[str]:
        """The tensors that were not taken yet."""
        return list(self._entries)

    def take(self, spec: TensorSpec) -> Tensor:
        """Read a tensor.

        Returns:
            An array of the spec's dtype and shape; finite, and the caller's.

        Raises:
            BundleError: it is not there, is another, or holds NaN or infinity.
        """
        entry = self._entries.pop(spec.name, None)
        if entry is None:
            raise BundleError(f"{self._where}: the tensor {spec.name!r} is missing")
        if entry.spec != spec:
            raise BundleError(
                f"{self._where}: {spec.name}: expected {spec.dtype} {spec.shape}, found {entry.spec.dtype}"
                f" {shorten(entry.spec.shape)}"
            )
        count = math.prod(spec.shape)
        stored = np.dtype(spec.dtype).newbyteorder("<")
        tensor = np.fromfile(self._path, stored, count, offset=self._begin + entry.begin)
        if tensor.size != count:
            raise self._spoiled(f"{spec.name} is cut short")
        if not np.isfinite(tensor).all():
            raise BundleError(f"{self._where}: {spec.name} holds NaN or infinity")
        return tensor.reshape(spec.shape).astype(spec.dtype, copy=False)

    def _parse(self, header: bytes, size: int) -> dict[str, _Entry]:
        document = strict_json.loads(header, f"{self._where}: header", MAX_HEADER_BYTES)
        if not isinstance(document, dict):
            raise self._spoiled("its header is no object")
        document.pop(_METADATA, None)
        entries = {name: self._entry(name, value) for name, value in document.items()}
        position = 0
        for entry in sorted(entries.values(), key=lambda each: (each.begin, each.end)):
            if entry.begin != position:
                raise self._spoiled(f"{shorten(entry.spec.name)} begins at {entry.begin}, expected {position}")
            position = entry.end
        if position != size:
            raise self._spoiled(f"its tensors end at {position} of {size} bytes")
        return entries

    def _entry(self, name: str, value: Any) -> _Entry:
        if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
            raise self._spoiled(f"{shorten(name)}: expected dtype, shape and data_offsets")
        dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            raise self._spoiled(f"{shorten(name)}: expected one of {', '.join(_DTYPES)}, found {shorten(dtype)}")
        for numbers in (shape, offsets):
            if not isinstance(numbers, list) or not all(type(number) is int and number >= 0 for number in numbers):
                raise self._spoiled(f"{shorten(name)}: expected numbers, found {shorten(numbers)}")
        spec = TensorSpec(name, _DTYPES[dtype], tuple(shape))
        length = math.prod(shape[:_MAX_RANK]) * np.dtype(spec.dtype).itemsize
        if len(shape) > _MAX_RANK or len(offsets) != 2 or offsets[1] - offsets[0] != length:
            raise self._spoiled(f"{shorten(name)}: its bytes are not those of its shape")
        return _Entry(spec, offsets[0], offsets[1])

    def _spoiled(self, reason: str) -> BundleError:
        return BundleError(f"{self._where}: not a safetensors file: {reason}")
