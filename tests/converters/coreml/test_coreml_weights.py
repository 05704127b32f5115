"""Compressed weights in Core ML packages: what is stored, and that it computes as its values written out do."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_image import image_inputs, image_program
from small_text import SmallTextClassifier, reference, text_inputs, text_programs

from edgeformer.convert.target import PRECISIONS
from edgeformer.foreign_code import quiet_tools
from edgeformer.models.family import Program
from edgeformer_converters.checks import Lowered
from edgeformer_converters.coreml.converter import PACKAGE, WEIGHTS, CoreMLConverter
from edgeformer_converters.mil.interpreter import run
from edgeformer_converters.mil.program import Function, Operation, read_program
from edgeformer_runtime.errors import InputError

pytestmark = [pytest.mark.coreml, pytest.mark.slow]
OPERATORS = {
    "dynamic-int8": "constexpr_blockwise_shift_scale",
    "palette6": "constexpr_lut_to_dense",
    "palette4": "constexpr_lut_to_dense",
    "int4": "constexpr_blockwise_shift_scale",
}
BITS = {"dynamic-int8": 8, "palette6": 6, "palette4": 4, "int4": 4}
Arrays = dict[str, np.ndarray[Any, Any]]


def lower(program: Program, precision: str, folder: Path, ios: int = 18) -> Path:
    """The package of one program, of which nothing goes beyond float16: no inputs are needed to look for that."""
    unused = Lowered(folder, (), {}, {}, None)
    CoreMLConverter(ios=ios).lower_precision((replace(program, calibration=()),), unused, PRECISIONS[precision], folder)
    return folder / PACKAGE


@pytest.fixture(scope="module")
def text() -> Program:
    torch.manual_seed(0)
    return text_programs(SmallTextClassifier().eval(), (16,))[0]


@pytest.fixture(scope="module")
def packages(text: Program, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """The small classifiers of texts and of images with each kind of compressed weights."""
    programs = {"text": text, "image": image_program()}
    return {
        (name, precision): lower(program, precision, tmp_path_factory.mktemp(f"{name}-{precision}"))
        for name, program in programs.items()
        for precision in WEIGHTS
    }


def inputs_of(name: str, text: Program) -> Arrays:
    """One input of a program."""
    return text_inputs(text) if name == "text" else {"pixels": image_inputs(1, seed=5)[0][0].numpy()}


def written_out(operation: Operation) -> np.ndarray[Any, Any]:
    """What an operator of compressed weights stands for, in numpy."""
    stored = {key: np.asarray(value) for key, value in operation.inputs.items()}
    if operation.type == "constexpr_lut_to_dense":
        return stored["lut"].reshape(-1)[stored["indices"]]
    scale, offset = stored["scale"], stored.get("offset", np.zeros(1))
    for axis, (size, blocks) in enumerate(zip(stored["data"].shape, scale.shape, strict=True)):
        scale = scale.repeat(size // blocks, axis)
        offset = offset.repeat(size // blocks, axis) if offset.ndim == scale.ndim else offset
    return ((stored["data"] - offset) * scale).astype(np.float16).astype(np.float32)


def compressed(function: Function) -> list[Operation]:
    """The operators of compressed weights."""
    return [each for each in function.operations if each.type.startswith("constexpr_")]


@pytest.mark.parametrize("name", ["text", "image"])
@pytest.mark.parametrize("precision", WEIGHTS)
def test_it_computes_exactly_as_the_weights_written_out_do(
    packages: dict[tuple[str, str], Path], text: Program, name: str, precision: str, tmp_path: Path
) -> None:
    package = packages[name, precision]
    with quiet_tools():
        import coremltools as ct

        small = ct.models.MLModel(str(package), skip_model_load=True)
        ct.optimize.coreml.decompress_weights(small).save(str(tmp_path / "plain.mlpackage"))
    (function,), (plain,) = (read_program(path).values() for path in (package, tmp_path / "plain.mlpackage"))
    assert not compressed(plain)
    found = Counter(
        np.asarray(value).tobytes() for value in plain.constants.values() if isinstance(value, torch.Tensor)
    )
    expected = Counter(written_out(operation).astype(np.float32).tobytes() for operation in compressed(function))
    assert expected
    assert expected <= found
    inputs = inputs_of(name, text)
    for key, logits in run(package, inputs).items():
        np.testing.assert_array_equal(logits, run(tmp_path / "plain.mlpackage", inputs)[key])


@pytest.mark.parametrize("precision", WEIGHTS)
def test_large_weights_take_their_bits(
    packages: dict[tuple[str, str], Path], text: Program, precision: str, tmp_path: Path
) -> None:
    package = packages["text", precision]
    (function,) = read_program(package).values()
    assert Counter(each.type for each in compressed(function)) == {OPERATORS[precision]: 2}
    half = lower(text, "fp16", tmp_path)
    sizes = [(each / "Data/com.apple.CoreML/weights/weight.bin").stat().st_size for each in (package, half)]
    large = sum(weight.numel() for weight in text.module.parameters() if weight.numel() > 2048)
    # What is saved, but for scales, palettes and the alignment of each blob to 64 bytes.
    assert sizes[1] - sizes[0] == pytest.approx(large * (16 - BITS[precision]) / 8, rel=0.2)


# Relative to the largest logit.
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("dynamic-int8", 1e-2), ("palette6", 4e-2), ("palette4", 2e-1), ("int4", 1e-1)]
)
def test_logits_stay_near_torch(
    packages: dict[tuple[str, str], Path], text: Program, precision: str, tolerance: float
) -> None:
    inputs = text_inputs(text)
    expected = reference(text, inputs)
    got = run(packages["text", precision], inputs)["logits"]
    assert np.abs(got - expected).max() < tolerance * np.abs(expected).max()


@pytest.mark.parametrize(("ios", "macos"), [(16, "13.0"), (17, "14.0")])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "dynamic-int8", "palette6", "palette4"])
def test_older_releases_run_one_program(text: Program, ios: int, macos: str, precision: str, tmp_path: Path) -> None:
    package = lower(text, precision, tmp_path, ios)
    with quiet_tools():
        from coremltools.proto import Model_pb2

    specification = Model_pb2.Model.FromString((package / "Data/com.apple.CoreML/model.mlmodel").read_bytes())
    assert specification.specificationVersion == {16: 7, 17: 8}[ios]
    requires = CoreMLConverter(ios=ios).requires
    assert (requires.ios, requires.macos) == (f"{ios}.0", macos)
    (function,) = read_program(package).values()
    assert "scaled_dot_product_attention" not in {each.type for each in function.operations}
    expected = reference(text, text_inputs(text))
    assert np.abs(run(package, text_inputs(text))["logits"] - expected).max() < 0.2 * np.abs(expected).max()


def test_what_older_releases_lack_is_refused(text: Program) -> None:
    (problem,) = CoreMLConverter(ios=16).check((text,), PRECISIONS["int4"])
    assert problem == (
        "coreml has no precision 'int4': expected one of fp32, fp16, dynamic-int8, palette6, palette4, mixed"
    )
    both = text_programs(text.module, (16, 32))
    (problem,) = CoreMLConverter(ios=17).check(both, PRECISIONS["fp16"])
    assert problem.startswith("several programs in one package need iOS 18, iOS 17 was asked for")
    with pytest.raises(InputError, match="unknown release iOS 15: expected one of 16, 17, 18"):
        CoreMLConverter(ios=15)


def test_a_corrupted_weight_shows(packages: dict[tuple[str, str], Path], text: Program) -> None:
    package = packages["text", "int4"]
    file = package / "Data/com.apple.CoreML/weights/weight.bin"
    original = file.read_bytes()
    expected = run(package, text_inputs(text))["logits"]
    try:
        # The middle of the file lies in one of the two large weights.
        middle = len(original) // 2
        corrupted = bytes(each ^ 0x77 for each in original[middle : middle + 64])
        file.write_bytes(original[:middle] + corrupted + original[middle + 64 :])
        assert np.abs(run(package, text_inputs(text))["logits"] - expected).max() > 1e-3
    finally:
        file.write_bytes(original)
