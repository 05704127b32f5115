"""The ExecuTorch shim on the emulated Pi."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime.tiny_bundle import make_executorch
from tools.pi.emulated_pi import EmulatedPi
from tools.pi.shims import MODELS, compare_shims


@pytest.mark.pi
@pytest.mark.slow
@pytest.mark.executorch
def test_the_shim_computes_there_what_it_computes_here(pi: EmulatedPi, tmp_path: Path) -> None:
    (compared,) = compare_shims(pi, {make_executorch(tmp_path / "tiny.executorch.fp32"): "fp32"})
    assert compared.ok, compared
    assert (compared.bundle, compared.outputs, compared.tolerance) == ("tiny.executorch.fp32", 2, 1e-5)


def test_each_kind_of_model_is_converted_for_executorch() -> None:
    assert {model.name: model.precisions for model in MODELS} == {
        "texts": ("fp32", "dynamic-int8"),
        "images": ("fp32",),
        "speech": ("fp32",),
    }
    assert {model.target for model in MODELS} == {"executorch"}
