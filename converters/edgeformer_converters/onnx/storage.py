"""How ONNX models are kept: no trace of the machine, weights once for all the programs, half weights where asked."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

WEIGHTS_FILE = "weights.bin"
# The specification asks for page alignment of what is memory-mapped; what is smaller than a page stays in the graph.
PAGE_BYTES = 4096
# Biases, norms and constants are a thousandth of the size and lose the most from rounding.
HALF_MIN_ELEMENTS = 1024


def save_models(models: Mapping[str, onnx.ModelProto], folder: Path) -> tuple[str, ...]:
    """Write one `<name>.onnx` per model; several models keep their large weights, each once, in `weights.bin`.

    Args:
        models: model by program name; they are changed in place and not to be used afterwards.
        folder: an existing folder.

    Returns:
        The names of the files.
    """
    files = [f"{name}.onnx" for name in models]
    for model in models.values():
        strip_metadata(model)
    if len(models) > 1:
        _share_weights(models, folder / WEIGHTS_FILE)
        files.append(WEIGHTS_FILE)
    for name, model in models.items():
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))
    return tuple(files)


def _share_weights(models: Mapping[str, onnx.ModelProto], path: Path) -> None:
    offsets: dict[bytes, int] = {}
    with path.open("wb") as file:
        for model in models.values():
            for tensor in model.graph.initializer:
                content = numpy_helper.to_array(tensor).tobytes()
                if len(content) < PAGE_BYTES:
                    continue
                digest = hashlib.sha256(content).digest()
                if digest not in offsets:
                    file.write(bytes(-file.tell() % PAGE_BYTES))
                    offsets[digest] = file.tell()
                    file.write(content)
                _refer(tensor, offsets[digest], len(content))


def _refer(tensor: TensorProto, offset: int, length: int) -> None:
    for field in ("raw_data", "float_data", "int32_data", "int64_data"):
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", WEIGHTS_FILE), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def strip_metadata(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes about source files and classes: it names folders of this machine."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")


def store_weights_in_half(model: onnx.ModelProto) -> None:
    """Turn every large float32 initializer into a float16 one and a Cast, which sessions fold when they load."""
    store_in_half(model, {tensor.name for tensor in model.graph.initializer})


def store_in_half(model: onnx.ModelProto, names: Collection[str]) -> None:
    """The same for the initializers of these names."""
    graph, casts = model.graph, []
    for tensor in graph.initializer:
        is_large = np.prod(tensor.dims, dtype=np.int64) >= HALF_MIN_ELEMENTS
        if tensor.name not in names or tensor.data_type != TensorProto.FLOAT or not is_large:
            continue
        name = tensor.name
        half = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
        casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], name=f"{name}_cast", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
