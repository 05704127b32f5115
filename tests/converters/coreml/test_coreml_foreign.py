"""Core ML packages that are none of ours: whatever coremltools makes of a torch model, the reference runs."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_models import Foreign, foreign_models
from torch import Tensor, nn

from edgeformer.foreign_code import quiet_tools
from edgeformer_converters.mil.interpreter import run
from edgeformer_runtime.errors import EngineError, InputError

pytestmark = [pytest.mark.coreml, pytest.mark.slow]
MODELS = foreign_models()
TARGETS = ("iOS15", "iOS16", "iOS17", "iOS18")
# Relative to the largest value; fp16 rounds every intermediate result (2^-11) and sums a few of them.
TOLERANCES = {"FLOAT32": 2e-5, "FLOAT16": 5e-3}
VARIANTS = [
    (name, way, target, precision)
    for name, model in MODELS.items()
    for way in model.ways
    for target in TARGETS
    for precision in TOLERANCES
    if name != "pixel_unshuffle" or target != "iOS15"  # iOS 16 brought the operator
]
WHOLE_GRID = "EDGEFORMER_EVERY_VARIANT" in os.environ
"""Set, all 820 variants are converted, which takes some half an hour."""
ARCHITECTURES = ("bert", "vit", "convnet")
DEALT_OUT = [
    (ARCHITECTURES[number % len(ARCHITECTURES)], *variant)
    for number, variant in enumerate(product(("trace", "export"), TARGETS, TOLERANCES))
]
"""Every way, target and precision, each with one of whole architectures."""


@pytest.fixture(autouse=True)
def older_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """coremltools' frontend for traces takes int() of arrays with one element, which numpy 2.4 refuses."""
    ops = pytest.importorskip("coremltools.converters.mil.frontend.torch.ops")
    convert = ops._cast

    def cast(context: Any, node: Any, kind: type, name: str) -> None:
        def item(cls: type, value: Any) -> Any:  # noqa: ARG001
            return kind(np.asarray(value).item())

        convert(context, node, type(kind.__name__, (kind if kind is not bool else int,), {"__new__": item}), name)

    monkeypatch.setattr(ops, "_cast", cast)


def convert(model: Foreign, way: str, target: str, precision: str, package: Path, **options: Any) -> Any:
    """Save what coremltools makes of a model; its description."""
    with quiet_tools(), torch.no_grad():
        import coremltools as ct

        made = (
            torch.jit.trace(model.module, model.inputs, strict=False)
            if way == "trace"
            else torch.export.export(model.module, model.inputs).run_decompositions({})
        )
        kinds = [
            ct.TensorType(f"x{index}", tensor.shape, np.int32 if tensor.dtype == torch.int32 else np.float32)
            for index, tensor in enumerate(model.inputs)
        ]
        converted = ct.convert(
            made,
            convert_to="mlprogram",
            minimum_deployment_target=getattr(ct.target, target),
            compute_precision=getattr(ct.precision, precision),
            skip_model_load=True,
            **({"inputs": kinds} | options),
        )
        converted.save(str(package))
        return converted.get_spec().description


def tensors(found: Any) -> list[np.ndarray]:
    """What a torch module gives, in order."""
    if isinstance(found, Tensor):
        return [found.numpy()]
    return [array for each in found if each is not None for array in tensors(each)]


def check(name: str, way: str, target: str, precision: str, folder: Path) -> None:
    """Convert, run, compare with torch."""
    model = MODELS[name]
    description = convert(model, way, target, precision, folder / "model.mlpackage")
    inputs = {spec.name: each.numpy() for spec, each in zip(description.input, model.inputs, strict=True)}
    got = run(folder / "model.mlpackage", inputs)
    with torch.no_grad():
        expected = tensors(model.module(*model.inputs))
    for spec, wanted in zip(description.output, expected, strict=True):
        assert got[spec.name].shape == wanted.shape
        assert np.abs(got[spec.name] - wanted).max() <= TOLERANCES[precision] * np.abs(wanted).max()


# Each model once, the variants dealt out so that every target, precision and way is met many times.
@pytest.mark.parametrize("name", MODELS)
def test_a_foreign_model_says_what_torch_says(name: str, tmp_path: Path) -> None:
    mine = [variant for variant in VARIANTS if variant[0] == name]
    check(*mine[sum(name.encode()) % len(mine)], tmp_path)


@pytest.mark.parametrize(("name", "way", "target", "precision"), VARIANTS if WHOLE_GRID else DEALT_OUT)
def test_every_variant_of_a_foreign_model(name: str, way: str, target: str, precision: str, tmp_path: Path) -> None:
    check(name, way, target, precision, tmp_path)


class Pooled(nn.Module):
    """Works at any size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) to (1, 2)."""
        return self.head(torch.relu(self.conv(image)).mean((2, 3)))


@pytest.fixture
def pooled() -> Foreign:
    torch.manual_seed(0)
    return Foreign(Pooled().eval(), (torch.rand(1, 3, 10, 8) * 255,), ("trace",))


@pytest.mark.parametrize("flexible", ["range", "enumerated"])
def test_flexible_shapes_take_any_size(pooled: Foreign, flexible: str, tmp_path: Path) -> None:
    import coremltools as ct

    shapes = {
        "range": ct.Shape((1, 3, ct.RangeDim(4, 20, 10), ct.RangeDim(4, 20, 8))),
        "enumerated": ct.EnumeratedShapes([(1, 3, 10, 8), (1, 3, 12, 6)]),
    }
    package = tmp_path / "model.mlpackage"
    inputs = [ct.TensorType("image", shapes[flexible])]
    description = convert(pooled, "trace", "iOS17", "FLOAT32", package, inputs=inputs)
    for size in ((10, 8), (12, 6)):
        image = torch.rand(1, 3, *size)
        (found,) = run(package, {"image": image.numpy()}).values()
        np.testing.assert_allclose(found, pooled.module(image).detach(), rtol=1e-4, atol=1e-6)
    assert description.input[0].name == "image"
    with pytest.raises(InputError, match=r"expected float32 of shape \(1, 3, 'any', 'any'\), found float32"):
        run(package, {"image": np.zeros((1, 4, 10, 8), np.float32)})


def test_an_image_is_its_tensor(pooled: Foreign, tmp_path: Path) -> None:
    import coremltools as ct

    inputs = [ct.ImageType("image", (1, 3, 10, 8), scale=1 / 127.5, bias=[-1, -1, -1])]
    convert(pooled, "trace", "iOS16", "FLOAT32", tmp_path / "model.mlpackage", inputs=inputs)
    pixels = pooled.inputs[0].round()
    (found,) = run(tmp_path / "model.mlpackage", {"image": pixels.numpy()}).values()
    np.testing.assert_allclose(found, pooled.module(pixels / 127.5 - 1).detach(), rtol=1e-4, atol=1e-5)


def test_inputs_and_outputs_in_half_keep_their_type(pooled: Foreign, tmp_path: Path) -> None:
    import coremltools as ct

    kinds = {
        "inputs": [ct.TensorType("image", (1, 3, 10, 8), dtype=np.float16)],
        "outputs": [ct.TensorType("y", dtype=np.float16)],
    }
    convert(pooled, "trace", "iOS16", "FLOAT16", tmp_path / "model.mlpackage", **kinds)
    (found,) = run(tmp_path / "model.mlpackage", {"image": np.zeros((1, 3, 10, 8), np.float16)}).values()
    assert found.dtype == np.float16


class Noisy(nn.Module):
    """No reference can say what chance gives."""

    def forward(self, x: Tensor) -> Tensor:
        """x plus noise."""
        return x + torch.rand_like(x)


def test_what_the_reference_lacks_is_named(tmp_path: Path) -> None:
    model = Foreign(Noisy(), (torch.zeros(2, 3),), ("trace",))
    convert(model, "trace", "iOS16", "FLOAT32", tmp_path / "model.mlpackage")
    with pytest.raises(EngineError, match=r"does not know the operator random_uniform: verify on macOS"):
        run(tmp_path / "model.mlpackage", {"x0": np.zeros((2, 3), np.float32)})


def test_a_classifier_names_the_operator(pooled: Foreign, tmp_path: Path) -> None:
    import coremltools as ct

    labels = ct.ClassifierConfig(["cat", "dog"])
    convert(pooled, "trace", "iOS16", "FLOAT32", tmp_path / "model.mlpackage", classifier_config=labels)
    with pytest.raises(EngineError, match="does not know the operator classify"):
        run(tmp_path / "model.mlpackage", {"x0": np.zeros((1, 3, 10, 8), np.float32)})
