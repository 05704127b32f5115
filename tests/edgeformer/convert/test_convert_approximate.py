"""Approximate attention through every target: verified against the source under the same attention, and said so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeformer.attention import APPROXIMATE_KERNELS, KERNELS
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer.convert.convert import ConvertOptions, convert
from edgeformer.convert.result import Converted
from edgeformer_runtime import load
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.pipelines.program import ProgramPipeline
from tests.checkpoint_factory import save_mobilebert

pytestmark = pytest.mark.slow
TARGETS = ("litert", "coreml", "executorch", "onnx")
LENGTH = 603
"""Neither a multiple of a block nor of a segment, and more than a window takes in one part."""

LONG = "turn the lights off in the living room please " * 70


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "tiny"
    return save_mobilebert(
        folder, normalization_type="layer_norm", max_position_embeddings=LENGTH, initializer_range=0.4
    )


def logits_in_torch(checkpoint: Path, bundle: Path, kernel: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The source's logits (1, 3) for the long text under an approximate kernel, and under an exact one."""
    opened = open_checkpoint(str(checkpoint))
    with load(bundle) as pipeline:
        assert isinstance(pipeline, ProgramPipeline)
        inputs = [torch.from_numpy(array) for array in pipeline.prepare(LONG).inputs.values()]
    modules = (load_module(opened, attention)[0] for attention in (APPROXIMATE_KERNELS[kernel], KERNELS["dense"]))
    with torch.no_grad():
        (approximate,), (exact,) = (module(*inputs) for module in modules)
    return approximate, exact


@pytest.mark.parametrize("kernel", APPROXIMATE_KERNELS)
def test_every_target_carries_it(kernel: str, checkpoint: Path, tmp_path: Path) -> None:
    reports: list[str] = []
    options = ConvertOptions(str(checkpoint), tmp_path, TARGETS, ("fp32",), (LENGTH,), attention=kernel)
    rows = {row.target: row for row in convert(options, lambda line, *_: reports.append(line))}
    assert tuple(rows) == TARGETS
    for row in rows.values():
        assert row.ok, row.problems
        with Bundle.open(row.path) as bundle:
            assert bundle.manifest.attention == kernel
        report = json.loads((row.path / "report.json").read_text())
        assert report["approximation"].startswith(f"{kernel} attention is approximate")
    assert sum(f"note: {kernel} attention is approximate" in line for line in reports) == 1
    approximate, exact = logits_in_torch(checkpoint, rows["onnx"].path, kernel)
    assert (approximate - exact).abs().max() > 1e-2
    for target in ("litert", "executorch", "onnx"):
        with load(rows[target].path) as pipeline:
            assert isinstance(pipeline, ProgramPipeline)
            prepared = pipeline.prepare(LONG)
            (output,) = pipeline.engine.run(prepared.program, prepared.inputs).values()
        np.testing.assert_allclose(output, approximate.numpy(), atol=1e-4, err_msg=target)


def test_only_texts_have_it(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the attention kernel linear is for long texts, found the task image-class"):
        convert(ConvertOptions("cifar10-tinyvit", tmp_path, ("onnx",), attention="linear"))
    with pytest.raises(InputError, match="expected one of dense, fused, chunked, split_heads, sliding_window, linear"):
        ConvertOptions(str(checkpoint), tmp_path, attention="windowed")


def test_an_exact_bundle_says_nothing_of_it(checkpoint: Path, tmp_path: Path) -> None:
    (row,) = convert(ConvertOptions(str(checkpoint), tmp_path, ("onnx",), seq_lens=(16,)))
    assert isinstance(row, Converted)
    assert "approximation" not in json.loads((row.path / "report.json").read_text())
