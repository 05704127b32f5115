"""Reads CTranslate2's model files (`model.bin`), the format of faster-whisper.

Little-endian: binary version, name and revision of the specification, then the variables and the aliases. A string is
its length with a closing zero, 2 bytes, and its bytes. A variable is name, number of dimensions (1 byte), dimensions
(4 bytes each), type (1 byte), size in bytes (4) and data (CTranslate2, python/ctranslate2/specs/model_spec.py).
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

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
    """Whether a file starts as CTranslate2's do; pickles and zips begin otherwise."""
    with path.open("rb") as file:
        head = file.read(6)
    if len(head) < 6:
        return False
    version, length = struct.unpack("<IH", head)
    return bool(0 < version < 256 and 1 < length < 256)


def read_contents(path: Path) -> Contents:
    """The headers of a file.

    Raises:
        InputError: the file is cut short, corrupted, or of another version.
    """
    try:
        with path.open("rb") as file:
            return _read_contents(file, path.stat().st_size)
    except (_CorruptedError, UnicodeDecodeError, struct.error) as error:
        raise InputError(f"cannot read {path.name}, it is corrupted or cut short: {error}") from None


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


class _CorruptedError(Exception):
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
            raise _CorruptedError(f"it holds {variable.name} twice")
        variables[variable.name] = variable
    aliases = {_string(file): _string(file) for _ in range(_count(file))}
    unknown = sorted(name for name in aliases.values() if name not in variables)
    if unknown or file.tell() != size:
        raise _CorruptedError(f"there is no {unknown[0]}" if unknown else "there is something behind its end")
    return Contents(specification, revision, variables, aliases)


def _header(file: BinaryIO, size: int) -> Variable:
    """Read a variable's header and skip its data."""
    name, rank = _string(file), _number(file, "<B")
    if rank > _MOST_DIMENSIONS:
        raise _CorruptedError(f"{name} has {rank} dimensions")
    shape = tuple(_number(file, "<I") for _ in range(rank))
    kind, length = _number(file, "<B"), _number(file, "<I")
    if kind >= len(_DTYPES):
        raise _CorruptedError(f"{name} is of the unknown type {kind}")
    offset = file.tell()
    # The format's field of 4 bytes wraps for larger variables, and so it is compared as it wraps.
    expected = math.prod(shape) * _DTYPES[kind].itemsize
    if expected % (1 << 32) != length or offset + expected > size:
        raise _CorruptedError(f"{name} of shape {list(shape)} holds {length} bytes instead of {expected}")
    file.seek(offset + expected)
    return Variable(name, shape, _DTYPES[kind], offset)


def _number(file: BinaryIO, form: str) -> int:
    value: int = struct.unpack(form, file.read(struct.calcsize(form)))[0]
    return value


def _count(file: BinaryIO) -> int:
    """How many entries follow."""
    count = _number(file, "<I")
    if count > MAX_VARIABLES:
        raise _CorruptedError(f"it states {count} variables, expected {MAX_VARIABLES} at most")
    return count


def _string(file: BinaryIO) -> str:
    length = _number(file, "<H")
    data = file.read(length)
    if length < 1 or len(data) != length or data[-1] != 0:
        raise _CorruptedError("a name is cut short")
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


# A Whisper in CTranslate2's format as a public checkpoint: its config and its tensors under their public names.
#
# CTranslate2 keeps the projections of queries, keys and values in one layer, those of the encoder's keys and values in
# another, and gives the keys' projection a bias, which is zero and which no softmax would notice if it were not.


WEIGHT_FILE = "model.bin"
SPECIFICATION, REVISION = "WhisperSpec", 3

_SCALARS: dict[str, int | None] = {
    "encoder/num_heads": None,
    "decoder/num_heads": None,
    "decoder/alignment_heads": None,
    "decoder/alignment_layer": None,
    "decoder/alibi_use_positive_positions": None,  # without a meaning where there is no alibi
    "decoder/scale_alibi": None,
    "decoder/activation": 3,  # GELU
    "decoder/pre_norm": 1,
    "decoder/alibi": 0,
    "decoder/scale_embeddings": 0,
    "decoder/start_from_zero_embedding": 0,
}
"""What describes the model beside its tensors, and the only value that a Whisper has; None: any."""

_NAMES = (
    (r"^(encoder|decoder)/", r"model.\1/"),
    (r"/position_encodings/encodings$", ".embed_positions.weight"),
    (r"/embeddings/weight$", ".embed_tokens.weight"),
    (r"^model\.decoder/projection/weight$", "proj_out.weight"),
    (r"/layer_(\d+)/", r".layers.\1/"),
    (r"/self_attention/layer_norm/", ".self_attn_layer_norm/"),
    (r"/attention/layer_norm/", ".encoder_attn_layer_norm/"),
    (r"/ffn/layer_norm/", ".final_layer_norm/"),
    (r"/layer_norm/", ".layer_norm/"),
    (r"/self_attention/linear_0/", ".self_attn.qkv/"),
    (r"/self_attention/linear_1/", ".self_attn.out_proj/"),
    (r"/attention/linear_0/", ".encoder_attn.q_proj/"),
    (r"/attention/linear_1/", ".encoder_attn.kv/"),
    (r"/attention/linear_2/", ".encoder_attn.out_proj/"),
    (r"/ffn/linear_0/", ".fc1/"),
    (r"/ffn/linear_1/", ".fc2/"),
    (r"/gamma$", ".weight"),
    (r"/beta$", ".bias"),
    (r"/", "."),
)
"""(regular expression, replacement), one after the other."""

_FUSED = {
    "qkv": ("q_proj", "k_proj", "v_proj"),
    "kv": ("k_proj", "v_proj"),
}

_CONFIG_NAMES = {
    "alignment_heads": "alignment_heads",
    "suppress_ids": "suppress_tokens",
    "suppress_ids_begin": "begin_suppress_tokens",
}
"""CTranslate2's name of a setting, and the public one."""


def describe(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The public config.json that a CTranslate2 folder stands for.

    Args:
        folder: with model.bin.
        settings: its own config.json, which knows nothing of sizes.

    Raises:
        InputError: the file is corrupted or holds another model.
    """
    contents = _contents(folder / WEIGHT_FILE)
    variables = contents.variables
    scalars = _scalars(folder / WEIGHT_FILE, contents)

    def size(name: str, dimension: int) -> int:
        if name not in variables or len(variables[name].shape) <= dimension:
            raise InputError(f"{WEIGHT_FILE} holds no {name}: expected a {SPECIFICATION}")
        return variables[name].shape[dimension]

    def layers(half: str) -> int:
        numbers = [re.match(rf"{half}/layer_(\d+)/", name) for name in variables]
        return 1 + max((int(number.group(1)) for number in numbers if number), default=-1)

    return {
        "model_type": "whisper",
        "vocab_size": size("decoder/embeddings/weight", 0),
        "num_mel_bins": size("encoder/conv1/weight", 1),
        "d_model": size("decoder/embeddings/weight", 1),
        "encoder_layers": layers("encoder"),
        "decoder_layers": layers("decoder"),
        "encoder_attention_heads": scalars["encoder/num_heads"],
        "decoder_attention_heads": scalars["decoder/num_heads"],
        "encoder_ffn_dim": size("encoder/layer_0/ffn/linear_0/weight", 0),
        "decoder_ffn_dim": size("decoder/layer_0/ffn/linear_0/weight", 0),
        "max_source_positions": size("encoder/position_encodings/encodings", 0),
        "max_target_positions": size("decoder/position_encodings/encodings", 0),
        **{public: settings[name] for name, public in _CONFIG_NAMES.items() if settings.get(name) is not None},
    }


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a model.bin by their public names; quantized ones as float32.

    Raises:
        InputError: the file is corrupted or holds another model.
    """
    contents = _contents(path)
    _scalars(path, contents)
    state: dict[str, Tensor] = {}
    for name, tensor in read_variables(path, contents).items():
        if tensor.dim() > 0:
            state |= _split(_public_name(name), tensor)
    return state


def _contents(path: Path) -> Contents:
    contents = read_contents(path)
    if (contents.specification, contents.revision) != (SPECIFICATION, REVISION):
        raise InputError(
            f"{path.name} holds a {contents.specification} of revision {contents.revision}: "
            f"expected a {SPECIFICATION} of revision {REVISION}"
        )
    return contents


def _scalars(path: Path, contents: Contents) -> dict[str, int]:
    """The values that describe the model; InputError where one means a model that is no Whisper of ours."""
    names = {
        name for name, variable in contents.variables.items() if not variable.shape and not name.endswith("_scale")
    }
    unknown = sorted(names - _SCALARS.keys())
    if unknown:
        raise InputError(f"{path.name}: unknown settings {', '.join(unknown)}: expected a plain {SPECIFICATION}")
    scalars = {name: int(tensor.item()) for name, tensor in read_variables(path, _only(contents, names)).items()}
    for name, expected in _SCALARS.items():
        found = scalars.get(name)
        if found is None and expected is None and name.endswith("num_heads"):
            raise InputError(f"{path.name} holds no {name}: expected a {SPECIFICATION}")
        if expected is not None and found not in (None, expected):
            raise InputError(f"{path.name}: {name} must be {expected}, found {found}")
    return scalars


def _only(contents: Contents, names: set[str]) -> Contents:
    variables = {name: variable for name, variable in contents.variables.items() if name in names}
    return Contents(contents.specification, contents.revision, variables, {})


def _public_name(name: str) -> str:
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _split(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A fused projection as its parts, without the keys' bias; any other tensor as it is."""
    module, _, kind = name.rpartition(".")
    parent, _, fused = module.rpartition(".")
    parts = _FUSED.get(fused)
    if parts is None:
        return {name: tensor}
    if tensor.shape[0] % len(parts):
        raise InputError(f"{name}: expected the rows of {len(parts)} projections, found {tensor.shape[0]}")
    chunks = zip(parts, tensor.chunk(len(parts)), strict=True)
    return {f"{parent}.{part}.{kind}": chunk for part, chunk in chunks if (part, kind) != ("k_proj", "bias")}
