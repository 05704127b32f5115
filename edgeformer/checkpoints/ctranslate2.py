"""Reads CTranslate2's model files (`model.bin`), the format of faster-whisper.

Little-endian: binary version, name and revision of the specification, then the variables and the aliases. A string is
its length with a closing zero, 2 bytes, and its bytes. A variable is name, number of dimensions (1 byte), dimensions
(4 bytes each), type (1 byte), size in bytes (4) and data (CTranslate2, python/ctranslate2/specs/model_spec.py).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from edgeformer_runtime.errors import InputError

BINARY_VERSION = 6
"""The only one that holds Whispers."""

_DTYPES = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)
"""By their number in the file."""

_SCALE = "_scale"
_MOST_DIMENSIONS = 8
MAX_VARIABLES = 100_000


@dataclass(frozen=True)
class Variable:
    """A variable's header: where its data lies in the file."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    offset: int


@dataclass(frozen=True)
class Contents:
    """What a file holds, without the data. `aliases` maps further names to the variables that they stand for."""

    specification: str
    revision: int
    variables: dict[str, Variable]
    aliases: dict[str, str]


def is_ctranslate2(path: Path) -> bool:
    """Whether a file begins as CTranslate2's do; pickles and zips begin otherwise."""
    with path.open("rb") as file:
        head = file.read(6)
    if len(head) < 6:
        return False
    version, length = struct.unpack("<IH", head)
    return bool(0 < version < 256 and 1 < length < 256)


def read_contents(path: Path) -> Contents:
    """The headers of a file.

    Raises:
        InputError: the file is cut short, spoiled, or of another version.
    """
    try:
        with path.open("rb") as file:
            return _read_contents(file, path.stat().st_size)
    except (_SpoiledError, UnicodeDecodeError, struct.error) as error:
        raise InputError(f"cannot read {path.name}, it is spoiled or cut short: {error}") from None


def read_variables(path: Path, contents: Contents) -> dict[str, Tensor]:
    """All variables and aliases by name, quantized ones as float32 (CTranslate2, docs/quantization.md).

    A quantized variable `x` has a companion `x_scale`: of int8 a factor per row, of int16 one for all, by which it was
    multiplied.

    Raises:
        InputError: a quantized variable without its scale, or a scale of another shape.
    """
    read = dict(_read_data(path, contents))
    state: dict[str, Tensor] = {}
    for name, tensor in read.items():
        if name.endswith(_SCALE) and name.removesuffix(_SCALE) in read:
            continue
        scale = read.get(name + _SCALE)
        if tensor.dtype in (torch.int8, torch.int16) and tensor.dim() > 0:
            if scale is None:
                raise InputError(f"{path.name}: {name} is quantized and has no scale: expected {name}{_SCALE}")
            tensor = _dequantized(name, tensor, scale.float())
        state[name] = tensor
    # An alias may also stand for a scale, which is part of its tensor by now.
    return state | {alias: state[name] for alias, name in contents.aliases.items() if name in state}


class _SpoiledError(Exception):
    """What is wrong with the bytes."""


def _read_contents(file: BinaryIO, size: int) -> Contents:
    version = _number(file, "<I")
    if version != BINARY_VERSION:
        raise InputError(f"CTranslate2 model: expected binary version {BINARY_VERSION}, found {version}: convert again")
    specification, revision = _string(file), _number(file, "<I")
    variables: dict[str, Variable] = {}
    for _ in range(_count(file)):
        variable = _header(file, size)
        if variable.name in variables:
            raise _SpoiledError(f"it holds {variable.name} twice")
        variables[variable.name] = variable
    aliases = {_string(file): _string(file) for _ in range(_count(file))}
    unknown = sorted(name for name in aliases.values() if name not in variables)
    if unknown or file.tell() != size:
        raise _SpoiledError(f"there is no {unknown[0]}" if unknown else "there is something behind its end")
    return Contents(specification, revision, variables, aliases)


def _header(file: BinaryIO, size: int) -> Variable:
    """Read a variable's header and skip its data."""
    name, rank = _string(file), _number(file, "<B")
    if rank > _MOST_DIMENSIONS:
        raise _SpoiledError(f"{name} has {rank} dimensions")
    shape = tuple(_number(file, "<I") for _ in range(rank))
    kind, length = _number(file, "<B"), _number(file, "<I")
    if kind >= len(_DTYPES):
        raise _SpoiledError(f"{name} is of the unknown type {kind}")
    offset = file.tell()
    # The format's field of 4 bytes wraps for larger variables, and so it is compared as it wraps.
    expected = math.prod(shape) * _DTYPES[kind].itemsize
    if expected % (1 << 32) != length or offset + expected > size:
        raise _SpoiledError(f"{name} of shape {list(shape)} holds {length} bytes instead of {expected}")
    file.seek(offset + expected)
    return Variable(name, shape, _DTYPES[kind], offset)


def _number(file: BinaryIO, form: str) -> int:
    value: int = struct.unpack(form, file.read(struct.calcsize(form)))[0]
    return value


def _count(file: BinaryIO) -> int:
    """How many entries follow."""
    count = _number(file, "<I")
    if count > MAX_VARIABLES:
        raise _SpoiledError(f"it states {count} variables, expected {MAX_VARIABLES} at most")
    return count


def _string(file: BinaryIO) -> str:
    length = _number(file, "<H")
    data = file.read(length)
    if length < 1 or len(data) != length or data[-1] != 0:
        raise _SpoiledError("a name is cut short")
    return data[:-1].decode("utf-8")


def _read_data(path: Path, contents: Contents) -> Iterator[tuple[str, Tensor]]:
    with path.open("rb") as file:
        for variable in contents.variables.values():
            file.seek(variable.offset)
            data = bytearray(file.read(math.prod(variable.shape) * variable.dtype.itemsize))
            flat = torch.frombuffer(data, dtype=variable.dtype) if data else torch.empty(0, dtype=variable.dtype)
            yield variable.name, flat.reshape(variable.shape)


def _dequantized(name: str, tensor: Tensor, scale: Tensor) -> Tensor:
    if scale.dim() == 0 or scale.numel() == 1:
        return tensor.float() / scale.reshape(())
    if scale.shape != tensor.shape[:1]:
        raise InputError(f"{name}: expected a scale for each of {tensor.shape[0]} rows, found {list(scale.shape)}")
    return tensor.float() / scale.reshape(-1, *[1] * (tensor.dim() - 1))
