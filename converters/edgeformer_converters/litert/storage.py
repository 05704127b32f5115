"""How a `.tflite` is kept: every constant, and every list of scales, once for all signatures."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# What is smaller stays inside the flatbuffer: a place of its own and padding would cost as much.
LEAST_BYTES = 1024
# A cache line, for XNNPACK reads some constants where they lie.
ALIGNMENT_BYTES = 64


def store_compactly(source: Path, path: Path) -> None:
    """Write a `.tflite` again, smaller.

    Large constants follow the flatbuffer, as in models of more than 2 GB, and each knows its offset and size. So two
    can share a place: those of equal content, and one that another begins with, as tables of positions do that differ
    in length alone. Weights of equal integers and other scales may not: XNNPACK's weight cache knows weights by their
    address, and would take the first one's scales for both. Equal quantization parameters are one table of the
    flatbuffer: every signature would repeat those of a table of embeddings, 12 bytes a row. Tensors are numbered: their
    names, of signatures' tensors too, are kept in the signatures, and the tool's own ones, with the path of modules
    that each comes from, take 200 kB a signature.

    Args:
        source: a model of one of the tools.
        path: a file that does not exist yet.
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model: Any = flatbuffer_utils.read_model(str(source))
    for number, graph in enumerate(model.subgraphs):
        for index, tensor in enumerate(graph.tensors):
            tensor.name = f"{number}.{index}"
    scales = _separate_scales(model)
    _share_quantization(model)
    contents = {
        index: _Content(bytes(buffer.data), scales.get(index, b""))
        for index, buffer in enumerate(model.buffers)
        if buffer.data is not None and len(buffer.data) >= LEAST_BYTES
    }
    places, stored = _arrange(contents.values())
    for index in contents:
        buffer = model.buffers[index]
        # The offsets are known when the flatbuffer's length is; a field that is 0 would not be there to be set.
        buffer.data, buffer.offset, buffer.size = None, 1, 1
    flatbuffer = flatbuffer_utils.convert_object_to_bytearray(model)
    flatbuffer += bytes(-len(flatbuffer) % ALIGNMENT_BYTES)
    packed = schema.Model.GetRootAs(flatbuffer)
    for index, content in contents.items():
        offset = len(flatbuffer) + places[content]
        flatbuffer_utils.update_packed_buffer(packed.Buffers(index), offset=offset, size=len(content.data))
    with path.open("xb") as file:
        file.write(flatbuffer)
        for data in stored:
            file.write(data + bytes(-len(data) % ALIGNMENT_BYTES))


class _Content(NamedTuple):
    """A constant's bytes, and the scales of the tensor that they are, none for floats."""

    data: bytes
    scales: bytes


def _separate_scales(model: Any) -> dict[int, bytes]:
    """The scales of each buffer's tensors, by index; a buffer that has tensors of several gets copies."""
    scales: dict[int, bytes] = {}
    copies: dict[tuple[int, bytes], int] = {}
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors):
        found = tensor.quantization
        if found is None or found.scale is None or not len(found.scale) or model.buffers[tensor.buffer].data is None:
            continue
        own = np.asarray(found.scale, np.float32).tobytes()
        if scales.setdefault(tensor.buffer, own) == own:
            continue
        original = tensor.buffer
        if (original, own) not in copies:
            copies[original, own] = len(model.buffers)
            model.buffers.append(copy(model.buffers[original]))
        tensor.buffer = copies[original, own]
        scales[tensor.buffer] = own
    return scales


def _arrange(contents: Iterable[_Content]) -> tuple[dict[_Content, int], list[bytes]]:
    """Where each content lies, and what has to be stored, each padded to the alignment, in this order."""
    places: dict[_Content, int] = {}
    stored: dict[bytes, list[_Content]] = {}
    order: list[bytes] = []
    end = 0
    for content in sorted(dict.fromkeys(contents), key=lambda each: len(each.data), reverse=True):
        alike = stored.setdefault(content.data[:LEAST_BYTES] + content.scales, [])
        longer = next((each for each in alike if each.data.startswith(content.data)), None)
        if longer is None:
            places[content] = end
            end += len(content.data) + -len(content.data) % ALIGNMENT_BYTES
            alike.append(content)
            order.append(content.data)
        else:
            places[content] = places[longer]
    return places, order


class _SharedVectors:
    """A flatbuffer's builder that keeps equal vectors once: most zero points of int8 are zeros, 8 bytes a channel."""

    def __init__(self, builder: Any, offsets: dict[tuple[str, bytes], int]) -> None:
        self._builder = builder
        self._offsets = offsets

    def __getattr__(self, name: str) -> Any:
        return getattr(self._builder, name)

    def CreateNumpyVector(self, values: NDArray[np.generic]) -> int:
        """The vector's offset; the name is the flatbuffers library's."""
        key = (str(values.dtype), values.tobytes())
        if key not in self._offsets:
            self._offsets[key] = self._builder.CreateNumpyVector(values)
        return self._offsets[key]


class _Once:
    """A table of the flatbuffer that is packed once, however many refer to it."""

    def __init__(self, table: Any, vectors: dict[tuple[str, bytes], int]) -> None:
        self.table = table
        self.vectors = vectors
        self.offset: int | None = None

    def Pack(self, builder: Any) -> int:
        """The table's offset; the name is the flatbuffers library's."""
        if self.offset is None:
            self.offset = self.table.Pack(_SharedVectors(builder, self.vectors))
        assert self.offset is not None
        return self.offset


def _share_quantization(model: Any) -> None:
    tables: dict[tuple[Any, ...], _Once] = {}
    vectors: dict[tuple[str, bytes], int] = {}
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors):
        found = tensor.quantization
        if found is None:
            continue
        for field, dtype in (("min", np.float32), ("max", np.float32), ("scale", np.float32), ("zeroPoint", np.int64)):
            values = getattr(found, field)
            setattr(found, field, None if values is None else np.asarray(values, dtype))
        if found.details is None:
            key = tuple(
                value.tobytes() if isinstance(value, np.ndarray) else value for _, value in sorted(vars(found).items())
            )
            tensor.quantization = tables.setdefault(key, _Once(found, vectors))
