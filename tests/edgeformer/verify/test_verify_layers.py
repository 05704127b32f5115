"""`verify --layers` names the layer whose weight is corrupted, in every format, and no layer of a valid bundle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from edgeformer import cli
from edgeformer.attention import KERNELS
from edgeformer.convert.convert import ConvertOptions, convert
from edgeformer.convert.target import verification_engine
from edgeformer.models.tinyvit import FAMILY as TINYVIT
from edgeformer.verify.layers import HIDDEN, add_layers
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.cli.console import run_app
from edgeformer_runtime.engines import open_engine
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.verify.verify import LayerStage, Verification, verify
from tests.checkpoint_factory import save_mobilebert, save_whisper
from tests.edgeformer.corrupted_weights import corrupted_copy

pytestmark = pytest.mark.slow

TARGETS = ("litert", "onnx", "coreml")
PRECISIONS = ("fp32", "dynamic-int8")
BUNDLES = pytest.mark.parametrize(("target", "precision"), [(t, p) for t in TARGETS for p in PRECISIONS])
TEXT_LAYERS = (
    "layer mobilebert.embeddings",
    "layer mobilebert.encoder.layer.0",
    "layer mobilebert.encoder.layer.1",
    "layer mobilebert.pooler",
)
IMAGE_LAYERS = (
    "layer patch_embed",
    "layer stages.0.blocks.0",
    "layer stages.1.downsample",
    "layer stages.1.blocks.0",
    "layer stages.1.blocks.1",
)
COLOURS = ("red", "green", "blue")

Made = dict[tuple[str, str], Path]


def unlike(folder: Path) -> Path:
    """Vectors that untrained models leave at 0 and 1 become numbers that occur only once."""
    path = folder / "model.safetensors"
    generator = np.random.default_rng(0)
    weights = load_file(path)
    for name, tensor in weights.items():
        if tensor.ndim == 1 and tensor.dtype == np.float32 and not name.endswith("running_var"):
            weights[name] = tensor + generator.normal(0, 0.1, tensor.shape).astype(np.float32)
    save_file(weights, path, metadata={"format": "pt"})
    return folder


def made(source: Path, out: Path, **options: object) -> Made:
    asked = ConvertOptions(str(source), out, **{"targets": TARGETS, "precisions": PRECISIONS, **options})  # type: ignore[arg-type]
    rows = convert(asked)
    assert all(row.ok for row in rows), [row.problems for row in rows]
    return {(row.target, row.precision): row.path for row in rows}


@pytest.fixture(scope="module")
def text_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text") / "tiny"
    return unlike(
        save_mobilebert(folder, num_hidden_layers=2, normalization_type="layer_norm", classifier_activation=True)
    )


@pytest.fixture(scope="module")
def texts(text_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made(text_source, tmp_path_factory.mktemp("dist"), seq_lens=(16,))


@pytest.fixture(scope="module")
def image_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random TinyViT for images of 32 pixels."""
    folder = tmp_path_factory.mktemp("image") / "vit"
    folder.mkdir()
    sizes = {"embed_dims": [16, 32], "depths": [1, 2], "num_heads": [1, 2], "window_sizes": [2, 2]}
    config = {
        "architecture": "tiny_vit_5m_224",
        "label_names": list(COLOURS),
        "model_args": sizes,
        "pretrained_cfg": {"input_size": [3, 32, 32]},
    }
    torch.manual_seed(0)
    module = TINYVIT.build(TINYVIT.parse_config(config), TINYVIT.tasks[0], len(COLOURS), KERNELS["dense"])
    (folder / "config.json").write_text(json.dumps(config | {"num_classes": len(COLOURS)}))
    save_file({name: value.numpy() for name, value in module.state_dict().items()}, folder / "model.safetensors")
    return unlike(folder)


@pytest.fixture(scope="module")
def images(image_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made(image_source, tmp_path_factory.mktemp("dist"))


def inspected(path: Path, source: Path) -> tuple[Verification, Verification]:
    """A verification without layers, and with them."""
    with Bundle.open(path) as bundle:
        engine = verification_engine(bundle) or open_engine(bundle)
        plain = verify(bundle, engine)
        engine.close()
        return plain, add_layers(bundle, plain, str(source))


def layers(verification: Verification) -> tuple[str, ...]:
    return tuple(stage.name for stage in verification.stages if isinstance(stage, LayerStage))


@BUNDLES
def test_audio_texts(texts: Made, text_source: Path, target: str, precision: str) -> None:
    plain, found = inspected(texts[target, precision], text_source)
    assert plain.ok and found.ok and found.first_diverging is None
    assert layers(found) == TEXT_LAYERS
    assert [stage.name for stage in found.stages if stage.name not in TEXT_LAYERS] == [s.name for s in plain.stages]
    limit = 1e-5 if precision == "fp32" else 0.1
    assert all(stage.distance < limit for stage in found.stages if isinstance(stage, LayerStage))
    document = found.to_json()
    assert set(document["stages"][1]) == {"name", "max_abs", "cosine", "tolerance", "ok", "distance"}
    assert "distance" not in document["stages"][0]


@BUNDLES
def test_audio_images(images: Made, image_source: Path, target: str, precision: str) -> None:
    plain, found = inspected(images[target, precision], image_source)
    assert plain.ok and found.ok
    assert layers(found) == IMAGE_LAYERS


@BUNDLES
@pytest.mark.parametrize("layer", [0, 1])
def test_a_corrupted_layer_of_text(
    texts: Made, text_source: Path, target: str, precision: str, layer: int, tmp_path: Path
) -> None:
    name = f"mobilebert.encoder.layer.{layer}"
    path = corrupted_copy(
        texts[target, precision], text_source, f"{name}.attention.output.dense.bias", tmp_path / "copy"
    )
    plain, found = inspected(path, text_source)
    assert plain.first_diverging == "seq_16"
    assert found.first_diverging == f"layer {name}"


@BUNDLES
@pytest.mark.parametrize("layer", ["stages.1.blocks.0", "stages.1.blocks.1"])
def test_a_corrupted_layer_of_images(
    images: Made, image_source: Path, target: str, precision: str, layer: str, tmp_path: Path
) -> None:
    path = corrupted_copy(images[target, precision], image_source, f"{layer}.attn.proj.bias", tmp_path / "copy")
    plain, found = inspected(path, image_source)
    assert plain.first_diverging == "image"
    assert found.first_diverging == f"layer {layer}"


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("matrix", ["attention.self.value", "ffn.0.intermediate.dense"])
def test_one_number_of_a_matrix(texts: Made, text_source: Path, target: str, matrix: str, tmp_path: Path) -> None:
    """At fp32, where a matrix stands in the file as it is in the checkpoint."""
    name = f"mobilebert.encoder.layer.1.{matrix}.weight"
    _, found = inspected(corrupted_copy(texts[target, "fp32"], text_source, name, tmp_path / "copy"), text_source)
    assert found.first_diverging == "layer mobilebert.encoder.layer.1"


def test_speech(tmp_path: Path) -> None:
    """The encoder's layers and, from the prompt, the decoder's."""
    source = save_whisper(tmp_path / "whisper")
    paths = made(source, tmp_path / "dist", targets=("onnx",), precisions=("fp32",), window="full", audio_seconds=(30,))
    _, found = inspected(paths["onnx", "fp32"], source)
    assert found.ok
    names = ["encoder.conv1", "encoder.conv2", "encoder.layers.0", "encoder.layers.1", "encoder.layer_norm"]
    assert layers(found) == tuple(f"layer {name}" for name in (*names, "decoder.layers.0", "decoder.layers.1"))
    corrupted = corrupted_copy(paths["onnx", "fp32"], source, "encoder.layers.1.fc1.bias", tmp_path / "copy")
    assert inspected(corrupted, source)[1].first_diverging == "layer encoder.layers.1"


def test_a_delegate_that_hides_its_values(text_source: Path, tmp_path: Path) -> None:
    paths = made(text_source, tmp_path, targets=("executorch",), precisions=("fp32",), seq_lens=(16,))
    plain, found = inspected(paths["executorch", "fp32"], text_source)
    assert found.stages == plain.stages
    assert found.note == HIDDEN


def test_checkpoints(texts: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with Bundle.open(texts["onnx", "fp32"]) as bundle:
        plain = Verification(True, "", (), None)
        with pytest.raises(InputError, match="was not found on this machine: give its path with --source"):
            add_layers(bundle, plain)
        other = save_mobilebert(tmp_path / "other", initializer_range=0.2)
        with pytest.raises(InputError, match="does not hold the weights"):
            add_layers(bundle, plain, str(other))


def test_command(texts: Made, text_source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            run_app(cli.app, ["verify", *map(str, arguments)])
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    good = texts["onnx", "fp32"]
    corrupted = corrupted_copy(good, text_source, "mobilebert.encoder.layer.1.output.dense.bias", tmp_path / "copy")
    code, out, _ = call(good, "--layers", "--source", text_source)
    assert (code, "layer mobilebert.encoder.layer.1" in out) == (0, True)
    code, out, err = call(corrupted, "--layers", "--source", text_source, "--json")
    assert (code, json.loads(out)["first_diverging"]) == (1, "layer mobilebert.encoder.layer.1")
    assert err == f"{corrupted}: diverges from the reference, first at the stage layer mobilebert.encoder.layer.1\n"
    code, _, err = call(good, "--source", text_source)
    assert (code, err.count("\n")) == (2, 1)
    assert "--source is for --layers" in err
