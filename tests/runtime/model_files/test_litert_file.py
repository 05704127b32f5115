"""`.tflite` files made to harm: refused by their structure, before LiteRT sees them."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")

from litert_models import PROGRAM, Part, one_operator

from edgeformer_runtime.model_files import Broken
from edgeformer_runtime.model_files.litert_file import check_litert

X = Part((4, 4))
PHOTO = Part((1, 2, 2, 1), "FLOAT32", np.ones((1, 2, 2, 1)))
BIG = 1 << 30


def ints(*values: int) -> Part:
    return Part((len(values),), "INT32", values)


def number(value: int) -> Part:
    return Part((), "INT32", value)


SOUND: list[tuple[Any, ...]] = [
    ("SLICE", [X, ints(1, 0), ints(2, -1)], [Part((2, 4))], ("SliceOptions", {})),
    ("SPLIT", [number(1), X], [Part((4, 2)), Part((4, 2))], ("SplitOptions", {"numSplits": 2})),
    ("GATHER", [X, ints(3, 0, 0)], [Part((3, 4))], ("GatherOptions", {"axis": 0})),
    ("FILL", [ints(2, 3), Part((), "FLOAT32", 1.0)], [Part((2, 3))], ("FillOptions", {})),
    ("PAD", [X, Part((2, 2), "INT32", [[1, 0], [0, 2]])], [Part((5, 6))], ("PadOptions", {})),
    ("RESHAPE", [X, ints(2, -1)], [Part((2, 8))], ("ReshapeOptions", {})),
    ("TRANSPOSE", [X, ints(1, 0)], [Part((4, 4))], ("TransposeOptions", {})),
    ("MEAN", [X, ints(1)], [Part((4, 1))], ("ReducerOptions", {"keepDims": True})),
    ("TILE", [X, ints(2, 1)], [Part((8, 4))], ("TileOptions", {})),
    ("RESIZE_BILINEAR", [PHOTO, ints(6, 3)], [Part((1, 6, 3, 1))], ("ResizeBilinearOptions", {})),
    ("RESIZE_NEAREST_NEIGHBOR", [PHOTO, ints(1, 9)], [Part((1, 1, 9, 1))], ("ResizeNearestNeighborOptions", {})),
    ("STRIDED_SLICE", [X, ints(1, 0), ints(0, 3), ints(1, 2)], [Part((3, 2))],
     ("StridedSliceOptions", {"endMask": 1})),
    ("UNPACK", [X], [Part((4,))] * 4, ("UnpackOptions", {"num": 4, "axis": 1})),
    ("FULLY_CONNECTED", [X, Part((3, 4), "FLOAT32", np.ones((3, 4)))], [Part((4, 3))],
     ("FullyConnectedOptions", {"keepNumDims": True})),
]  # fmt: skip


@pytest.mark.parametrize(("operator", "inputs", "outputs", "options"), SOUND, ids=[each[0] for each in SOUND])
def test_valid_operators_are_taken(operator: str, inputs: list[Part], outputs: list[Part], options: Any) -> None:
    model = one_operator(operator, inputs, outputs, options)
    assert check_litert(memoryview(model), [PROGRAM]).operators == Counter({"ADD": 1, operator: 1})


HARMFUL: list[tuple[Any, ...]] = [
    ("SLICE", [X, ints(3, 0), ints(2, 4)], [Part((2, 4))], None, r"it takes \[2, 4\] elements from \[3, 0\]"),
    ("SLICE", [X, ints(-1, 0), ints(2, 4)], [Part((2, 4))], None, "elements from"),
    ("SLICE", [X, ints(0, 0), ints(-2, 4)], [Part((2, 4))], None, "elements from"),
    ("SLICE", [X, X, ints(2, 4)], [Part((2, 4))], None, "no small constant"),
    ("SLICE", [X, ints(0, 0), ints(2, 4)], [Part((400, 4))], None, "where the file declares"),
    ("STRIDED_SLICE", [X, ints(9, 0), ints(12, 4), ints(1, 1)], [Part((3, 4))], None, "lies outside an axis of 4"),
    ("STRIDED_SLICE", [X, ints(0, 0), ints(4, 4), ints(0, 1)], [Part((4, 4))], None, "it has the step 0"),
    ("SPLIT", [number(0), X], [Part((4, 4))], ("SplitOptions", {"numSplits": 0}), "cannot be split into 0"),
    ("SPLIT", [number(9), X], [Part((4, 4))], ("SplitOptions", {"numSplits": 1}), "there is no axis 9"),
    ("SPLIT", [number(0), X], [Part((1, 4))] * 3, ("SplitOptions", {"numSplits": 3}), "cannot be split into 3"),
    ("FILL", [ints(BIG), Part((), "FLOAT32", 1.0)], [Part((4,))], None, "where the file declares"),
    ("FILL", [ints(BIG), Part((), "FLOAT32", 1.0)], [Part((BIG,))], None, "at most 2"),
    ("FILL", [ints(-1), Part((), "FLOAT32", 1.0)], [Part((4,))], None, "it is to become"),
    ("BROADCAST_TO", [X, ints(1 << 20, 4, 4)], [Part((4, 4))], None, "where the file declares"),
    ("TILE", [X, ints(BIG, 1)], [Part((4, 4))], None, "where the file declares"),
    ("RESIZE_BILINEAR", [PHOTO, ints(BIG, 1)], [Part((1, 2, 2, 1))], None, "where the file declares"),
    ("RESIZE_BILINEAR", [PHOTO, ints(BIG, 1)], [Part((1, BIG, 1, 1))], None, "at most 2"),
    ("RESIZE_BILINEAR", [PHOTO, ints(0, 1)], [Part((1, 0, 1, 1))], None, "cannot be resized"),
    ("RESIZE_BILINEAR", [X, ints(2, 2)], [Part((2, 2))], None, "cannot be resized"),
    ("RESIZE_NEAREST_NEIGHBOR", [PHOTO, X], [Part((1, 2, 2, 1))], None, "no small constant"),
    ("PAD", [X, Part((2, 2), "INT32", [[0, BIG], [0, 0]])], [Part((4, 4))], None, "where the file declares"),
    ("PAD", [X, Part((2, 2), "INT32", [[-4, 0], [0, 0]])], [Part((0, 4))], None, "cannot be padded"),
    ("GATHER", [X, ints(4)], [Part((1, 4))], None, "it gathers number 4 of 4"),
    ("GATHER", [X, ints(-1)], [Part((1, 4))], None, "it gathers number -1 of 4"),
    ("GATHER_ND", [X, Part((1, 2), "INT32", [[0, 4]])], [Part((1,))], None, "it gathers number 4 of 4"),
    ("EMBEDDING_LOOKUP", [ints(BIG), X], [Part((1, 4))], None, "it gathers number"),
    ("RESHAPE", [X, ints(5, 5)], [Part((5, 5))], None, "cannot become"),
    ("TRANSPOSE", [X, ints(0, 5)], [Part((4, 4))], None, "is no order of 2 axes"),
    ("CONCATENATION", [X, Part((3, 3), "FLOAT32", np.ones((3, 3)))], [Part((7, 4))], None, "cannot be concatenated"),
    ("ADD", [X, Part((3,), "FLOAT32", np.ones(3))], [Part((4, 4))], None, "do not go together"),
    ("FULLY_CONNECTED", [X, Part((3, 400), "FLOAT32", np.ones((3, 400)))], [Part((4, 3))], None, "no product"),
    ("CONV_2D", [X, X], [Part((4, 4))], None, "it has no convolution"),
    ("DENSIFY", [X], [Part((4, 4))], None, "DENSIFY, which is none that a reader knows"),
    ("WHILE", [X], [Part((4, 4))], ("WhileOptions", {"condSubgraphIndex": 0, "bodySubgraphIndex": 0}), "WHILE, which"),
    ("IF", [X], [Part((4, 4))], None, "IF, which"),
    ("CALL_ONCE", [], [], None, "CALL_ONCE, which"),
    ("CUSTOM", [X], [Part((4, 4))], None, "CUSTOM, which"),
    ("VAR_HANDLE", [], [Part(())], None, "VAR_HANDLE, which"),
    ("HASHTABLE", [], [Part(())], None, "HASHTABLE, which"),
    ("RANDOM_UNIFORM", [ints(4)], [Part((4,))], None, "RANDOM_UNIFORM, which"),
    ("WHERE", [X], [Part((4, 2))], None, "WHERE, which"),
    ("NON_MAX_SUPPRESSION_V4", [X], [Part((4,))], None, "which is none that a reader knows"),
    ("ADD", [X, X], [Part((4, 4))], ("WhileOptions", {}), "it has the options of another operator"),
]  # fmt: skip


@pytest.mark.parametrize(("operator", "inputs", "outputs", "options", "reason"), HARMFUL)
def test_harmful_operators(operator: str, inputs: list[Part], outputs: list[Part], options: Any, reason: str) -> None:
    model = one_operator(operator, inputs, outputs, options)
    with pytest.raises(Broken, match=reason):
        check_litert(memoryview(model), [PROGRAM])


def sparse(model: Any, schema: Any) -> None:
    """Indices far behind the tensor: DENSIFY would write there."""
    dense, rows = schema.DimensionMetadataT(), schema.DimensionMetadataT()
    dense.denseSize = 4
    rows.format = schema.DimensionType.SPARSE_CSR
    rows.arraySegmentsType = rows.arrayIndicesType = schema.SparseIndexVector.Int32Vector
    rows.arraySegments, rows.arrayIndices = schema.Int32VectorT(), schema.Int32VectorT()
    rows.arraySegments.values, rows.arrayIndices.values = [0, 1, 1, 1, 1], [BIG]
    sparsity = schema.SparsityParametersT()
    sparsity.traversalOrder, sparsity.dimMetadata = [0, 1], [dense, rows]
    model.subgraphs[0].tensors[2].sparsity = sparsity


def variable(model: Any, schema: Any) -> None:  # noqa: ARG001
    model.subgraphs[0].tensors[2].isVariable = True


def dynamic(model: Any, schema: Any) -> None:  # noqa: ARG001
    model.subgraphs[0].tensors[0].shapeSignature = [-1, 4]


def negative(model: Any, schema: Any) -> None:  # noqa: ARG001
    model.subgraphs[0].tensors[2].shape = [-4, 4]


def text(model: Any, schema: Any) -> None:
    model.subgraphs[0].tensors[2].type = schema.TensorType.STRING


def other_buffer(model: Any, schema: Any) -> None:  # noqa: ARG001
    model.subgraphs[0].tensors[2].buffer = 77


def short_buffer(model: Any, schema: Any) -> None:
    buffer = schema.BufferT()
    buffer.data = np.zeros(3, np.uint8)
    model.buffers.append(buffer)
    model.subgraphs[0].tensors[2].buffer = len(model.buffers) - 1


def buffer_behind_the_file(model: Any, schema: Any) -> None:
    buffer = schema.BufferT()
    buffer.offset, buffer.size = 1 << 40, 64
    model.buffers.append(buffer)
    model.subgraphs[0].tensors[2].buffer = len(model.buffers) - 1


def buffer_that_wraps(model: Any, schema: Any) -> None:
    buffer = schema.BufferT()
    buffer.offset, buffer.size = 64, (1 << 64) - 32
    model.buffers.append(buffer)


def scales(model: Any, schema: Any) -> None:
    found = schema.QuantizationParametersT()
    found.scale, found.zeroPoint, found.quantizedDimension = [1.0, 2.0, 3.0], [0, 0, 0], 0
    model.subgraphs[0].tensors[2].quantization = found


def scales_of_no_axis(model: Any, schema: Any) -> None:
    found = schema.QuantizationParametersT()
    found.scale, found.zeroPoint, found.quantizedDimension = [1.0] * 4, [0] * 4, 9
    model.subgraphs[0].tensors[2].quantization = found


def no_such_tensor(model: Any, schema: Any) -> None:  # noqa: ARG001
    model.subgraphs[0].operators[1].inputs = [0, 99]


def negative_tensor(model: Any, schema: Any) -> None:  # noqa: ARG001
    model.subgraphs[0].operators[1].inputs = [0, -2]


def reads_itself(model: Any, schema: Any) -> None:  # noqa: ARG001
    model.subgraphs[0].operators[1].inputs = [2, 2]


def writes_its_input(model: Any, schema: Any) -> None:  # noqa: ARG001
    model.subgraphs[0].operators[1].outputs = [0]


def no_such_code(model: Any, schema: Any) -> None:  # noqa: ARG001
    model.subgraphs[0].operators[1].opcodeIndex = 9


def a_graph_of_nobody(model: Any, schema: Any) -> None:  # noqa: ARG001
    model.subgraphs.append(model.subgraphs[0])


def other_outputs(model: Any, schema: Any) -> None:  # noqa: ARG001
    model.signatureDefs[0].outputs[0].tensorIndex = 2


def another_type(model: Any, schema: Any) -> None:
    model.subgraphs[0].tensors[0].type = schema.TensorType.INT32


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (sparse, "tensor 2 is sparse"),
        (variable, "is a variable"),
        (dynamic, "has a shape that is not static"),
        (negative, "expected sizes of 0"),
        (text, "the type 5, which is no dense number"),
        (other_buffer, "has the buffer 77 of"),
        (short_buffer, "has 3 bytes where its shape needs 64"),
        (buffer_behind_the_file, "buffer 1 lies at 1099511627776"),
        (buffer_that_wraps, "buffer 1 lies at 64"),
        (scales, "has 3 scales along the axis 0"),
        (scales_of_no_axis, "has 4 scales along the axis 9"),
        (no_such_tensor, "there is no tensor 99"),
        (negative_tensor, "there is no tensor -2"),
        (reads_itself, "which nothing before it makes"),
        (writes_its_input, "it writes what is made already"),
        (no_such_code, "has the code 9 of 2"),
        (a_graph_of_nobody, "expected each of 2 once"),
        (other_outputs, "names other tensors than its graph has"),
        (another_type, "has other tensors than the manifest declares"),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
def test_structure(change: Callable[[Any, Any], None], reason: str) -> None:
    model = one_operator("ADD", [X, X], [X], ("AddOptions", {}), change)
    with pytest.raises(Broken, match=reason):
        check_litert(memoryview(model), [PROGRAM])


def test_many_operators_that_read_one_constant() -> None:
    """Each reads 4096 indices, and an operator takes a hundred bytes: what a file asks for is bounded, not its size."""

    def repeat(model: Any, _: Any) -> None:
        graph = model.subgraphs[0]
        gather = graph.operators[-1]
        for _ in range(600):
            graph.tensors.append(graph.tensors[gather.outputs[0]])
            again = copy.copy(gather)
            again.outputs = [len(graph.tensors) - 1]
            graph.operators.append(again)

    indices, gathered = Part((4096,), "INT32", [0] * 4096), [Part((4096, 4))]
    model = one_operator("GATHER", [X, indices], gathered, ("GatherOptions", {"axis": 0}), repeat)
    with pytest.raises(Broken, match="more than 2000000 tables, numbers and letters"):
        check_litert(memoryview(model), [PROGRAM])
