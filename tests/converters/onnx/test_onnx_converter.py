"""The .onnx files say what torch says, share their weights, and hold nothing of this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from onnx_session import run_onnx
from small_text import cosine, reference, text_inputs

from edgeformer.convert.target import PRECISIONS
from edgeformer.models.family import Program
from edgeformer_converters.checks import Lowered
from edgeformer_converters.onnx.converter import WEIGHTS_FILE, OnnxConverter


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
