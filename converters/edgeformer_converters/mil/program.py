"""Reads the program of a Core ML package (MIL, the Model Intermediate Language) from its protobuf and weight file.

The format is that of coremltools' MIL.proto and MILBlob. Values are held as torch tensors that are ready to compute
with: every float type as float32 (a float16 value is a float32 one on float16's grid), every integer type as int32.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgeformer.foreign_code import quiet_tools
from edgeformer_runtime.bundle.strict_json import check_name, shorten
from edgeformer_runtime.errors import BundleError, EdgeFormerError, EngineError, InputError

PACKAGE_DATA = PurePosixPath("Data/com.apple.CoreML")
PACKAGE_MODEL = "model.mlmodel"

# Names of MIL.proto's data types to numpy's. Types narrower than a byte are packed, least significant bits first.
NUMPY_DTYPES: dict[str, type[np.generic]] = {
    "FLOAT16": np.float16,
    "FLOAT32": np.float32,
    "FLOAT64": np.float64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "BOOL": np.bool_,
}
PACKED_BITS = {"INT4": 4, "UINT1": 1, "UINT2": 2, "UINT3": 3, "UINT4": 4, "UINT6": 6}
NO_TENSOR = "NO_TENSOR"
"""In place of a data type: a list, or a dictionary of scores."""
BLOB_READERS = {"FLOAT16": "fp16", "FLOAT32": "float"}

Value = torch.Tensor | float | int | bool | str | tuple["Value", ...]
"""A constant: a tensor, a Python scalar where its rank is 0, or a tuple where it is a list."""


@dataclass(frozen=True)
class Variable:
    """A name with its MIL data type ("FLOAT16", "INT32", ...) and shape; None stands for a size that is not static."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Reference:
    """An operand that another operation, or the caller, provides under this name."""

    name: str


@dataclass(frozen=True)
class Operation:
    """One operator with its operands by the operator's own input names; an operand may be a tuple of several.

    `blocks` are what control flow runs: a condition's two branches, a loop's condition and body.
    """

    type: str
    name: str
    inputs: dict[str, Reference | Value | tuple[Reference | Value, ...]]
    outputs: tuple[Variable, ...]
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True)
class Block:
    """Operations that see everything around them, and the names of what goes in and comes out."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    operations: tuple[Operation, ...]


@dataclass(frozen=True)
class Function:
    """One entry of a package. States are inputs that outlive a call."""

    inputs: tuple[Variable, ...]
    states: tuple[Variable, ...]
    outputs: tuple[str, ...]
    operations: tuple[Operation, ...]
    constants: dict[str, Value]

    @cached_property
    def last_uses(self) -> dict[int, tuple[str, ...]]:
        """For each operation's index the names that no later operation needs."""
        last: dict[str, int] = {}
        for index, operation in enumerate(self.operations):
            last.update(dict.fromkeys(_references(operation), index))
        ends: dict[int, tuple[str, ...]] = {}
        for name, index in last.items():
            if name not in self.outputs and name not in self.constants:
                ends[index] = (*ends.get(index, ()), name)
        return ends


def _references(operation: Operation) -> Iterator[str]:
    for operand in operation.inputs.values():
        for each in operand if isinstance(operand, tuple) else (operand,):
            if isinstance(each, Reference):
                yield each.name
    for block in operation.blocks:
        yield from block.outputs
        for nested in block.operations:
            yield from _references(nested)


def read_program(package: str | os.PathLike[str]) -> dict[str, Function]:
    """All functions of an `.mlpackage`, by name.

    Raises:
        InputError: the folder is no Core ML package of an ML program.
    """
    with quiet_tools():
        from coremltools.proto import Model_pb2

    path = Path(package) / PACKAGE_DATA / PACKAGE_MODEL
    if not path.is_file():
        raise InputError(f"no Core ML package at {package}: expected {PACKAGE_DATA / PACKAGE_MODEL} in it")
    with one_line(path.parents[2].name, InputError):
        specification = Model_pb2.Model.FromString(path.read_bytes())
        if specification.WhichOneof("Type") != "mlProgram":
            raise InputError(f"{package} holds a {specification.WhichOneof('Type')}: expected an mlProgram")
        reader = _Reader(path.parent)
        return {name: reader.function(each) for name, each in sorted(specification.mlProgram.functions.items())}


class _Reader:
    """Decodes protobuf messages; a blob file is opened once, and read once for all functions that share a weight."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, Any] = {}
        self._blobs: dict[tuple[str, int], torch.Tensor] = {}

    def function(self, message: Any) -> Function:
        block = message.block_specializations[message.opset]
        constants: dict[str, Value] = {}
        operations = self._operations(block, constants)
        named = [(each.name, each.type) for each in message.inputs]
        return Function(
            inputs=tuple(_variable(name, kind) for name, kind in named if kind.WhichOneof("type") == "tensorType"),
            states=tuple(
                _variable(name, kind.stateType.wrappedType)
                for name, kind in named
                if kind.WhichOneof("type") == "stateType"
            ),
            outputs=tuple(block.outputs),
            operations=operations,
            constants=constants,
        )

    def _operations(self, block: Any, constants: dict[str, Value]) -> tuple[Operation, ...]:
        """A block's operations; its constants, whose names no other block of the function has, go to `constants`."""
        operations = []
        for each in block.operations:
            if each.type == "const":
                constants[each.outputs[0].name] = self._value(each.attributes["val"])
            else:
                operations.append(self._operation(each, constants))
        return tuple(operations)

    def _operation(self, message: Any, constants: dict[str, Value]) -> Operation:
        inputs: dict[str, Any] = {}
        for key, argument in message.inputs.items():
            operands = tuple(
                Reference(each.name) if each.WhichOneof("binding") == "name" else self._value(each.value)
                for each in argument.arguments
            )
            inputs[key] = operands[0] if len(operands) == 1 else operands
        # Operators that iOS 16 introduced for compressed weights have their operands among the attributes.
        inputs |= {key: self._value(value) for key, value in message.attributes.items() if key != "name"}
        outputs = tuple(_variable(each.name, each.type) for each in message.outputs)
        # Writing a state gives nothing.
        name = outputs[0].name if outputs else str(self._value(message.attributes["name"]))
        blocks = tuple(
            Block(
                tuple(variable.name for variable in each.inputs), tuple(each.outputs), self._operations(each, constants)
            )
            for each in message.blocks
        )
        return Operation(message.type, name, inputs, outputs, blocks)

    def _value(self, message: Any) -> Value:
        if message.type.WhichOneof("type") == "listType":
            return tuple(self._value(each) for each in message.immediateValue.list.values)
        if message.type.WhichOneof("type") != "tensorType":
            raise InputError(f"a constant of type {message.type.WhichOneof('type')} is not supported")
        variable = _variable("", message.type)
        if message.WhichOneof("value") == "blobFileValue":
            return self._blob(message.blobFileValue, variable).reshape(_static(variable))
        content = message.immediateValue.tensor
        values = getattr(content, content.WhichOneof("value")).values
        if variable.dtype == "STRING":
            return str(values[0])
        array = _unpack(values, variable) if isinstance(values, bytes) else np.array(values)
        tensor = _to_torch(array).reshape(_static(variable))
        return tensor if tensor.dim() else tensor.item()

    def _blob(self, message: Any, variable: Variable) -> torch.Tensor:
        from coremltools.libmilstoragepython import _BlobStorageReader

        file, offset = message.fileName, message.offset
        if (file, offset) not in self._blobs:
            if file not in self._files:
                self._files[file] = _BlobStorageReader(str(self._weight_file(file)))
            kind = BLOB_READERS.get(variable.dtype, variable.dtype.lower())
            array = np.asarray(getattr(self._files[file], f"read_{kind}_data")(offset))
            # The reader gives half floats as the integers that their bits spell.
            array = array.view(np.float16) if variable.dtype == "FLOAT16" else array
            self._blobs[file, offset] = _to_torch(array)
        return self._blobs[file, offset]

    def _weight_file(self, name: str) -> Path:
        """A file of the package: its name comes from the program, and must not lead out of the folder."""
        inside = name.removeprefix("@model_path/")
        try:
            check_name(inside)
        except BundleError as error:
            raise InputError(f"a weight's file: {error}") from None
        path = self._folder / inside
        if not path.is_file() or not path.resolve().is_relative_to(self._folder.resolve()):
            raise InputError(f"a weight's file {shorten(name)} is not in the package")
        return path


def _variable(name: str, message: Any) -> Variable:
    from coremltools.proto import MIL_pb2

    if message.WhichOneof("type") != "tensorType":
        return Variable(name, NO_TENSOR, ())
    tensor = message.tensorType
    sizes = tuple(
        each.constant.size if each.WhichOneof("dimension") == "constant" else None for each in tensor.dimensions
    )
    return Variable(name, MIL_pb2.DataType.Name(tensor.dataType), sizes)


def _static(variable: Variable) -> list[int]:
    return [size for size in variable.shape if size is not None]


def _unpack(content: bytes, variable: Variable) -> np.ndarray[Any, Any]:
    if variable.dtype in NUMPY_DTYPES:
        return np.frombuffer(content, NUMPY_DTYPES[variable.dtype])
    bits = PACKED_BITS[variable.dtype]
    count = int(np.prod(_static(variable)))
    return unpack_bits(np.frombuffer(content, np.uint8), bits, count, signed=variable.dtype.startswith("INT"))


def unpack_bits(packed: np.ndarray[Any, Any], bits: int, count: int, signed: bool = False) -> np.ndarray[Any, Any]:
    """Integers of `bits` bits from bytes that hold them one after the other, least significant bit first.

    Args:
        packed: uint8, at least count * bits / 8 of them.
        bits: width of one integer, 1 to 8.
        count: how many integers there are.
        signed: whether they are two's complement.

    Returns:
        (count,) int32.
    """
    each = np.unpackbits(packed, bitorder="little")[: count * bits].reshape(count, bits)
    values: np.ndarray[Any, Any] = (each.astype(np.int32) << np.arange(bits, dtype=np.int32)).sum(1, dtype=np.int32)
    if signed:
        values[values >= 1 << (bits - 1)] -= 1 << bits
    return values


def _to_torch(array: np.ndarray[Any, Any]) -> torch.Tensor:
    if array.dtype == np.bool_:
        return torch.from_numpy(array.copy())
    wide = np.float32 if array.dtype.kind == "f" else np.int64 if array.dtype.itemsize == 8 else np.int32
    return torch.from_numpy(array.astype(wide))


# The border around a Core ML package from a stranger: whatever its bytes make of reading or running it is one line.


@contextmanager
def one_line(what: str, kind: type[EngineError] | type[InputError]) -> Iterator[None]:
    """Turn what is raised inside the block into an error that says that the package is at fault.

    A message that is no program can be read as anything: a list as a tensor, a size below zero, a type without a name.
    Protobuf, the reader of weights, numpy and torch have no base class for what they raise then.

    Args:
        what: is read or run, for the message.
        kind: of the error.

    Raises:
        EdgeFormerError: of that kind, or as it was raised inside.
    """
    try:
        yield
    except (EdgeFormerError, ImportError):
        raise
    except Exception as error:
        reason = shorten(" ".join(str(error).split()), 200)[1:-1]
        raise kind(f"{what}: the Core ML program is not consistent: {type(error).__name__}: {reason}") from error


# How MIL's operators read their arguments.


def ints(values: Tensor | int) -> list[int]:
    """A vector, or a single number, as Python integers."""
    return [int(value) for value in torch.as_tensor(values).reshape(-1).tolist()]


def axes_of(axes: Tensor | None, x: Tensor) -> list[int]:
    """Axes counted from the front; None stands for all of them."""
    return list(range(x.dim())) if axes is None else [axis % x.dim() for axis in ints(axes)]


def several(values: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """The operands of a variadic input; a single one arrives bare."""
    return [values] if isinstance(values, Tensor) else [torch.as_tensor(value) for value in values]


def each_of(values: Sequence[int] | int) -> Sequence[int]:
    """The constants of a variadic input; a single one arrives bare."""
    return values if isinstance(values, Sequence) else [values]


def along_axis(value: Tensor | float, axis: int, rank: int) -> Tensor:
    """A scalar or (N,) per-channel tensor, shaped to broadcast along one of `rank` axes."""
    tensor = torch.as_tensor(value)
    return tensor.reshape([-1 if index == axis % rank else 1 for index in range(rank)]) if tensor.dim() else tensor


def pad_pairs(pad: Tensor) -> list[tuple[int, int]]:
    """Padding before and after each axis."""
    sizes = ints(pad)
    return list(zip(sizes[::2], sizes[1::2], strict=True))


# MIL's operators for compressed weights: what Core ML does once, when it loads a model.
#
# Semantics: coremltools' operator definitions for iOS 16 (`shape` given: flat, bit-packed data) and iOS 18.


def _per_block(values: Tensor, shape: torch.Size) -> Tensor:
    """Repeat each of `values` over the block of `shape` that it stands for; ranks are equal, sizes divide."""
    for axis, (blocks, size) in enumerate(zip(values.shape, shape, strict=True)):
        values = values.repeat_interleave(size // blocks, axis)
    return values


def affine_dequantize(quantized_data: Tensor, zero_point: Tensor | int, scale: Tensor | float, axis: int) -> Tensor:
    """(q - zero_point) * scale, per tensor or per channel of `axis`."""
    rank = quantized_data.dim()
    return (quantized_data - along_axis(zero_point, axis, rank)) * along_axis(scale, axis, rank)


def blockwise_shift_scale(data: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    """(data - offset) * scale; `scale` and `offset` have data's rank, and a size per axis that divides data's."""
    shifted = data if offset is None else data - _per_block(offset, data.shape)
    return shifted * _per_block(scale, data.shape)


def lut_to_dense(indices: Tensor, lut: Tensor, shape: Tensor | None = None, vector_axis: int | None = None) -> Tensor:
    """Look up palette entries: `lut` is (blocks..., palettes, vector size), or flat in iOS 16's form."""
    if shape is not None:
        bits = int(lut.numel() - 1).bit_length()
        count = int(shape.prod())
        flat = unpack_bits(indices.numpy().astype(np.uint8), bits, count)
        return lut[torch.from_numpy(flat).long()].reshape(shape.tolist())
    palettes, vector_size = lut.shape[-2:]
    tables = lut.reshape(*lut.shape[:-2], palettes * vector_size)
    for axis, size in enumerate(indices.shape):
        tables = tables.repeat_interleave(size // lut.shape[axis], axis)
    first = indices.long().unsqueeze(-1) * vector_size
    entries = torch.gather(tables, -1, first + torch.arange(vector_size))
    if vector_size == 1:
        return entries.squeeze(-1)
    if vector_axis is None:
        raise ValueError("a palette of vectors needs a vector_axis")
    axis = vector_axis % indices.dim()
    entries = entries.movedim(-1, axis + 1)
    return entries.flatten(axis, axis + 1)


def sparse_to_dense(nonzero_data: Tensor, mask: Tensor, shape: Tensor | None = None) -> Tensor:
    """Zeros with `nonzero_data` where `mask` is one."""
    if shape is not None:
        count = int(shape.prod())
        mask = torch.from_numpy(unpack_bits(mask.numpy().astype(np.uint8), 1, count)).reshape(shape.tolist())
    dense = torch.zeros(mask.shape, dtype=nonzero_data.dtype)
    dense[mask.bool()] = nonzero_data
    return dense


def lut_to_sparse(
    indices_mask: Tensor, indices_nonzero_data: Tensor, lut: Tensor, vector_axis: int | None = None
) -> tuple[Tensor, Tensor]:
    """Look up the entries where the mask is one: the mask of the result, and its nonzero data."""
    dense = lut_to_dense(sparse_to_dense(indices_nonzero_data, indices_mask), lut, vector_axis=vector_axis)
    mask = indices_mask
    if dense.shape != mask.shape:
        assert vector_axis is not None
        mask = mask.repeat_interleave(lut.shape[-1], vector_axis)
    return mask, dense[mask.bool()]


def sparse_blockwise_shift_scale(
    data_mask: Tensor, nonzero_data: Tensor, scale: Tensor, offset: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Shift and scale the entries where the mask is one: the mask, and the nonzero data of the result."""
    dense = blockwise_shift_scale(sparse_to_dense(nonzero_data, data_mask), scale, offset)
    return data_mask, dense[data_mask.bool()]


def cast(source_val: Tensor, output_dtype: str) -> Tensor:  # noqa: ARG001 - the reader states the result's type
    """A float16 constant as float32."""
    return source_val


CONSTEXPR: Mapping[str, Callable[..., Any]] = {
    "constexpr_affine_dequantize": affine_dequantize,
    "constexpr_blockwise_shift_scale": blockwise_shift_scale,
    "constexpr_cast": cast,
    "constexpr_lut_to_dense": lut_to_dense,
    "constexpr_lut_to_sparse": lut_to_sparse,
    "constexpr_sparse_blockwise_shift_scale": sparse_blockwise_shift_scale,
    "constexpr_sparse_to_dense": sparse_to_dense,
}
