"""Small programs and facts by hand: liveness, masks, versions, ranges of operators."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from edgeformer.convert.target import PRECISIONS
from edgeformer.doctor.check_graph import _extremes, check_processors
from edgeformer.doctor.examination import peak_memory
from edgeformer.doctor.examiner import Node, Program, Severity, Value, examiner_for, older, parse_version
from edgeformer_converters.litert.examiner import oldest_runtime
from edgeformer_converters.litert.graph import LiteRTGraph
from edgeformer_runtime.errors import InputError

pytestmark = pytest.mark.slow


def value(size_bytes: int = 4, constant: float | None = None) -> Value:
    stored = None if constant is None else (lambda: np.array([constant, 0.5], np.float32))
    return Value("value", "float32", (size_bytes // 4,), size_bytes, stored)


def test_values_live_from_their_node_to_the_last_reader() -> None:
    nodes = (
        Node("a", "first", ("x",), ("u",)),
        Node("b", "second", ("u", "w"), ("v",)),
        Node("c", "third", ("v", "u"), ("y",)),
        Node("d", "fourth", ("y",), ("z",)),
    )
    sizes = {"x": 8, "u": 100, "v": 40, "y": 12, "z": 200, "w": 4000}
    values = {key: value(size, 1.0 if key == "w" else None) for key, size in sizes.items()}
    peak = peak_memory(Program("p", nodes, values, ("x",), ("z",)))
    # x until the first, u until the third, v until the third: 12 + 200 at the fourth; the weight does not count.
    assert (peak.size_bytes, peak.node) == (212, "fourth")
    peak = peak_memory(Program("p", nodes[:3], values, ("x",), ("y",)))
    assert (peak.size_bytes, peak.node) == (152, "third")


def test_what_a_node_writes_over_counts_once() -> None:
    nodes = (
        Node("MATMUL", "scores", ("x",), ("s",)),
        Node("SOFTMAX", "softmax", ("s",), ("p",)),
        Node("ADD", "sum", ("p", "x"), ("y",)),
    )
    values = {"x": value(400), "s": value(400), "p": value(400), "y": value(400)}
    # x belongs to the caller and is not written over.
    assert peak_memory(Program("p", nodes, values, ("x",), ("y",))).size_bytes == 800
    twice = (*nodes[:2], Node("ADD", "sum", ("p", "s"), ("y",)))
    assert peak_memory(Program("p", twice, values, ("x",), ("y",))).size_bytes == 800


def test_what_is_made_of_constants_is_a_constant() -> None:
    nodes = (Node("DEQUANTIZE", "weights", ("w",), ("v",)), Node("MATMUL", "product", ("x", "v"), ("y",)))
    values = {"x": value(8), "w": value(4000, 1.0), "v": value(16000), "y": value(12)}
    assert peak_memory(Program("p", nodes, values, ("x",), ("y",))).size_bytes == 20


def masked(constant: float, through: tuple[str, ...], product_first: bool = False) -> Program:
    """scores + f(mask), then softmax; f is a chain of operators over a constant."""
    nodes = [Node("BATCH_MATMUL", "scores", ("q", "k"), ("s0",)), Node("MUL", "scaled", ("s0", "scale"), ("s1",))]
    key = "mask"
    for number, operator in enumerate(through):
        nodes.append(Node(operator, operator, (key,), (f"m{number}",)))
        key = f"m{number}"
    nodes += [Node("ADD", "added", ("s1", key), ("s2",)), Node("SOFTMAX", "softmax", ("s2",), ("p",))]
    keys = {each for node in nodes for each in (*node.inputs, *node.outputs)}
    values = {each: value() for each in keys} | {"mask": value(4, constant), "scale": value(4, 0.125)}
    inputs = ("q", "k")
    if product_first:
        values["q"] = value(4, -1e9)
    return Program("p", tuple(nodes), values, inputs, ("p",))


@pytest.mark.parametrize("through", [(), ("RESHAPE",), ("MUL", "aten::expand_copy.out", "XNNStaticReshape", "Where")])
def test_masks_are_followed_to_the_softmax(through: tuple[str, ...]) -> None:
    assert [number for _, number in _extremes(masked(-1e9, through))] == [-1e9]
    assert [number for _, number in _extremes(masked(float("-inf"), through))] == [-np.inf]
    assert list(_extremes(masked(-1000.0, through))) == []


def test_large_weights_that_are_no_mask_are_not_flagged() -> None:
    assert list(_extremes(masked(-1e9, ("FULLY_CONNECTED",)))) == []
    assert list(_extremes(masked(-1.0, (), product_first=True))) == []


def test_versions() -> None:
    assert parse_version("2.13.0+cpu", "x") == (2, 13, 0)
    assert parse_version("18", "x") == (18,)
    assert older((2, 1), (2, 1, 3)) and not older((2, 1), (2, 1, 0)) and not older((18,), (17, 4))
    with pytest.raises(InputError, match="--runtime"):
        parse_version("v2", "--runtime")


def test_facts_about_litert() -> None:
    newest = oldest_runtime("FULLY_CONNECTED", 14)
    assert newest is not None and str(newest) == "TensorFlow Lite 2.21, LiteRT 2.1"
    assert newest.in_runtime("2.1.0") is True and newest.in_runtime("2.0.3") is False
    assert newest.in_runtime("tflite-2.14.0") is False
    # The runtime that refuses GATHER_ND version 5 is tflite-runtime 2.14.
    gather = oldest_runtime("GATHER_ND", 5)
    assert gather is not None and gather.in_runtime("tflite-2.14.0") is False and gather.in_runtime("1.0.1") is True
    assert (
        oldest_runtime("ADD", 99) is None and oldest_runtime("NO_SUCH", 1) is None and oldest_runtime("ADD", 0) is None
    )


@pytest.mark.litert
@pytest.mark.parametrize("operator", ["ADD", "MUL", "FULLY_CONNECTED", "SOFTMAX", "TRANSPOSE", "CAST", "MEAN"])
def test_the_installed_litert_has_what_the_facts_say(operator: str, bundles: dict[str, Path]) -> None:
    def opens(version: int) -> bool:
        graph = LiteRTGraph(bundles["litert"] / "model.tflite")
        (code,) = [code for code in graph.model.operatorCodes if graph.names[code.builtinCode] == operator]
        code.version = version
        return open_model(bytes(graph.to_bytes()))

    newest = max(version for version in range(1, 30) if oldest_runtime(operator, version) is not None)
    assert opens(newest)
    assert not opens(newest + 1)


def open_model(content: bytes) -> bool:
    from ai_edge_litert.interpreter import Interpreter

    try:
        Interpreter(model_content=content).allocate_tensors()
    except (RuntimeError, ValueError) as error:
        assert "Didn't find op for builtin opcode" in str(error)
        return False
    return True


@pytest.mark.parametrize(
    ("target", "precision", "told"),
    [
        ("onnx", "dynamic-int8", "session.x64quantprecision"),
        ("litert", "static-int8", "stay exact"),
        ("onnx", "weight-int8", None),  # its products are of float32
        ("onnx", "fp32", None),
        ("coreml", "dynamic-int8", None),
    ],
)
def test_what_a_cpu_without_vnni_costs(target: str, precision: str, told: str | None) -> None:
    manifest = SimpleNamespace(recipe=PRECISIONS[precision].recipe)
    examination = SimpleNamespace(bundle=SimpleNamespace(manifest=manifest), examiner=examiner_for(target))
    found = list(check_processors(cast(Any, examination)))
    assert [(each.check, each.severity) for each in found] == ([("processors", Severity.INFO)] if told else [])
    assert all(told in each.what for each in found if told)
