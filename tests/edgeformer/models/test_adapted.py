"""Architectures without a family of their own answer as transformers does, or are refused in one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import ByteLevelBPETokenizer, Tokenizer

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import Checkpoint, load_module, open_checkpoint
from edgeformer.checkpoints.tokenizers import mask_token, read_tokenizer
from edgeformer.convert.convert import convert
from edgeformer.convert.options import ConvertOptions
from edgeformer.evaluate.classification import evaluate_neighbours
from edgeformer.evaluate.evaluate import Asker
from edgeformer.models.adapted_images import read_image_processor
from edgeformer.models.family import FAMILIES, ProgramOptions, family_for
from edgeformer_runtime import load
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.signature import SignatureState
from edgeformer_runtime.bundle.strict_json import loads
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.image import ImageEncoder
from tests.checkpoint_factory import WORDS
from tests.golden import tiny_manifests as tiny
from tools.architectures import ARCHITECTURES, IMAGE, ONE_TYPE
from tools.families import distance, save

TEXTS = (
    "turn the lights off \U0001f600\U0001f44d\U0001f3fd",
    "cafe\u0301 na\u00efve \u2014 what is the weather like",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u4f60\u597d",
    "",
)
"""Emoji, combining marks, right-to-left script, Chinese, nothing."""

# One of each way to make masks, positions and attention; tools/architectures.py has all.
SHOWN = (
    "xlm-roberta-xl",
    "data2vec-text",
    "modernbert",
    "deberta-v2",
    "mpnet",
    "t5",
    "gpt2",
    "nomic_bert",
    "swin",
    "clip",
    "audio-spectrogram-transformer",
    "wav2vec2",
    "wavlm",
)


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_module(open_checkpoint(folder), KERNELS["dense"])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def apart(public: Any, checkpoint: Checkpoint, module: torch.nn.Module) -> float:
    """The largest difference to transformers' own output, relative to its largest value."""
    (program,) = checkpoint.programs(module, ProgramOptions(seq_lens=(16,), clip_seconds=(0.25,)))

    def run(inputs: Mapping[str, Any]) -> Any:
        with torch.no_grad():
            return module(*(torch.as_tensor(inputs[spec.name]) for spec in program.inputs))[0].numpy()

    return distance(public, program, checkpoint.task, run)


@pytest.mark.parametrize("name", SHOWN)
def test_outputs_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    public = save(name, tmp_path / name)
    checkpoint = open_checkpoint(tmp_path / name)
    module, keys = load_module(checkpoint, KERNELS["split_heads" if name == "xlm-roberta-xl" else "dense"])
    assert apart(public, checkpoint, module) <= 1e-5
    assert checkpoint.family.name == f"adapted-{checkpoint.raw['model_type']}"
    assert sum(note.startswith("adapted: ") for note in keys.notes) == 1


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("convbert", "answers otherwise with padding behind a text"),
        ("bart", "has a decoder, and only encoders are adapted"),
        ("sew", "a SEWForSequenceClassification of transformers cannot be adapted: RuntimeError 'The size of tensor"),
    ],
)
def test_what_cannot_be_adapted_is_refused_in_one_line(name: str, why: str, tmp_path: Path) -> None:
    save(name, tmp_path / name)
    assert why in refusal(tmp_path / name)


def test_padding_is_tried_at_each_length(tmp_path: Path) -> None:
    save("reformer", tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    module, _ = load_module(checkpoint, KERNELS["dense"])  # twelve tokens are one chunk, which it attends to as a whole
    with pytest.raises(
        InputError, match="a ReformerForQuestionAnswering of transformers answers otherwise with padding"
    ):
        checkpoint.programs(module, ProgramOptions(seq_lens=(80,)))


def test_a_config_beyond_its_weights_is_refused_before_it_is_built(tmp_path: Path) -> None:
    save("xlm-roberta-xl", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, why in (({"hidden_size": 1 << 20}, "states a model of"), ({"num_hidden_layers": 10**9}, "at most")):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        assert why in refusal(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "mine.Model"}}))
    assert "that code is not run here" in refusal(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_act": "no such"}))
    assert "transformers cannot build a xlm-roberta-xl: KeyError" in refusal(tmp_path)
    save("albert", tmp_path / "albert")
    config = json.loads((tmp_path / "albert/config.json").read_text())
    (tmp_path / "albert/config.json").write_text(json.dumps({**config, "inner_group_num": 10**9}))
    assert "a model of over 2000 tensors" in refusal(tmp_path / "albert")


def test_what_computes_long_texts_otherwise_is_refused_at_such_lengths(tmp_path: Path) -> None:
    save("big_bird", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    sparse = {"attention_type": "block_sparse", "block_size": 2, "num_random_blocks": 1}  # from 15 tokens on
    (tmp_path / "config.json").write_text(json.dumps({**config, **sparse}))
    checkpoint = open_checkpoint(tmp_path)
    module, _ = load_module(checkpoint, KERNELS["dense"])
    assert checkpoint.programs(module, ProgramOptions(seq_lens=(14,)))
    with pytest.raises(InputError, match="answers otherwise on texts of 32 tokens, so choose a smaller length: 0"):
        checkpoint.programs(module, ProgramOptions(seq_lens=(14, 32)))


def test_a_mask_hides_padding_from_large_scores(tmp_path: Path) -> None:
    public = save("gpt2", tmp_path)
    with torch.no_grad():
        for layer in public.transformer.h:
            layer.attn.c_attn.weight *= 40
    public.save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    module, keys = load_module(checkpoint, KERNELS["dense"])
    assert keys.scores.spread > 1000 and keys.scores.mask < -2 * keys.scores.spread
    assert apart(public, checkpoint, module) <= 1e-4


def test_families_of_our_own_come_first_and_unknown_ones_are_named() -> None:
    assert family_for({"model_type": "bert"}) is FAMILIES["bert"]
    with pytest.raises(InputError, match="unknown model_type 'no-such'"):
        family_for({"model_type": "no-such"})


def byte_level(folder: Path) -> None:
    """A RoBERTa tokenizer of vocab.json and merges.txt, as transformers saves it."""
    made = ByteLevelBPETokenizer()
    made.train_from_iterator(
        [WORDS], vocab_size=330, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"], show_progress=False
    )
    folder.mkdir()
    made.save_model(str(folder))
    transformers.RobertaTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)


@pytest.mark.parametrize("files", ["tokenizer.json", "vocab.json"])
def test_byte_level_ids_are_those_of_transformers(files: str, tmp_path: Path) -> None:
    byte_level(tmp_path / "model")
    if files == "vocab.json":
        (tmp_path / "model" / "tokenizer.json").unlink(missing_ok=True)
    public = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    text = read_tokenizer(tmp_path / "model", token_types=1)
    assert text is not None
    assert mask_token(tmp_path / "model", text) == (public.mask_token, public.mask_token_id) == ("<mask>", 4)
    ours = transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(text))
    for sentence in TEXTS:
        assert ours(sentence)["input_ids"] == public(sentence)["input_ids"]
        assert ours(sentence, "off")["input_ids"] == public(sentence, "off")["input_ids"]


def test_fields_that_transformers_own_tokenizer_reads_are_not_called_unknown(tmp_path: Path) -> None:
    save("albert", tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    pieces = [(piece, -float(rank)) for rank, piece in enumerate(("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]", "e"))]
    transformers.AlbertTokenizer(vocab=pieces, keep_accents=False).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    checkpoint = open_checkpoint(tmp_path)
    assert "keep_accents" in config and not any("tokenizer_config" in note for note in checkpoint.notes)
    assert Tokenizer.from_str(checkpoint.tokenizer_json or "").encode("\u00e9").tokens[1:-1] == ["\u2581", "e"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "BertTokenizer"}))
    with pytest.raises(InputError, match=r"says BertTokenizer, and tokenizer\.json holds a Unigram model"):
        open_checkpoint(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("prefix", "family"), [("Data2VecText", "adapted-data2vec-text"), ("Roberta", "bert")])
def test_a_bundle_answers_as_transformers_pipeline(prefix: str, family: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    byte_level(folder)
    torch.manual_seed(0)
    settings = {**ONE_TYPE, "vocab_size": 330, "pad_token_id": 1, "initializer_range": 0.3}
    config = getattr(transformers, f"{prefix}Config")(**settings)
    getattr(transformers, f"{prefix}ForSequenceClassification")(config).eval().save_pretrained(folder)
    (made,) = convert(ConvertOptions(str(folder), tmp_path / "out", ("onnx",), seq_lens=(32,))).bundles
    assert made.ok, made.problems
    manifest = loads((made.path / "manifest.json").read_bytes(), "manifest.json", 1 << 20)
    report = json.loads((made.path / "report.json").read_text())
    assert manifest["family"] == family
    if family != "bert":
        assert manifest["toolchain"]["transformers"] == transformers.__version__
        assert report["adapted"] == f"{prefix}ForSequenceClassification of transformers {transformers.__version__}"
    public = transformers.pipeline("text-classification", str(folder), top_k=None, truncation=True, max_length=32)
    pipeline = load(made.path)
    for text, answer in zip(TEXTS, public(list(TEXTS)), strict=True):
        expected = {each["label"]: each["score"] for each in answer}
        answer = pipeline(text)
        found = dict(zip(answer.labels, answer.scores, strict=True))
        assert found == pytest.approx(expected, abs=1e-4)


PROCESSOR = {
    "image_processor_type": "DeiTImageProcessor",
    "do_resize": True,
    "size": {"height": 256, "width": 256},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def test_image_processors_are_read_to_our_specification(tmp_path: Path) -> None:
    def read(**changes: object) -> tuple[object, ...]:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, **changes}))
        found, takes_bgr = read_image_processor(tmp_path)
        assert takes_bgr == bool(changes.get("do_flip_channel_order"))
        return found.height, found.width, found.resize_short_side, found.crop, found.interpolation

    assert read() == (224, 224, 256, "squash", "bicubic")
    assert read(size={"shortest_edge": 256}, resample=2) == (224, 224, 256, "center-floor", "bilinear")
    assert read(image_processor_type="ViTImageProcessor", do_center_crop=None) == (256, 256, 256, "squash", "bicubic")
    clip = {"image_processor_type": None, "feature_extractor_type": "CLIPFeatureExtractor", "size": 256}
    assert read(**clip) == (224, 224, 256, "center-floor", "bicubic")
    convnext = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}, "crop_pct": 0.875}
    assert read(**convnext) == (224, 224, 256, "center-floor", "bicubic")
    assert read(**{**convnext, "size": {"shortest_edge": 384}, "do_center_crop": False}) == (
        384,
        384,
        384,
        "squash",
        "bicubic",
    )
    levit = {"image_processor_type": "LevitImageProcessor", "size": {"shortest_edge": 224}}
    assert read(**levit) == (224, 224, 256, "center-floor", "bicubic")
    mobilevit = {"image_processor_type": "MobileViTImageProcessor", "do_flip_channel_order": True, "do_normalize": None}
    assert read(**mobilevit, size={"shortest_edge": 257}) == (224, 224, 257, "center-floor", "bicubic")
    for changes, field in (
        ({"image_processor_type": "ImageGPTImageProcessor", "do_center_crop": False}, "do_color_quantize"),
        ({"image_processor_type": "EfficientNetImageProcessor", "include_top": True}, "include_top"),
        ({"resample": 0}, "resample"),
        ({"rescale_factor": None}, "rescale_factor"),
        ({"rescale_factor": "x"}, "rescale_factor"),
        ({"resample": [3]}, "resample"),
        ({"image_mean": [10**400] * 3}, "image_mean"),
        ({"image_std": [float("nan")] * 3}, "image_std"),
        ({"do_resize": False}, "do_resize"),
        ({"rescale_factor": 0}, "rescale_factor"),
        ({"size": {"height": 224, "width": 256}}, "size"),
        ({"size": {"height": 1 << 20, "width": 1 << 20}}, "size"),
        ({**convnext, "crop_pct": 1e-9}, "crop_pct"),
        ({"size": {"shortest_edge": 224}, "do_center_crop": False}, "do_center_crop"),
        ({"crop_size": {"height": 300, "width": 300}}, "crop_size"),
        ({"image_mean": [0.5]}, "image_mean"),
        ({"image_std": [0, 1, 1]}, "image_std"),
    ):
        with pytest.raises(InputError, match=f"^preprocessor_config.json: {field} is "):
            read(**changes)
    with pytest.raises(InputError, match=r"^preprocessor_config.json cannot be read as an image processor: "):
        read(image_processor_type="NoSuchImageProcessor")


@pytest.mark.slow
def test_an_image_bundle_answers_as_transformers_pipeline(tmp_path: Path) -> None:
    folder = tmp_path / "mobilevit"
    save("mobilevit", folder)
    # Blue first; and a crop that begins between two pixels, which torchvision rounds up here.
    processor = {"image_processor_type": "MobileViTImageProcessor", "do_flip_channel_order": True, "resample": 2}
    processor |= {"size": {"shortest_edge": 67}, "crop_size": {"height": 64, "width": 64}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    (made,) = convert(ConvertOptions(str(folder), tmp_path / "out", ("onnx",), ("fp32",))).bundles
    assert made.ok, made.problems
    public, pipeline = transformers.pipeline("image-classification", str(folder), top_k=None), load(made.path)
    for size in ((300, 401), (97, 64)):
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
        answer = pipeline(image)
        expected = {each["label"]: each["score"] for each in public(image)}
        assert dict(zip(answer.labels, answer.scores, strict=True)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "processor",
    [
        PROCESSOR,
        # A number is a square to one class and a short side to another, which also crops unasked.
        {"image_processor_type": "CLIPImageProcessor", "size": 256},
        {"feature_extractor_type": "CLIPFeatureExtractor", "size": 256, "do_center_crop": True, "crop_size": 208},
        {"image_processor_type": "ViTImageProcessor", "size": 96},
        {"image_processor_type": "MobileNetV1ImageProcessor"},
    ],
    ids=lambda processor: str(processor.get("image_processor_type", "old name")),
)
def test_pixels_are_those_of_transformers_processor(processor: dict[str, object], tmp_path: Path) -> None:

    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (320, 480, 3), dtype=np.uint8))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, use_fast=False, backend="pil")
    expected = processor(image, return_tensors="np")["pixel_values"]
    found = ImageEncoder(read_image_processor(tmp_path)[0])(image)
    assert np.abs(found - expected).max() <= 1e-5


@pytest.mark.parametrize("name", ["vit", "swin", "resnet"])
def test_a_model_without_a_head_embeds_images_as_transformers_pools(name: str, tmp_path: Path) -> None:
    save(name, tmp_path)
    start, _, fields = ARCHITECTURES[name]
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
    torch.manual_seed(1)
    public = getattr(transformers, f"{start}Model")(getattr(transformers, f"{start}Config")(**fields)).eval()
    public.save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    module, _ = load_module(checkpoint, KERNELS["dense"])
    (program,) = checkpoint.programs(module, ProgramOptions())
    pixels = torch.randn(1, 3, IMAGE, IMAGE)
    with torch.no_grad():
        expected = public(pixel_values=pixels).pooler_output.flatten(1)
        (found,) = program.module(pixels)
    assert checkpoint.task == "image-embedding" and program.outputs[0].shape == tuple(expected.shape)
    assert torch.allclose(found, expected, atol=1e-5)


def test_under_a_head_an_embedding_is_the_first_token(tmp_path: Path) -> None:
    public = save("vit", tmp_path)
    assert open_checkpoint(tmp_path).task == "image-classification"
    module, _ = load_module(open_checkpoint(tmp_path, task="image-embedding"), KERNELS["dense"])
    pixels = torch.randn(1, 3, IMAGE, IMAGE)
    with torch.no_grad():
        assert torch.allclose(module(pixels)[0], public.vit(pixels).last_hidden_state[:, 0], atol=1e-5)


class MeanColour:
    """An embedder of images: the mean of each channel, and zeros."""

    name = executed_by = "numpy"
    not_covered = None

    def run(self, _: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        means = inputs["pixels"].mean((2, 3))
        return {"embedding": np.pad(means, ((0, 0), (0, tiny.EMBEDDING_DIM - 3)))}

    def close(self) -> None:
        pass


def test_neighbours_are_counted_by_the_cosine(tmp_path: Path) -> None:
    colours = {"red": ((200, 0, 0), (250, 10, 0)), "blue": ((0, 0, 200), (0, 9, 99), (240, 0, 30))}
    for label, own in colours.items():
        (tmp_path / label).mkdir()
        for number, colour in enumerate(own):
            Image.new("RGB", (30, 30), colour).save(tmp_path / label / f"{number}.png")
    spec = replace(tiny.IMAGE_SPEC, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    manifest = replace(tiny.image_embedding(), preprocessing=spec)
    bundle = Bundle(tmp_path, manifest, SignatureState(False, None))
    found = evaluate_neighbours(Asker(bundle, engine=MeanColour(), alone=True), str(tmp_path), None)
    assert found.to_json() | {"value": 0.8, "n": 5, "metric": "neighbours"} == found.to_json()
    assert found.answers.given == ("blue", "blue", "red", "red", "red")


def test_nothing_is_pruned_of_them(tmp_path: Path) -> None:
    save("xlm-roberta-xl", tmp_path / "roberta")
    family = open_checkpoint(tmp_path / "roberta").family
    with pytest.raises(InputError, match="nothing is pruned"):
        family.with_layers({}, None, {})
    assert set(SHOWN) <= set(ARCHITECTURES) and len(ARCHITECTURES) >= 25
