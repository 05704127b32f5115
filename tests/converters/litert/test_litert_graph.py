"""What int8 changes in a `.tflite` before the quantizer: pointwise convolutions become products, exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_image import CHANNELS, image_inputs, image_program

from edgeformer.convert.target import converter_for

pytestmark = pytest.mark.litert


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fp32")
    return folder / converter_for("litert").lower_fp32((image_program(),), folder).files[0]


def test_pointwise_convolutions_become_products_that_compute_the_same(fp32: Path, tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    from edgeformer_converters.litert.graph import LiteRTGraph

    graph = LiteRTGraph(fp32)
    before = graph.count_operators()
    assert len(graph.make_products_of_pointwise_convolutions()) == 2
    changed = tmp_path / "changed.tflite"
    changed.write_bytes(graph.to_bytes())
    after = LiteRTGraph(changed).count_operators()
    assert after["CONV_2D"] == before["CONV_2D"] - 2 == 1
    assert after["FULLY_CONNECTED"] == before["FULLY_CONNECTED"] + 2
    ((pixels,),) = image_inputs(1, seed=2)
    expected, found = (
        Interpreter(str(path)).get_signature_runner("image")(pixels=pixels.numpy())["logits"]
        for path in (fp32, changed)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_spatial_kernels_are_named_with_the_number_of_their_weights(fp32: Path) -> None:
    from edgeformer_converters.litert.graph import LiteRTGraph

    found = [(kind, weights) for kind, _, weights in LiteRTGraph(fp32).spatial_convolutions()]
    assert found == [("CONV_2D", 3 * 3 * 3 * CHANNELS), ("DEPTHWISE_CONV_2D", 3 * 3 * 2 * CHANNELS)]
