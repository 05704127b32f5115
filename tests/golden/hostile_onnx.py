"""ONNX models that a reader refuses, one rule broken in each, and their sound neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.golden.hostile_case import Case

WEIGHTS = "weights.bin"


def cases() -> Iterator[Case]:
    """All of them; those of one target follow one another."""
    yield _case("sound", _model([_add()]), True)
    yield _case("sound: slice and reshape", _model(_shaped([0, 2], [1, 4]), [2, 4], [2]), True)
    yield _case("sound: weights beside it", _external(), True)
    yield from _references()
    yield from _structures()
    yield from _shapes()
    yield from _symbolic()


def _references() -> Iterator[Case]:
    for name, entries in {
        "a system file": {"location": "/etc/passwd", "offset": "0", "length": "16"},
        "a file above": {"location": "../weights.bin", "offset": "0", "length": "16"},
        "a file in a folder": {"location": "a/weights.bin", "offset": "0", "length": "16"},
        "the process's memory": {"location": "*/_ORT_MEM_ADDR_/*", "offset": "4096", "length": "16"},
        "a file that is not listed": {"location": "other.bin", "offset": "0", "length": "16"},
        "bytes behind the file": {"location": WEIGHTS, "offset": "4", "length": "16"},
        "an offset that is negative": {"location": WEIGHTS, "offset": "-4", "length": "16"},
        "a length that is too short": {"location": WEIGHTS, "offset": "0", "length": "8"},
        "no length": {"location": WEIGHTS, "offset": "0"},
        "a checksum": {"location": WEIGHTS, "offset": "0", "length": "16", "checksum": "0"},
    }.items():
        yield _case(f"weights: {name}", _external(entries), False)
    twice = _external()
    twice.graph.initializer[0].external_data.append(twice.graph.initializer[0].external_data[0])
    yield _case("weights: the location twice", twice, False)
    unsaid = _external()
    unsaid.graph.initializer[0].data_location = TensorProto.DEFAULT
    yield _case("weights: a place that is not said to be one", unsaid, False)
    both = _external()
    both.graph.initializer[0].raw_data = bytes(16)
    yield _case("weights: here and elsewhere", both, False)
    node = helper.make_node("Constant", [], ["c"])
    node.attribute.append(helper.make_attribute("value", _external().graph.initializer[0]))
    yield _case("weights: a constant's", _model([node, helper.make_node("Add", ["x", "c"], ["y"])]), False)


def _structures() -> Iterator[Case]:
    loop = helper.make_node("Loop", ["", "c", "x"], ["y"], body=_model([_add()]).graph)
    yield _case("a loop", _model([loop]), False)
    branch = helper.make_node(
        "If", ["x"], ["y"], then_branch=_model([_add()]).graph, else_branch=_model([_add()]).graph
    )
    yield _case("a branch", _model([branch]), False)
    yield _case("an unknown operator", _model([helper.make_node("RandomNormalLike", ["x"], ["y"])]), False)
    yield _case("another domain", _model([helper.make_node("Add", ["x", "w"], ["y"], domain="evil")]), False)
    other = helper.make_node("Add", ["x", "w"], ["y"], domain="com.microsoft")
    yield _case("an operator of the wrong domain", _model([other]), False)
    yield _case("a value that nothing makes", _model([helper.make_node("Add", ["x", "z"], ["y"])]), False)
    circle = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Add", ["a", "w"], ["b"])]
    yield _case("a circle", _model([*circle, helper.make_node("Add", ["a", "b"], ["y"])]), False)
    yield _case("a value made twice", _model([_add(), _add()]), False)
    yield _case("an operator that is not listed", _model([_add("t"), _add("y")]), False, operators={"Add": 1})
    yield _case("an operator that is not there", _model([_add()]), False, operators={"Add": 1, "Mul": 1})
    functions = _model([_add()])
    functions.functions.append(helper.make_function("", "f", ["a"], ["b"], [helper.make_node("Abs", ["a"], ["b"])], []))
    yield _case("a function", functions, False)
    training = _model([_add()])
    training.training_info.add()
    yield _case("training", training, False)
    sparse = _model([_add()])
    sparse.graph.sparse_initializer.add().dims.append(4)
    yield _case("a sparse constant", sparse, False)
    newer = _model([_add()])
    newer.ir_version = 99
    yield _case("a newer format", newer, False)
    text = _model([_add()])
    text.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array(["a"], dtype=object), "w"))
    yield _case("a text", text, False)
    sound = _model([_add()]).SerializeToString()
    yield _bytes("cut off", sound[:-3], False)
    yield _bytes("an unknown field", sound + b"\xf8\x07\x01", False)
    yield _bytes("a group", sound + b"\x0b\x0c", False)
    yield _bytes("a second graph", sound + b"\x3a\x00", False)
    yield _bytes("a length beyond the file", sound + b"\x3a\xff\xff\xff\xff\x0f", False)
    yield _bytes("a number without end", sound + b"\x08" + b"\xff" * 11, False)
    yield _bytes("no bytes", b"", False)


def _shapes() -> Iterator[Case]:
    yield _case("4 GB of zeros", _filled([1 << 30]), False)
    yield _case("a shape that overflows", _filled([1 << 31, 1 << 31, 1 << 31]), False)
    yield _case("a negative shape", _filled([-1]), False)
    yield _case("a slice out of range", _model(_shaped([0, 2], [1, 9]), [2, 4], [2]), False)
    yield _case("a slice from behind", _model(_shaped([0, -9], [1, 4]), [2, 4], [2]), False)
    yield _case("another output", _model([_add()], outputs=[5]), False, declared=[4])
    yield _case("another input than declared", _model([_add()]), False, declared=[5])
    few = _model([_add()])
    few.graph.initializer[0].raw_data = bytes(12)
    yield _case("fewer bytes than the shape", few, False)
    many = _model([_add()])
    many.graph.initializer[0].raw_data = bytes(20)
    yield _case("more bytes than the shape", many, False)
    huge = _model([_add()])
    huge.graph.initializer[0].dims[0] = 1 << 62
    yield _case("a constant of 2^62", huge, False)
    symbolic = _model([_add()])
    symbolic.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    yield _case("a size that is not static", symbolic, False)
    tile = [_numbers("n", [1 << 40]), helper.make_node("Tile", ["x", "n"], ["t"]), _add()]
    yield _case("a tile without end", _model(tile), False)
    yield _case("sound: a resize", _model(_resized([1, 1, 8, 3])), True)
    yield _case("a resize without end", _model(_resized([1, 1, 1 << 30, 1])), False)
    yield _case("a resize of channels", _model(_resized([1, 2, 2, 2])), False)
    yield _case("a resize to nothing", _model(_resized([1, 1, 0, 2])), False)
    gather = [_numbers("i", [7]), helper.make_node("Gather", ["x", "i"], ["g"]), _add()]
    yield _case("an index out of range", _model(gather), False)
    pad = [_numbers("p", [1 << 40, 0]), helper.make_node("Pad", ["x", "p"], ["p2"]), _add()]
    yield _case("a pad without end", _model(pad), False)
    ranged = [
        helper.make_node("Constant", [], ["a"], value_int=0),
        helper.make_node("Constant", [], ["b"], value_int=1 << 31),
        helper.make_node("Constant", [], ["s"], value_int=1),
        helper.make_node("Range", ["a", "b", "s"], ["r"]),
        _add(),
    ]
    yield _case("a range of 2^31", _model(ranged), False)
    gathers = [helper.make_node("Gather", ["x", "i"], [f"g{number}"]) for number in range(300)]
    many_indices = _model([*gathers, _add()])
    many_indices.graph.initializer.append(numpy_helper.from_array(np.zeros(4096, np.int8), "i"))
    yield _case("indices again and again", many_indices, False)
    computed = [helper.make_node("Cast", ["x"], ["c"], to=7), helper.make_node("ConstantOfShape", ["c"], ["f"]), _add()]
    yield _case("a shape that is computed", _model(computed), False)


def _resized(sizes: list[int]) -> list[Any]:
    """x as an image of 2 by 2 in other sizes, which nobody reads; and y = x + w."""
    photo = [_numbers("p", [1, 1, 2, 2]), helper.make_node("Reshape", ["x", "p"], ["photo"])]
    resize = helper.make_node("Resize", ["photo", "", "", "n"], ["r"], mode="linear")
    return [*photo, _numbers("n", sizes), resize, _add()]


def _symbolic() -> Iterator[Case]:
    """Models of x (S,), y (S,): `w` has four elements."""
    sizes = helper.make_node("Shape", ["x"], ["n"], start=0, end=1)
    cut = [sizes, _numbers("b", [0]), helper.make_node("Slice", ["w", "b", "n"], ["p"])]
    add = helper.make_node("Add", ["x", "p"], ["y"])
    yield _case("sound: a symbolic length", _of_any_length([*cut, add]), True, declared=[3])
    yield _case("a symbolic length beyond a table", _of_any_length([*cut, add]), False, declared=[5])
    yield _case("a symbolic length that makes too much", _of_any_length([_same()]), False, declared=[1 << 27])
    yield _case("two symbolic lengths", _of_any_length([_same()], "T"), False, declared=[3])
    filled = [sizes, helper.make_node("ConstantOfShape", ["n"], ["f"]), _same()]
    yield _case("a symbolic length that steers a shape", _of_any_length(filled), False, declared=[3])
    behind = [_numbers("b", [-2]), _numbers("e", [2]), helper.make_node("Slice", ["x", "b", "e"], ["s"]), _same()]
    yield _case("a symbolic length, cut from behind", _of_any_length(behind), False, declared=[3])
    parts = [helper.make_node("Split", ["x"], ["s", "t"], num_outputs=2), _same()]
    yield _case("a symbolic length, split into parts without sizes", _of_any_length(parts), False, declared=[3])


def _same() -> Any:
    return helper.make_node("Abs", ["x"], ["y"])


def _of_any_length(nodes: list[Any], made: str = "S") -> Any:
    model = _model(nodes)
    for value, name in ((model.graph.input[0], "S"), (model.graph.output[0], made)):
        value.type.tensor_type.shape.dim[0].dim_param = name
    return model


def _add(output: str = "y") -> Any:
    return helper.make_node("Add", ["x", "w"], [output])


def _numbers(name: str, values: list[int]) -> Any:
    return helper.make_node("Constant", [], [name], value_ints=values)


def _filled(shape: list[int]) -> Any:
    return _model([_numbers("n", shape), helper.make_node("ConstantOfShape", ["n"], ["f"]), _add()])


def _shaped(begins: list[int], ends: list[int]) -> list[Any]:
    """Of (2, 4) the pieces from begins to ends, as a row of two numbers, if these are a row of two."""
    return [
        _numbers("b", begins),
        _numbers("e", ends),
        helper.make_node("Slice", ["x", "b", "e"], ["s"]),
        _numbers("n", [-1]),
        helper.make_node("Reshape", ["s", "n"], ["y"]),
    ]


def _model(nodes: list[Any], inputs: list[int] | None = None, outputs: list[int] | None = None) -> Any:
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, inputs or [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, outputs or [4])],
        [numpy_helper.from_array(np.arange(4, dtype=np.float32), "w")],
    )
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])


def _external(entries: dict[str, str] | None = None) -> Any:
    model = _model([_add()])
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (entries or {"location": WEIGHTS, "offset": "0", "length": "16"}).items():
        tensor.external_data.add(key=key, value=value)
    return model


def _case(
    name: str, model: Any, sound: bool, operators: dict[str, int] | None = None, declared: list[int] | None = None
) -> Case:
    shape = [each.dim_value for each in model.graph.input[0].type.tensor_type.shape.dim]
    output = [each.dim_value for each in model.graph.output[0].type.tensor_type.shape.dim]
    if operators is None:
        operators = {}
        for node in model.graph.node:
            operators[node.op_type] = operators.get(node.op_type, 0) + 1
    return _bytes(
        name, model.SerializeToString(deterministic=True), sound, operators, declared or shape, declared or output
    )


def _bytes(
    name: str,
    data: bytes,
    sound: bool,
    operators: dict[str, int] | None = None,
    inputs: list[int] | None = None,
    outputs: list[int] | None = None,
) -> Case:
    files = {"model.onnx": data, WEIGHTS: np.arange(4, dtype="<f4").tobytes()}
    return Case(f"onnx: {name}", "onnx", files, "main", inputs or [4], outputs or [4], operators or {"Add": 1}, sound)
