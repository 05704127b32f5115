"""Core ML packages made to harm: refused by their structure."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgeformer_runtime.bundle.manifest import ProgramSpec, TensorSpec
from edgeformer_runtime.model_files import Broken
from edgeformer_runtime.model_files.coreml_file import FILES, MANIFEST_FILE, MODEL_FILE, WEIGHTS_FILE, check_coreml

pytest.importorskip("coremltools")

PROGRAM = ProgramSpec(
    "p", "model.mlpackage", "main", (TensorSpec("x", "float32", (1, 3)),), (TensorSpec("y", "float32", (1, 3)),)
)
FLOAT32, INT32, STRING = 11, 23, 2
ITEMS = {"a": {"path": "com.apple.CoreML/model.mlmodel"}, "b": {"path": "com.apple.CoreML/weights"}}


def type_of(message: Any, shape: tuple[int, ...], dtype: int = FLOAT32) -> None:
    """Fill in a ValueType."""
    message.tensorType.dataType, message.tensorType.rank = dtype, len(shape)
    for size in shape:
        message.tensorType.dimensions.add().constant.size = size


def make_model() -> Any:
    """y = x + a constant of three numbers in the file of weights."""
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model()
    model.specificationVersion = 8
    function = model.mlProgram.functions["main"]
    function.opset = "CoreML7"
    given = function.inputs.add()
    given.name = "x"
    type_of(given.type, (1, 3))
    block = function.block_specializations["CoreML7"]
    constant = block.operations.add()
    constant.type = "const"
    made = constant.outputs.add()
    made.name = "w"
    type_of(made.type, (3,))
    value = constant.attributes["val"]
    type_of(value.type, (3,))
    value.blobFileValue.fileName, value.blobFileValue.offset = "@model_path/weights/weight.bin", 64
    addition = block.operations.add()
    addition.type = "add"
    addition.inputs["x"].arguments.add().name = "x"
    addition.inputs["y"].arguments.add().name = "w"
    result = addition.outputs.add()
    result.name = "y"
    type_of(result.type, (1, 3))
    block.outputs.append("y")
    return model


def make_weights(size: int = 12, start: int = 128, sentinel: int = 0xDEADBEEF) -> bytes:
    """A file of weights with one of three float32."""
    metadata = struct.pack("<IIQQ", sentinel, 2, size, start).ljust(64, b"\0")
    return struct.pack("<II", 1, 2).ljust(64, b"\0") + metadata + np.ones(3, np.float32).tobytes()


def check(model: Any, weights: bytes | None = None, items: Any = None, files: tuple[str, ...] = FILES) -> Counter[str]:
    content = {
        MANIFEST_FILE: json.dumps({"itemInfoEntries": ITEMS if items is None else items}).encode(),
        MODEL_FILE: model.SerializeToString(),
        WEIGHTS_FILE: make_weights() if weights is None else weights,
    }
    return check_coreml(files, lambda name: memoryview(content[name]), [PROGRAM]).operators


def test_an_intact_package_is_taken() -> None:
    assert check(make_model()) == Counter({"add": 1})


def test_a_table_is_measured_by_what_indexes_it() -> None:
    """Through a cast and a choice: y = w[x], of a table of three rows."""
    model = make_model()
    function = model.mlProgram.functions["main"]
    block = function.block_specializations["CoreML7"]
    sum_ = block.operations[1]
    given = function.inputs[0].type
    given.Clear()
    type_of(given, (1, 2), INT32)
    for kind, operand, source, made in (("cast", "x", "x", "cast"), ("select", "a", "cast", "moved")):
        step = block.operations.add()
        step.type = kind
        step.inputs[operand].arguments.add().name = source
        step.outputs.add().name = made
        type_of(step.outputs[0].type, (1, 2), INT32)
    gather = block.operations.add()
    gather.type = "gather"
    gather.inputs["x"].arguments.add().name = "w"
    gather.inputs["indices"].arguments.add().name = "moved"
    gather.outputs.add().name = "y"
    type_of(gather.outputs[0].type, (1, 2))
    block.operations.remove(sum_)
    files = {
        MANIFEST_FILE: json.dumps({"itemInfoEntries": ITEMS}).encode(),
        MODEL_FILE: model.SerializeToString(),
        WEIGHTS_FILE: make_weights(),
    }
    tensors = (TensorSpec("x", "int32", (1, 2)),), (TensorSpec("y", "float32", (1, 2)),)
    program = ProgramSpec("p", "model.mlpackage", "main", *tensors)
    assert check_coreml(FILES, lambda name: memoryview(files[name]), [program]).rows == {"p": {"x": 3}}


def operations(model: Any) -> Any:
    return model.mlProgram.functions["main"].block_specializations["CoreML7"].operations


def blob(model: Any) -> Any:
    return operations(model)[0].attributes["val"].blobFileValue


def loop(model: Any) -> None:
    operations(model)[1].blocks.add()


def control_flow(model: Any) -> None:
    operations(model)[1].type = "while_loop"


def custom(model: Any) -> None:
    operations(model)[1].type = "custom_layer"


def neural_network(model: Any) -> None:
    model.neuralNetwork.SetInParent()


def linked_model(model: Any) -> None:
    model.linkedModel.SetInParent()


def pipeline(model: Any) -> None:
    model.pipeline.models.add()


def updatable(model: Any) -> None:
    model.isUpdatable = True


def unknown_size(model: Any) -> None:
    operations(model)[1].outputs[0].type.tensorType.dimensions[0].unknown.SetInParent()


def huge(model: Any) -> None:
    operations(model)[1].outputs[0].type.tensorType.dimensions[0].constant.size = 1 << 40


def reads_what_is_not_there(model: Any) -> None:
    operations(model)[1].inputs["y"].arguments[0].name = "z"


def twice(model: Any) -> None:
    operations(model)[1].outputs[0].name = "w"


def longer(model: Any) -> None:
    operations(model)[0].attributes["val"].type.tensorType.dimensions[0].constant.size = 1 << 20


def immediate(model: Any) -> None:
    value = operations(model)[0].attributes["val"]
    value.immediateValue.tensor.floats.values.extend([1.0, 2.0])


def another_entry(model: Any) -> None:
    model.mlProgram.functions["other"].CopyFrom(model.mlProgram.functions["main"])
    del model.mlProgram.functions["main"]


def other_input(model: Any) -> None:
    model.mlProgram.functions["main"].inputs[0].name = "q"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (loop, "runs other blocks"),
        (control_flow, "'while_loop' is none that a reader knows"),
        (custom, "'custom_layer' is none that a reader knows"),
        (neural_network, "expected an mlProgram"),
        (linked_model, "expected an mlProgram"),
        (pipeline, "expected an mlProgram"),
        (updatable, "it is updatable"),
        (unknown_size, "has a size that is not static"),
        (huge, "expected sizes of 0"),
        (reads_what_is_not_there, "reads 'z', which nothing before it makes"),
        (twice, "makes 'w' twice"),
        (longer, "has 12 bytes of the type 2 where its type needs"),
        (immediate, "has 2 numbers or bytes where its shape needs 3"),
        (another_entry, "has no function 'main'"),
        (other_input, "reads 'x', which nothing before it makes"),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
def test_structure(change: Callable[[Any], None], reason: str) -> None:
    model = make_model()
    change(model)
    with pytest.raises(Broken, match=reason):
        check(model)


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "@model_path/../../../../secret", "@model_path/weights/../../x", "weights/weight.bin", "",
     "@model_path/model.mlmodel"],
)  # fmt: skip
def test_weights_outside_the_package(name: str) -> None:
    model = make_model()
    blob(model).fileName = name
    with pytest.raises(Broken, match=r"expected @model_path/weights/weight.bin"):
        check(model)


@pytest.mark.parametrize("offset", [65, 1 << 20, (1 << 64) - 1])
def test_weights_out_of_their_file(offset: int) -> None:
    model = make_model()
    blob(model).offset = offset
    with pytest.raises(Broken, match=r"lies at|where its type needs"):
        check(model)


@pytest.mark.parametrize(
    "weights",
    [make_weights(size=16), make_weights(start=136), make_weights(start=1 << 63), make_weights(sentinel=0), b"\0" * 70],
)
def test_corrupted_weights(weights: bytes) -> None:
    with pytest.raises(Broken, match=r"lies at|where its type needs"):
        check(make_model(), weights)


def test_other_files() -> None:
    with pytest.raises(Broken, match="it has the files"):
        check(make_model(), files=(*FILES, "Data/com.apple.CoreML/compiled.mlmodelc"))
    with pytest.raises(Broken, match="names"):
        check(make_model(), items={"a": {"path": "../../etc/passwd"}})
