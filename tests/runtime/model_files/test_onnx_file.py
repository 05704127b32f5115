"""`.onnx` files made to harm, with hashes and operators that agree: refused before ONNX Runtime sees them."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundle import seal

from edgeformer_runtime import load
from edgeformer_runtime.bundle.manifest import MANIFEST_NAME, parse
from edgeformer_runtime.errors import BundleError

onnx = pytest.importorskip("onnx")

SECRET = np.arange(48, dtype=np.float32)
BIG = 1 << 30


def corrupted(good: Path, tmp_path: Path, change: Callable[[Any], None]) -> Path:
    """A copy of the bundle whose first model is changed; its manifest states the operators that there are now."""
    folder = Path(shutil.copytree(good, tmp_path / "corrupted"))
    manifest = parse((folder / MANIFEST_NAME).read_bytes())
    counts: Counter[str] = Counter()
    for number, program in enumerate(manifest.programs):
        model = onnx.load(folder / program.file, load_external_data=False)
        if not number:
            change(model)
        (folder / program.file).unlink()
        (folder / program.file).write_bytes(model.SerializeToString())
        counts.update(node.op_type for node in model.graph.node)
    seal(folder, replace(manifest, operators=dict(sorted(counts.items()))))
    return folder


def refused(good: Path, tmp_path: Path, change: Callable[[Any], None], reason: str) -> None:
    """The bundle is refused for that reason, in one line."""
    with pytest.raises(BundleError, match=reason) as caught:
        load(corrupted(good, tmp_path, change))
    assert "\n" not in str(caught.value)


def refer(tensor: Any, **entries: object) -> None:
    """Let a constant lie elsewhere."""
    for field in ("raw_data", "float_data", "int64_data"):
        tensor.ClearField(field)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))


def table(model: Any) -> Any:
    """The constant that embeddings are looked up in."""
    return next(each for each in model.graph.initializer if each.name == "table")


def add(model: Any, operator: str, constants: dict[str, np.ndarray], domain: str = "", **attributes: object) -> None:
    """A node that nobody reads, with its constants."""
    for name, value in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    node = onnx.helper.make_node(operator, list(constants), ["attack"], domain=domain, **attributes)
    model.graph.node.append(node)


def test_the_bundle_itself_is_taken(tiny_onnx: Path, tmp_path: Path) -> None:
    with load(corrupted(tiny_onnx, tmp_path, lambda model: None)) as pipeline:  # noqa: ARG005
        assert pipeline("hello").labels


@pytest.mark.parametrize(
    "location",
    ["{secret}", "../secret.bin", "./weights.bin", "vectors/../../secret.bin", "vectors/tensors.safetensors",
     "manifest.json", "no_such.bin", "", "*/_ORT_MEM_ADDR_/*", "_ORT_MEM_ADDR_", "tokenizer.json\0", "C:\\secret.bin",
     "file:///etc/passwd", "weights.bin/../../secret.bin"],
)  # fmt: skip
def test_weights_outside_the_bundle(tiny_onnx: Path, tmp_path: Path, location: str) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(SECRET.tobytes())
    place = location.format(secret=secret)
    refused(
        tiny_onnx,
        tmp_path,
        lambda model: refer(table(model), location=place, offset=0, length=SECRET.nbytes),
        r"which is no listed file of the model's own folder",
    )


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"location": "tokenizer.json", "offset": 0}, "expected length, location and offset"),
        ({"location": "tokenizer.json", "offset": 0, "length": 192, "checksum": "x"}, "expected length, location"),
        ({"location": "tokenizer.json", "offset": -1, "length": 192}, "has the offset '-1'"),
        ({"location": "tokenizer.json", "offset": "0x1", "length": 192}, "has the offset '0x1'"),
        ({"location": "tokenizer.json", "offset": 1 << 40, "length": 192}, "lies at 1099511627776"),
        ({"location": "tokenizer.json", "offset": 0, "length": 191}, "has 191 bytes where its shape needs 192"),
        ({"location": "tokenizer.json", "offset": 0, "length": 10**17}, "with 100000000000000000 bytes"),
    ],
)
def test_weights_out_of_a_file(tiny_onnx: Path, tmp_path: Path, entries: dict[str, object], reason: str) -> None:
    refused(tiny_onnx, tmp_path, lambda model: refer(table(model), **entries), reason)


def test_a_reference_without_its_mark(tiny_onnx: Path, tmp_path: Path) -> None:
    """Readers differ in which of the two they believe."""

    def change(model: Any) -> None:
        table(model).external_data.add(key="location", value="tokenizer.json")

    refused(tiny_onnx, tmp_path, change, "does not say that it lies there")


def test_a_constant_node_refers_to_no_file(tiny_onnx: Path, tmp_path: Path) -> None:
    def change(model: Any) -> None:
        tensor = onnx.numpy_helper.from_array(SECRET, "t")
        refer(tensor, location="tokenizer.json", offset=0, length=SECRET.nbytes)
        model.graph.node.append(onnx.helper.make_node("Constant", [], ["attack"], value=tensor))

    refused(tiny_onnx, tmp_path, change, "refers to another file")


def loop(model: Any) -> None:
    """A loop that never ends."""
    true = onnx.helper.make_tensor("true", onnx.TensorProto.BOOL, [], [True])
    body = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["going"], ["goes_on"])],
        "body",
        [
            onnx.helper.make_tensor_value_info("turn", onnx.TensorProto.INT64, []),
            onnx.helper.make_tensor_value_info("going", onnx.TensorProto.BOOL, []),
        ],
        [onnx.helper.make_tensor_value_info("goes_on", onnx.TensorProto.BOOL, [])],
    )
    model.graph.initializer.append(true)
    model.graph.node.append(onnx.helper.make_node("Loop", ["", "true"], [], body=body))


def sparse(model: Any) -> None:
    values = onnx.helper.make_tensor("s", onnx.TensorProto.FLOAT, [1], [1.0])
    indices = onnx.helper.make_tensor("i", onnx.TensorProto.INT64, [1], [BIG])
    model.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, indices, [4]))


def function(model: Any) -> None:
    model.functions.append(onnx.helper.make_function("own", "F", [], ["y"], [], []))


def training(model: Any) -> None:
    model.training_info.add()


def text_constant(model: Any) -> None:
    model.graph.initializer.append(onnx.helper.make_tensor("s", onnx.TensorProto.STRING, [1], [b"text"]))


def symbolic(model: Any) -> None:
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("v", onnx.TensorProto.FLOAT, ["n", "m"]))


def twice(model: Any) -> None:
    model.graph.node.append(model.graph.node[0])


def backwards(model: Any) -> None:
    nodes = list(reversed(model.graph.node))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def renamed(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 9


def longer(model: Any) -> None:
    table(model).dims[0] += 1


def unknown_field(model: Any) -> None:
    model.MergeFromString(b"\xba\x3e\x01x")  # field 999


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (loop, "Loop. has the field 6, which no reader takes"),
        (sparse, "the graph has the field 15, which no reader takes"),
        (function, "the model has the field 25, which no reader takes"),
        (training, "the model has the field 20, which no reader takes"),
        (text_constant, "has the type 8, which is no dense number"),
        (symbolic, "neither a number nor the file's one symbolic length"),
        (twice, "is made twice"),
        (backwards, "which nothing before it makes"),
        (renamed, "the manifest declares others"),
        (longer, "bytes or numbers where its shape needs"),
        (unknown_field, "the model has the field 999, which no reader takes"),
    ],
    ids=lambda each: getattr(each, "__name__", None),
)
def test_structure(tiny_onnx: Path, tmp_path: Path, change: Callable[[Any], None], reason: str) -> None:
    refused(tiny_onnx, tmp_path, change, reason)


INT = np.int64
ONE = np.ones(4, np.float32)


@pytest.mark.parametrize(
    ("operator", "constants", "attributes", "reason"),
    [
        ("ConstantOfShape", {"a": np.array([BIG], INT)}, {}, "at most 2"),
        ("ConstantOfShape", {"a": np.array([1 << 16, 1 << 16], INT)}, {}, "at most 2"),
        ("ConstantOfShape", {"a": np.array([-1], INT)}, {}, "it is to become"),
        ("Expand", {"a": np.ones(1, np.float32), "b": np.array([BIG], INT)}, {}, "at most 2"),
        ("Tile", {"a": ONE, "b": np.array([BIG], INT)}, {}, "shape"),
        ("Range", {"a": np.array(0, INT), "b": np.array(BIG, INT), "c": np.array(1, INT)}, {}, "at most 2"),
        ("Range", {"a": np.array(0, INT), "b": np.array(9, INT), "c": np.array(0, INT)}, {}, "the step 0"),
        ("Pad", {"a": ONE, "b": np.array([0, BIG], INT)}, {}, "at most 2"),
        ("Pad", {"a": ONE, "b": np.array([-9, 0], INT)}, {}, "cannot be padded"),
        ("MatMul", {"a": np.ones((1 << 14, 1), np.float32), "b": np.ones((1, 1 << 14), np.float32)}, {}, "at most 2"),
        ("Add", {"a": np.ones((1 << 14, 1), np.float32), "b": np.ones((1, 1 << 14), np.float32)}, {}, "at most 2"),
        ("Slice", {"a": ONE, "b": np.array([9], INT), "c": np.array([12], INT)}, {}, "lies outside an axis of 4"),
        ("Slice", {"a": ONE, "b": np.array([0], INT), "c": np.array([12], INT)}, {}, "lies outside an axis of 4"),
        ("Gather", {"a": ONE, "b": np.array([4], INT)}, {}, "it gathers number 4 of 4"),
        ("Gather", {"a": ONE, "b": np.array([-5], INT)}, {}, "it gathers number -5 of 4"),
        ("GatherND", {"a": ONE, "b": np.array([[0, 0]], INT)}, {}, "it gathers by"),
        ("Split", {"a": ONE, "b": np.array([9], INT)}, {"axis": 0}, "cannot be split"),
        ("Reshape", {"a": ONE, "b": np.array([9], INT)}, {}, "cannot become"),
        ("Reshape", {"a": ONE, "b": np.array([0, 0, 0], INT)}, {}, "cannot become"),
        ("Transpose", {"a": ONE}, {"perm": [1]}, "is no order of 1 axes"),
        ("Resize", {"a": ONE, "b": ONE, "c": ONE, "d": np.array([9], INT)}, {}, "it has a region, scales or a policy"),
        ("RandomNormal", {}, {"shape": [BIG]}, "none that a reader knows"),
        ("StringConcat", {}, {}, "none that a reader knows"),
        ("If", {}, {}, "none that a reader knows"),
    ],
)  # fmt: skip
def test_operators_that_grow_or_reach_outside(
    tiny_onnx: Path, tmp_path: Path, operator: str, constants: dict[str, np.ndarray], attributes: dict, reason: str
) -> None:
    refused(tiny_onnx, tmp_path, lambda model: add(model, operator, constants, **attributes), reason)


def test_a_concatenation_that_doubles_thirty_times(tiny_onnx: Path, tmp_path: Path) -> None:
    def change(model: Any) -> None:
        model.graph.initializer.append(onnx.numpy_helper.from_array(ONE, "d0"))
        for number in range(30):
            names = [f"d{number}"] * 2
            model.graph.node.append(onnx.helper.make_node("Concat", names, [f"d{number + 1}"], axis=0))

    refused(tiny_onnx, tmp_path, change, "at most 2")


def test_many_tensors_that_are_alive_at_once(tiny_onnx: Path, tmp_path: Path) -> None:
    def change(model: Any) -> None:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1 << 26], INT), "size"))
        names = [f"m{number}" for number in range(5)]
        for name in names:
            model.graph.node.append(onnx.helper.make_node("ConstantOfShape", ["size"], [name]))
        model.graph.node.append(onnx.helper.make_node("Max", names, ["all"]))

    refused(tiny_onnx, tmp_path, change, "elements are alive at once")


def test_a_shape_that_is_computed(tiny_onnx: Path, tmp_path: Path) -> None:
    def change(model: Any) -> None:
        model.graph.node.append(onnx.helper.make_node("ConstantOfShape", ["input_ids"], ["attack"]))

    refused(tiny_onnx, tmp_path, change, "decides its shape and is no small constant")


@pytest.mark.parametrize("domain", ["custom", "com.microsoft", "ai.onnx.ml", "com.microsoft.experimental"])
def test_foreign_domains(tiny_onnx: Path, tmp_path: Path, domain: str) -> None:
    refused(tiny_onnx, tmp_path, lambda model: add(model, "Add", {"a": ONE, "b": ONE}, domain), "domain|none that")


def test_operators_that_the_manifest_does_not_state(tiny_onnx: Path, tmp_path: Path) -> None:
    folder = corrupted(tiny_onnx, tmp_path, lambda model: add(model, "Abs", {"a": ONE}))
    manifest = parse((folder / MANIFEST_NAME).read_bytes())
    operators = {name: count for name, count in manifest.operators.items() if name != "Abs"}
    seal(folder, replace(manifest, operators=operators))
    with pytest.raises(BundleError, match="the operator 'Abs' 1 times, the manifest states 0"):
        load(folder)


def test_weights_that_models_share_are_taken(tiny_onnx: Path, tmp_path: Path) -> None:
    """As the converter writes them."""
    folder = Path(shutil.copytree(tiny_onnx, tmp_path / "shared"))
    manifest = parse((folder / MANIFEST_NAME).read_bytes())
    stored = b""
    for program in manifest.programs:
        model = onnx.load(folder / program.file)
        stored = onnx.numpy_helper.to_array(table(model)).tobytes()
        refer(table(model), location="weights.bin", offset=4096, length=len(stored))
        (folder / program.file).unlink()
        (folder / program.file).write_bytes(model.SerializeToString())
    (folder / "weights.bin").write_bytes(bytes(4096) + stored)
    seal(folder, manifest)
    with load(folder) as pipeline, load(tiny_onnx) as plain:
        assert pipeline("hello").scores == plain("hello").scores


def test_a_small_file_of_many_fields_is_no_hang(tiny_onnx: Path, tmp_path: Path) -> None:
    def change(model: Any) -> None:
        model.graph.initializer.append(onnx.helper.make_tensor("n", onnx.TensorProto.INT64, [0], []))
        model.graph.initializer[-1].dims.extend([1] * 3_000_000)

    refused(tiny_onnx, tmp_path, change, "the file has more than 1048576 fields")
