"""The .onnx files say what torch says, share their weights, and hold nothing of this machine."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from onnx_session import run_onnx
from small_text import cosine, reference, text_inputs

from edgeformer.convert.target import PRECISIONS
from edgeformer.models.family import Program
from edgeformer_converters.checks import Lowered
from edgeformer_converters.onnx.converter import WEIGHTS_FILE, OnnxConverter
from edgeformer_converters.onnx.quantize import pack_blocks, quantize_dynamically


@pytest.fixture(scope="module")
def lowered(programs: tuple[Program, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Lowered]:
    """The two buckets at every precision."""
    fp32 = OnnxConverter().lower_fp32(programs, tmp_path_factory.mktemp("onnx-fp32"))
    return {"fp32": fp32} | {
        name: OnnxConverter().lower_precision(programs, fp32, PRECISIONS[name], tmp_path_factory.mktemp(f"onnx-{name}"))
        for name in ("fp16", "dynamic-int8")
    }


def run(lowered: Lowered, program: Program, inputs: dict[str, Any]) -> Any:
    path = lowered.folder / lowered.entries[program.name][0]
    return run_onnx(path, inputs, [spec.name for spec in program.outputs])[0]


# int8: activations are quantized per tensor, so the bound is wider than LiteRT's.
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-6), ("fp16", 1e-3), ("dynamic-int8", 3e-2)])
def test_each_program_answers_as_torch_does(
    lowered: dict[str, Lowered], programs: tuple[Program, ...], precision: str, tolerance: float
) -> None:
    for program in programs:
        inputs = text_inputs(program)
        expected = reference(program, inputs)
        got = run(lowered[precision], program, inputs)
        assert got.dtype == np.float32
        assert np.abs(got - expected).max() < tolerance
        assert cosine(got, expected) > 0.999


def test_inputs_and_outputs_are_the_programs_own(lowered: dict[str, Lowered], programs: tuple[Program, ...]) -> None:
    for each in lowered.values():
        for program in programs:
            graph = onnx.load(each.folder / each.entries[program.name][0]).graph
            assert [value.name for value in graph.input] == [spec.name for spec in program.inputs]
            assert {value.type.tensor_type.elem_type for value in graph.input} == {TensorProto.INT32}
            assert [value.name for value in graph.output] == [spec.name for spec in program.outputs]


def test_buckets_share_one_file_of_weights(lowered: dict[str, Lowered], programs: tuple[Program, ...]) -> None:
    each = lowered["fp32"]
    assert each.files == ("classify_16.onnx", "classify_32.onnx", WEIGHTS_FILE)
    large = {id(p): p.nbytes for p in programs[0].module.parameters() if p.nbytes >= 4096}
    sliced_positions = 32 * 32 * 4
    assert (each.folder / WEIGHTS_FILE).stat().st_size == sum(large.values()) - 64 * 32 * 4 + sliced_positions
    for name in ("classify_16.onnx", "classify_32.onnx"):
        assert (each.folder / name).stat().st_size < 20_000


def test_one_program_is_one_file(programs: tuple[Program, ...], tmp_path: Path) -> None:
    assert OnnxConverter().lower_fp32(programs[:1], tmp_path).files == ("classify_16.onnx",)
    assert [path.name for path in tmp_path.iterdir()] == ["classify_16.onnx"]


@pytest.fixture(scope="module")
def of_any_length(
    programs: tuple[Program, ...], tmp_path_factory: pytest.TempPathFactory
) -> tuple[tuple[Program, ...], dict[str, Lowered]]:
    """The same buckets as programs that take any length."""
    programs = tuple(replace(program, any_length=True) for program in programs)
    fp32 = OnnxConverter().lower_fp32(programs, tmp_path_factory.mktemp("onnx-any-fp32"))
    name = "dynamic-int8"
    int8 = OnnxConverter().lower_precision(programs, fp32, PRECISIONS[name], tmp_path_factory.mktemp("onnx-any-int8"))
    return programs, {"fp32": fp32, name: int8}


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-6), ("dynamic-int8", 3e-2)])
def test_one_file_answers_as_torch_does_at_every_length(
    of_any_length: tuple[tuple[Program, ...], dict[str, Lowered]], precision: str, tolerance: float
) -> None:
    programs, lowered = of_any_length
    each, longest = lowered[precision], programs[-1]
    assert each.files == ("model.onnx",)
    assert {each.entries[program.name] for program in programs} == {("model.onnx", "main")}
    for length in range(2, longest.inputs[0].shape[1] + 1):
        inputs = {name: values[:, :length] for name, values in text_inputs(longest, seed=length).items()}
        assert np.abs(run(each, longest, inputs) - reference(longest, inputs)).max() < tolerance


def initializers(lowered: Lowered) -> list[TensorProto]:
    return list(onnx.load(lowered.folder / "classify_32.onnx").graph.initializer)


def test_dynamic_int8_leaves_no_matrix_in_float(lowered: dict[str, Lowered]) -> None:
    large = [t for t in initializers(lowered["dynamic-int8"]) if np.prod(t.dims) > 128]
    # The position table is sliced to the bucket and added, never multiplied; what is smaller: biases, norms, scales.
    assert [t.dims for t in large if t.data_type == TensorProto.FLOAT] == [[32, 32]]
    operators = lowered["dynamic-int8"].operators
    assert operators["MatMulInteger"] == 2 * 5
    assert operators["MatMulNBits"] == 2 * 1
    assert operators["MatMul"] == 2 * 2


def test_fp16_stores_half_weights(lowered: dict[str, Lowered]) -> None:
    large = [t for t in initializers(lowered["fp16"]) if np.prod(t.dims) >= 1024]
    assert {t.data_type for t in large} == {TensorProto.FLOAT16}


def test_the_files_hold_no_trace_of_this_machine(lowered: dict[str, Lowered]) -> None:
    site_packages = str(Path(torch.__file__).parents[1]).encode()
    for each in lowered.values():
        for name in each.files:
            content = (each.folder / name).read_bytes()
            for trace in (site_packages, str(Path.cwd()).encode(), b"small_text.py", b"stack_trace"):
                assert trace not in content


def test_a_second_conversion_gives_the_same_bytes_and_prints_nothing(
    lowered: dict[str, Lowered], programs: tuple[Program, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "int8").mkdir()
    again = OnnxConverter().lower_fp32(programs, tmp_path)
    int8 = OnnxConverter().lower_precision(programs, again, PRECISIONS["dynamic-int8"], tmp_path / "int8")
    assert capfd.readouterr() == ("", "")
    for first, second in ((lowered["fp32"], again), (lowered["dynamic-int8"], int8)):
        assert first.files == second.files
        for name in first.files:
            assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes(), name


def gated_decoder() -> onnx.ModelProto:
    """Tokens (8,) through a table to a gated feed-forward, and to the same table as the output layer."""
    random = np.random.default_rng(2)
    table = random.normal(0, 1, (300, 64)).astype(np.float32)
    weights = {
        "table": table,
        **{name: random.normal(0, 0.1, (128, 64)).astype(np.float32) for name in ("gate", "up")},
        "down": random.normal(0, 0.1, (64, 128)).astype(np.float32),
    }
    weights["gate"][0] = weights["up"][0] = table[7]  # of this token one value behind the gate is far from all others
    make = partial(onnx.helper.make_node, "Gemm", transB=1)
    nodes = [
        onnx.helper.make_node("Gather", ["table", "tokens"], ["x"], name="lookup"),
        make(["x", "gate"], ["gated"], name="gate_product"),
        make(["x", "up"], ["raised"], name="up_product"),
        onnx.helper.make_node("Sigmoid", ["gated"], ["share"]),
        onnx.helper.make_node("Mul", ["gated", "share"], ["silu"]),
        onnx.helper.make_node("Mul", ["silu", "raised"], ["through"]),
        make(["through", "down"], ["hidden"], name="down_product"),
        make(["x", "table"], ["logits"], name="output_product"),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "decoder",
        [onnx.helper.make_tensor_value_info("tokens", TensorProto.INT32, [8])],
        [
            onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, [8, size])
            for name, size in (("hidden", 64), ("logits", 300))
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)


def test_a_token_of_large_values_takes_no_bits_from_others_behind_gates_and_a_tied_table_is_stored_once(
    tmp_path: Path,
) -> None:
    tokens = {"tokens": np.array([7, 1, 2, 3, 4, 5, 6, 8], np.int32)}
    onnx.save(gated_decoder(), tmp_path / "float.onnx")
    expected = run_onnx(tmp_path / "float.onnx", tokens, ["hidden", "logits"])
    quantized = quantize_dynamically(gated_decoder())
    onnx.save(quantized, tmp_path / "int8.onnx")
    found = run_onnx(tmp_path / "int8.onnx", tokens, ["hidden", "logits"])
    operators = Counter(node.op_type for node in quantized.graph.node)
    assert (operators["MatMulNBits"], operators["MatMulInteger"]) == (3, 1)
    large = [tensor for tensor in quantized.graph.initializer if np.prod(tensor.dims) >= 300 * 64]
    assert [(list(tensor.dims), tensor.data_type) for tensor in large] == [([64, 300], TensorProto.INT8)]
    for several in zip(found, expected, strict=True):
        assert min(cosine(*rows) for rows in zip(*several, strict=True)) > 0.99


def test_blocks_of_8_bits_give_the_weights_back() -> None:
    rows = np.random.default_rng(1).normal(size=(6, 200)).astype(np.float32)
    packed, scales = pack_blocks(rows, 8, 128)
    assert packed.shape == (6, 2, 128) and scales.shape == (12,)
    again = (packed.astype(np.float32) - 128) * scales.reshape(6, 2, 1)
    assert np.abs(again.reshape(6, -1)[:, :200] - rows).max() <= scales.max() / 2 + 1e-6
    assert not again.reshape(6, -1)[:, 200:].any()
