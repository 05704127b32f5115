"""int8 of a program on images: calibrated or not, near to fp32, small, in one partition where a delegate runs it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lowered_bundle import check_files
from numpy.typing import NDArray
from onnx_session import run_onnx
from small_image import image_inputs, image_program
from small_text import cosine, reference
from torch import Tensor, nn

from edgeformer.convert.target import PRECISIONS, Converter, Lowered, converter_for
from edgeformer.models.family import Program
from edgeformer_runtime.bundle.manifest import TensorSpec

pytestmark = pytest.mark.slow
INT8 = ("dynamic-int8", "static-int8")
TARGETS = (*(pytest.param(name, marks=getattr(pytest.mark, name)) for name in ("litert", "executorch")), "onnx")


@pytest.fixture(scope="module")
def program() -> Program:
    return image_program()


@pytest.fixture(scope="module", params=TARGETS)
def converter(request: pytest.FixtureRequest) -> Converter:
    return converter_for(request.param)


@pytest.fixture(scope="module")
def lowered(converter: Converter, program: Program, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Lowered]:
    """The program at fp32 and in both kinds of int8."""
    fp32 = converter.lower_fp32((program,), tmp_path_factory.mktemp("fp32"))
    return {"fp32": fp32} | {
        name: converter.lower_precision((program,), fp32, PRECISIONS[name], tmp_path_factory.mktemp(name))
        for name in INT8
    }


def run(lowered: Lowered, pixels: NDArray[np.float32]) -> Any:
    file, entry = lowered.entries["image"]
    path = str(lowered.folder / file)
    if path.endswith(".tflite"):
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter(path, num_threads=1).get_signature_runner(entry)(pixels=pixels)["logits"]
    if path.endswith(".pte"):
        from executorch.runtime import Runtime

        (logits,) = Runtime.get().load_program(path).load_method(entry).execute((torch.from_numpy(pixels),))
        return logits.numpy()
    return run_onnx(path, {"pixels": pixels})[0]


def test_the_runtime_takes_every_file(converter: Converter, lowered: dict[str, Lowered], program: Program) -> None:
    for each in lowered.values():
        check_files(converter.target.name, (program,), each)


# Weights and activations are each rounded to 1/254 of their ranges, over eight layers.
@pytest.mark.parametrize("precision", INT8)
def test_images_outside_the_calibration_get_the_logits_of_torch(
    lowered: dict[str, Lowered], program: Program, precision: str
) -> None:
    for (pixels,) in image_inputs(4, seed=2):
        expected = reference(program, {"pixels": pixels.numpy()})
        got = run(lowered[precision], pixels.numpy())
        assert np.abs(got - expected).max() < 0.05 * np.abs(expected).max()
        assert cosine(got, expected) > 0.999


@pytest.mark.parametrize("precision", INT8)
def test_a_delegate_keeps_int8_in_one_piece(lowered: dict[str, Lowered], precision: str) -> None:
    assert lowered[precision].partitions == lowered["fp32"].partitions


def test_static_ranges_come_from_the_calibration_inputs(
    converter: Converter, lowered: dict[str, Lowered], program: Program, tmp_path: Path
) -> None:
    far_too_small = replace(program, calibration=tuple((pixels * 0.01,) for (pixels,) in program.calibration))
    static = converter.lower_precision((far_too_small,), lowered["fp32"], PRECISIONS["static-int8"], tmp_path)
    ((pixels,),) = image_inputs(1, seed=2)
    expected = reference(program, {"pixels": pixels.numpy()})
    assert cosine(run(static, pixels.numpy()), expected) < 0.99


class Product(nn.Module):
    """One linear layer, whose only quantized activations are its inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 16)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """(1, 16, 64) to (1, 16, 16)."""
        return (self.linear(x),)


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_ranges_may_leave_outliers_out(converter: Converter, tmp_path: Path, method: str) -> None:
    """One value in 100,000 is broken: by min-max it takes most of int8's steps."""
    torch.manual_seed(0)
    values = torch.randn(100, 1, 16, 64)
    values[0, 0, 0, 0] = 300.0
    program = Program(
        "image",
        Product().eval(),
        (TensorSpec("pixels", "float32", (1, 16, 64)),),
        (TensorSpec("logits", "float32", (1, 16, 16)),),
        tuple((each,) for each in values),
    )
    x = values[1].numpy()
    (tmp_path / "fp32").mkdir()
    fp32 = converter.lower_fp32((program,), tmp_path / "fp32")

    def error(method: str) -> float:
        folder = tmp_path / method
        folder.mkdir()
        chosen = replace(program, calibration_method=method)
        static = converter.lower_precision((chosen,), fp32, PRECISIONS["static-int8"], folder)
        return float(np.abs(run(static, x) - reference(program, {"pixels": x})).max())

    assert error(method) < 0.3 * error("min-max")


def test_static_int8_needs_calibration(converter: Converter, program: Program) -> None:
    precision = PRECISIONS["static-int8"]
    assert converter.check((program,), precision) == []
    assert converter.check((replace(program, calibration=()),), precision) == [
        "static-int8 needs calibration: give --calibration, a folder of images or audio, or a table of texts"
    ]


def test_attention_stays_in_float(converter: Converter, lowered: dict[str, Lowered]) -> None:
    """Its two products: in ONNX the only MatMul whose inputs come from no DequantizeLinear."""
    static = lowered["static-int8"]
    if converter.target.name == "executorch":
        pytest.skip("the delegate hides its operators")
    if converter.target.name == "onnx":
        import onnx

        graph = onnx.load(static.folder / static.files[0]).graph
        makers = {output: node.op_type for node in graph.node for output in node.output}
        float_products = [
            node
            for node in graph.node
            if node.op_type == "MatMul" and "DequantizeLinear" not in {makers[name] for name in node.input}
        ]
        assert len(float_products) == 2
    else:
        assert tensor_types(static.folder / static.files[0], "BATCH_MATMUL") == {"FLOAT32"}
        assert tensor_types(static.folder / static.files[0], "SOFTMAX") == {"FLOAT32"}


def tensor_types(path: Path, operator_name: str) -> set[str]:
    """The types of all that these operators take and give."""
    from edgeformer_converters.litert.graph import LiteRTGraph

    graph = LiteRTGraph(path)
    types = {code: name for name, code in vars(graph.schema.TensorType).items() if isinstance(code, int)}
    (subgraph,) = graph.model.subgraphs
    return {
        types[subgraph.tensors[index].type]
        for operator in subgraph.operators
        if graph.name(operator) == operator_name
        for index in (*operator.inputs, *operator.outputs)
    }


@pytest.mark.parametrize("precision", INT8)
def test_no_large_constant_stays_in_float(lowered: dict[str, Lowered], program: Program, precision: str) -> None:
    floats = sum(tensor.nbytes for tensor in (*program.module.parameters(), *program.module.buffers()))
    model = lowered[precision]
    saved = (lowered["fp32"].folder / model.files[0]).stat().st_size - (model.folder / model.files[0]).stat().st_size
    # What int8 saves, less its own scales, operators and names.
    assert saved > 0.5 * floats


def test_two_conversions_give_the_same_bytes(
    converter: Converter, lowered: dict[str, Lowered], program: Program, tmp_path: Path
) -> None:
    again = converter.lower_precision((program,), lowered["fp32"], PRECISIONS["static-int8"], tmp_path)
    for name in again.files:
        assert (again.folder / name).read_bytes() == (lowered["static-int8"].folder / name).read_bytes()
