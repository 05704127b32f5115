"""A format for each layer: every target gives each layer its own, and says so where it cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx_session import run_onnx
from small_text import SmallTextClassifier, reference, text_inputs, text_programs
from torch import Tensor, nn

from edgeformer.convert.layer_plan import LayerPlan, planned, quantizable_layers, quantized
from edgeformer.convert.target import PRECISIONS, Converter, Lowered, converter_for
from edgeformer.models.family import Program
from edgeformer_converters.checks import PlannedLayers
from edgeformer_runtime.errors import InputError

pytestmark = pytest.mark.slow
MIXED = PRECISIONS["mixed"]
TARGETS = (
    *(pytest.param(name, marks=getattr(pytest.mark, name)) for name in ("litert", "executorch", "coreml")),
    "onnx",
)
PLAN = LayerPlan({"query": "fp32", "key": "int8", "head": "fp32", "tokens": "int8"}, default="int4")
BLOCKS = {"litert": None, "executorch": None, "onnx": 32}


@pytest.fixture(scope="module", params=TARGETS)
def converter(request: pytest.FixtureRequest) -> Converter:
    return converter_for(request.param)


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(0)
    return SmallTextClassifier().eval()


@pytest.fixture(scope="module")
def fp32(converter: Converter, module: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    return converter.lower_fp32(text_programs(module, (16,)), tmp_path_factory.mktemp("fp32"))


def lower(converter: Converter, module: nn.Module, plan: LayerPlan, fp32: Lowered, folder: Path) -> Lowered:
    programs = planned(text_programs(module, (16,)), module, plan)
    assert converter.check(programs, MIXED) == []
    return converter.lower_precision(programs, fp32, MIXED, folder)


@pytest.fixture(scope="module")
def mixed(converter: Converter, module: nn.Module, fp32: Lowered, tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    return lower(converter, module, PLAN, fp32, tmp_path_factory.mktemp("mixed"))


def run(lowered: Lowered, inputs: dict[str, NDArray[np.int32]]) -> Any:
    """The first output of the one program."""
    ((file, entry),) = lowered.entries.values()
    path = lowered.folder / file
    if path.suffix == ".tflite":
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter(str(path), num_threads=1).get_signature_runner(entry)(**inputs)["logits"]
    if path.suffix == ".pte":
        import executorch.kernels.quantized  # noqa: F401 - registers them
        from executorch.runtime import Runtime

        tensors = tuple(torch.from_numpy(value) for value in inputs.values())
        (logits,) = Runtime.get().load_program(str(path)).load_method(entry).execute(tensors)
        return logits.numpy()
    if path.suffix == ".onnx":
        return run_onnx(path, inputs)[0]
    from edgeformer_converters.mil.interpreter import MilInterpreter
    from edgeformer_converters.mil.program import read_program

    return MilInterpreter(read_program(path)[entry]).run(inputs)["logits"]


def with_rounded_weights(module: nn.Module, plan: LayerPlan, block: int | None) -> nn.Module:
    """The module that a target's weights amount to."""
    copy = SmallTextClassifier().eval()
    copy.load_state_dict(module.state_dict())
    formats = plan.formats(copy)
    for name, layer in quantizable_layers(copy).items():
        with torch.no_grad():
            blocks = block if formats[name] == "int4" else None
            layer.weight.copy_(quantized(layer.weight, formats[name], blocks))
    return copy


def test_each_layer_has_the_weights_of_its_format(converter: Converter, module: nn.Module, mixed: Lowered) -> None:
    """EvaluationResult with torch on weights rounded by hand; what is left is the rounding of activations."""
    if converter.target.name == "coreml":
        pytest.skip("its int4 has offsets: compared operator by operator below")
    rounded = with_rounded_weights(module, PLAN, BLOCKS[converter.target.name])
    (program,) = text_programs(rounded, (16,))
    (exact,) = text_programs(module, (16,))
    found, rounding = [], []
    for seed in range(5):
        inputs = text_inputs(program, seed)
        expected = reference(program, inputs)
        found.append(np.abs(run(mixed, inputs) - expected).max() / np.abs(expected).max())
        rounding.append(np.abs(reference(exact, inputs) - expected).max() / np.abs(expected).max())
    assert np.mean(found) < 0.3 * np.mean(rounding)


def test_a_plan_of_floats_changes_nothing(
    converter: Converter, module: nn.Module, fp32: Lowered, tmp_path: Path
) -> None:
    lowered = lower(converter, module, LayerPlan(default="fp32"), fp32, tmp_path)
    (program,) = text_programs(module, (16,))
    inputs = text_inputs(program)
    # Core ML's other operators compute in float16.
    limit = 1e-2 if converter.target.name == "coreml" else 1e-5
    np.testing.assert_allclose(run(lowered, inputs), reference(program, inputs), rtol=0, atol=limit)


def test_a_delegate_gets_no_more_pieces(fp32: Lowered, mixed: Lowered) -> None:
    if fp32.partitions is not None:
        assert mixed.partitions is not None and mixed.partitions <= fp32.partitions


def test_core_ml_has_an_operator_of_each_format(converter: Converter, module: nn.Module, mixed: Lowered) -> None:
    if converter.target.name != "coreml":
        pytest.skip("about Core ML's operators")
    from edgeformer_converters.mil.program import read_program

    (function,) = read_program(mixed.folder / mixed.entries["classify_16"][0]).values()
    kinds = [operation.type for operation in function.operations]
    # tokens and key in int8; value, up and down in int4.
    assert sum("blockwise" in kind or "affine" in kind for kind in kinds) == 5
    (program,) = text_programs(module, (16,))
    inputs = text_inputs(program)
    expected = reference(program, inputs)
    error = np.abs(run(mixed, inputs) - expected).max() / np.abs(expected).max()
    assert 1e-3 < error < 0.1


def test_formats_that_a_target_lacks_are_refused(module: nn.Module) -> None:
    programs = planned(text_programs(module, (16,)), module, LayerPlan({"tokens": "int4", "up": "fp16"}))
    assert converter_for("onnx").check(programs, MIXED) == [
        "onnx has no int4 for Embedding (tokens): take one of fp32, fp16, int8"
    ]
    assert converter_for("executorch").check(programs, MIXED) == [
        "executorch has no int4 for Embedding (tokens): take one of fp32, int8",
        "executorch has no fp16 for Linear (up): take one of fp32, int8, int4",
    ]
    assert converter_for("coreml", 17).check(programs, MIXED) == [
        "coreml has no int4 for Embedding (tokens): take one of fp32, fp16, int8"
    ]


def test_what_to_take_instead_is_said(module: nn.Module) -> None:
    programs = text_programs(module, (16,))
    for target, alternative in (("executorch", "take dynamic-int8"), ("coreml", "take that")):
        (problem,) = converter_for(target).check(programs, PRECISIONS["weight-int8"])
        assert problem.startswith(f"{target} has no weight-int8: ")
        assert alternative in problem


class Two(nn.Module):
    """Two layers."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(4, 3)
        with torch.no_grad():
            self.first.weight.copy_(first)
            self.second.weight.copy_(second)


def two(first: Tensor, second: Tensor, formats: dict[str, str]) -> Program:
    return replace(Program("two", Two(first, second), (), ()), layer_formats=formats)


def test_layers_are_found_scaled_and_transposed_and_missed_by_name() -> None:
    a, b = (torch.randn(3, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(2))
    layers = PlannedLayers([two(a, b, {"first": "int8", "second": "fp32"})])
    found = layers.find(a.numpy().T * 0.25, transposed=True)
    assert found is not None and found.name == "first"
    assert layers.find(a.numpy() + 0.1) is None
    with pytest.raises(InputError, match="litert: the lowered model does not have the weights of second"):
        layers.require_all("litert")
    assert layers.find(b.half().numpy()) is not None
    layers.require_all("litert")


def test_equal_weights_of_two_formats_are_refused() -> None:
    a = torch.ones(3, 4)
    PlannedLayers([two(a, a, {"first": "int8", "second": "int8"})])
    with pytest.raises(InputError, match="first and second have the same weights and the formats int8 and fp32"):
        PlannedLayers([two(a, a, {"first": "int8", "second": "fp32"})])


@pytest.mark.parametrize(("target", "most"), [pytest.param("litert", 0.015, marks=pytest.mark.litert), ("onnx", 0.015)])
def test_weights_alone_in_int8_compute_in_float(
    module: nn.Module, tmp_path_factory: pytest.TempPathFactory, target: str, most: float
) -> None:
    converter = converter_for(target)
    programs = text_programs(module, (16,))
    float_model = converter.lower_fp32(programs, tmp_path_factory.mktemp("fp32"))
    lowered = converter.lower_precision(
        programs, float_model, PRECISIONS["weight-int8"], tmp_path_factory.mktemp("int8")
    )
    rounded = with_rounded_weights(module, LayerPlan(default="int8"), None)
    (program,) = text_programs(rounded, (16,))
    inputs = text_inputs(program)
    expected = reference(program, inputs)
    assert np.abs(run(lowered, inputs) - expected).max() < most * np.abs(expected).max()
    assert lowered.partitions == float_model.partitions
