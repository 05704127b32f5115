"""Fake quantization, probes of every family, and the ranking of layers."""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

from edgeformer.cli import app
from edgeformer.compress.budget import sensitivity
from edgeformer.compress.budget.sensitivity import Probe, Sensitivity, make_probe, measure_sensitivity, sensitivity_of
from edgeformer.compress.corpus import read_data
from edgeformer.compress.model import Model, open_model
from edgeformer.compress.quantize_aware import fake_quantized, quantized_activations
from edgeformer.compress.speech import SpeechProbe
from edgeformer.convert.layer_plan import LayerPlan, quantizable_layers, quantized
from edgeformer_runtime.errors import InputError
from tests.checkpoint_factory import save_whisper
from tests.edgeformer.compress import tiny
from tests.edgeformer.convert.collapsing import save_collapsing


def opened(source: Path, data: Path) -> tuple[Model, Probe]:
    model = open_model(str(source))
    return model, make_probe(model, read_data(str(data), model.checkpoint)[0])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of every kind, and a trained text classifier."""
    folder = tmp_path_factory.mktemp("sensitivity")
    tiny.save_texts(folder / "texts.json")
    tiny.save_images(folder / "images")
    tiny.save_clips(folder / "clips")
    tiny.run(tiny.save_classifier(folder / "untrained"), tiny.FINETUNE, folder / "texts.json", folder / "trained")
    return folder


class Two(nn.Module):
    """A product of tokens and one of examples."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 5), nn.Conv2d(5, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.first(x)
        return self.second(hidden.permute(0, 3, 1, 2))


def by_hand(x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """256 levels from min to max, one of them zero."""
    low, high = min(x.min(), 0), max(x.max(), 0)
    scale = (high - low) / 255
    zero = round(-low / scale)
    return ((np.clip(np.round(x / scale) + zero, 0, 255) - zero) * scale).astype(np.float32)


@pytest.mark.parametrize("rows", [True, False])
def test_activations_are_rounded_as_numpy_says_by_hand(rows: bool) -> None:
    x = torch.randn(3, 4, 7, generator=torch.Generator().manual_seed(0)) + 0.3
    found = quantized_activations(x, rows).numpy()
    parts = x.numpy().reshape(12, 7) if rows else x.numpy().reshape(3, 28)
    expected = np.stack([by_hand(part) for part in parts]).reshape(3, 4, 7)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert torch.equal(quantized_activations(torch.zeros(2, 3), rows), torch.zeros(2, 3))


def test_a_module_computes_as_its_plan_says_and_is_whole_again() -> None:
    torch.manual_seed(0)
    module, x = Two().eval(), torch.randn(2, 3, 3, 6)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with torch.no_grad(), fake_quantized(module, LayerPlan({"first": "int4", "second": "int8"}), "litert"):
        found = module(x)
    hidden = F.linear(
        quantized_activations(x, rows=True), quantized(before["first.weight"], "int4"), before["first.bias"]
    )
    hidden = quantized_activations(hidden.permute(0, 3, 1, 2), rows=False)
    expected = F.conv2d(hidden, quantized(before["second.weight"], "int8"), before["second.bias"])
    torch.testing.assert_close(found, expected)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert not any(layer._forward_pre_hooks for layer in module.modules())
    with torch.no_grad(), fake_quantized(module, LayerPlan(default="int8"), "coreml"):
        torch.testing.assert_close(
            module.first(x), F.linear(x, quantized(before["first.weight"], "int8"), before["first.bias"])
        )


def test_text_layers_are_ranked(place: Path) -> None:
    model, probe = opened(place / "trained", place / "texts.json")
    assert probe.reference.value == 1.0 and probe.reference.agreement == 1.0 and probe.reference.divergence == 0.0
    found = measure_sensitivity(model, probe, "litert", ("int8", "int4"))
    linear = [name for name, layer in quantizable_layers(model.module).items() if isinstance(layer, nn.Linear)]
    tables = len(quantizable_layers(model.module)) - len(linear)
    assert len(found.costs) == 2 * len(linear) + tables
    assert {cost.format for cost in found.costs if cost.layer not in linear} == {"int8"}
    divergences = [cost.reading.divergence for cost in found.costs]
    assert divergences == sorted(divergences, reverse=True) and divergences[0] > 0
    coarse, fine = (sum(c.reading.divergence for c in found.costs if c.format == each) for each in ("int4", "int8"))
    assert coarse > 10 * fine
    assert probe.measure() == probe.reference
    assert measure_sensitivity(model, probe, "litert", ("int8", "int4")) == found


def test_the_divergence_is_the_one_of_the_distributions(place: Path) -> None:
    model, probe = opened(place / "trained", place / "texts.json")
    name = "classifier"
    with fake_quantized(model.module, LayerPlan({name: "int4"}, "fp32"), "litert"):
        reading = probe.measure(name)
        changed = torch.cat(probe.logits(None))
    exact = torch.cat(probe.logits(None))
    expected = F.kl_div(changed.log_softmax(-1), exact.log_softmax(-1), log_target=True, reduction="batchmean")
    assert reading.divergence == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.slow
def test_readers_of_outlier_channels_are_the_costliest(assets: Path, tmp_path: Path) -> None:
    plan = save_collapsing("clinc150-mobilebert", tmp_path / "collapsing")
    model = open_model(str(tmp_path / "collapsing"))
    texts = read_data(f"{assets / 'text' / 'clinc150' / 'data_small.json'}:test", model.checkpoint)[0]
    probe = make_probe(model, texts.limited(24))
    assert probe.reference.value > 0.8
    with fake_quantized(model.module, LayerPlan(default="int8"), "litert"):
        assert probe.measure().value < 0.5
    found = measure_sensitivity(model, probe, "litert", ("int8",))
    assert {cost.layer for cost in found.costs[:3]} <= plan.layers.keys()
    worst = [cost.reading.divergence for cost in found.costs if cost.layer in plan.layers]
    others = [cost.reading.divergence for cost in found.costs if cost.layer not in plan.layers]
    assert sum(worst) > 10 * sum(others)


def test_image_layers_are_ranked(place: Path, tmp_path: Path) -> None:
    model, probe = opened(tiny.save_tinyvit(tmp_path / "model"), place / "images")
    found = measure_sensitivity(model, probe, "onnx", ("int8",))
    assert len(found.costs) == len(quantizable_layers(model.module)) and found.examples == 18
    assert any(isinstance(model.module.get_submodule(cost.layer), nn.Conv2d) for cost in found.costs)
    assert max(cost.reading.divergence for cost in found.costs) > 0
    assert probe.measure() == probe.reference


@pytest.mark.slow
def test_speech_layers_are_ranked_by_words(place: Path, tmp_path: Path) -> None:
    model, probe = opened(save_whisper(tmp_path / "model"), place / "clips")
    assert isinstance(probe, SpeechProbe) and probe.metric.name == "wer" and probe.reference.value > 0
    layers = ("encoder.layers.0.fc1", "decoder.layers.1.encoder_attn.v_proj", "decoder.embed_tokens")
    for layer in layers:
        with fake_quantized(model.module, LayerPlan({layer: "int4"}, "fp32"), "litert"):
            # What is spared where the layer is known changes nothing.
            quick = probe.measure(layer)
            assert astuple(quick) == pytest.approx(astuple(probe.measure()), rel=1e-4)
            assert quick.divergence > 0
    assert probe.measure() == probe.reference


def test_results_are_kept_for_the_same_question(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ask = (str(place / "trained"), str(place / "texts.json"), "litert", ("int8",))
    first = sensitivity_of(*ask, examples=6)
    assert first.examples == 6
    (kept,) = (tmp_path / "edgeformer" / "sensitivity").iterdir()

    def never(*_: object) -> Sensitivity:
        raise AssertionError("it was measured again")

    with monkeypatch.context() as patch:
        patch.setattr(sensitivity, "measure_sensitivity", never)
        assert sensitivity_of(*ask, examples=6) == first
        with pytest.raises(AssertionError):
            sensitivity_of(*ask, examples=5)
    kept.write_text("{}")
    assert sensitivity_of(*ask, examples=6) == first


def test_the_command_prints_a_table_and_json(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arguments = ["sensitivity", str(place / "trained"), "--data", str(place / "texts.json"), "--formats", "int8"]
    printed = CliRunner().invoke(app, [*arguments, "--json"])
    found = Sensitivity.from_json(json.loads(printed.stdout), "stdout")
    assert found.metric == "accuracy" and found.target == "litert"
    table = CliRunner().invoke(app, arguments, env={"COLUMNS": "160"})
    assert table.exit_code == 0 and found.costs[0].layer in table.stdout


@pytest.mark.parametrize(
    ("target", "formats", "message"),
    [
        ("litert", ("int3",), r"unknown format of layers 'int3': did you mean int8\? expected one of fp16, int8, int4"),
        ("litert", ("fp32",), "unknown format of layers 'fp32'"),
        ("tflite", ("int8",), r"unknown target 'tflite': did you mean litert\?"),
    ],
)
def test_unknown_formats_and_targets(place: Path, target: str, formats: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sensitivity_of(str(place / "trained"), str(place / "texts.json"), target, formats, 4)
