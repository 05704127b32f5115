"""timm's config.json: variants, overrides, labels, and one line for what cannot be honoured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeformer.models.tinyvit_config import VARIANTS, parse_config, parse_labels
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.tasks.vision import ImagePreprocessing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_timms_own_configs(assets: Path) -> None:
    listed = json.loads((assets / "golden/tiny_vit.default_cfg.json").read_text())
    for architecture, tags in listed.items():
        for pretrained_cfg in tags.values():
            config = parse_config({"architecture": architecture, "pretrained_cfg": pretrained_cfg})
            assert config == parse_config({"architecture": architecture})
            # floor(224 / 0.95) = 235
            assert config.preprocessing == ImagePreprocessing(224, 224, 235, "bicubic", "center", MEAN, STD)


@pytest.mark.parametrize(
    ("architecture", "size", "resize", "crop"),
    [("tiny_vit_21m_384", 384, 384, "center"), ("tiny_vit_21m_512", 512, 512, "squash")],
)
def test_large_variants(architecture: str, size: int, resize: int, crop: str) -> None:
    spec = parse_config({"architecture": architecture}).preprocessing
    assert (spec.height, spec.width, spec.resize_short_side, spec.crop) == (size, size, resize, crop)


def test_no_window_of_a_public_variant_needs_padding() -> None:
    for variant in VARIANTS.values():
        for stage in (1, 2, 3):
            assert variant.image_size // 2 ** (stage + 2) % variant.window_sizes[stage] == 0


def test_overrides() -> None:
    config = parse_config(
        {
            "architecture": "tiny_vit_5m_224",
            "num_classes": 7,
            "model_args": {"depths": [1, 1], "embed_dims": [8, 12], "num_heads": [1, 3], "window_sizes": [4, 4],
                           "drop_path_rate": 0.1, "local_conv_size": 5},
            "pretrained_cfg": {"input_size": [3, 64, 64], "crop_pct": 0.875, "interpolation": "bilinear",
                               "mean": [0.5, 0.5, 0.5], "std": [1, 1, 1]},
        }
    )  # fmt: skip
    assert (config.depths, config.embed_dims, config.num_heads, config.local_conv_size) == ((1, 1), (8, 12), (1, 3), 5)
    assert config.image_size == (64, 64)
    assert config.preprocessing.resize_short_side == 73
    assert config.preprocessing.std == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "resnet50"}, "architecture must be one of tiny_vit_5m_224"),
        ({"architecture": None}, "architecture must be one of"),
        ({"model_args": {"window_size": 7}}, "unknown model_args 'window_size': expected any of depths"),
        ({"model_args": {"depths": [2, 2]}}, "one entry per stage"),
        ({"model_args": {"depths": 3}}, "depths must be a list of integers"),
        ({"model_args": {"depths": [2, 2, 0, 2]}}, "depths must be an integer of at least 1"),
        ({"model_args": {"num_heads": [2, 4, 7, 10]}}, "multiple of"),
        ({"model_args": {"embed_dims": [63, 128, 160, 320]}}, "must be even, found 63"),
        ({"model_args": {"local_conv_size": 4}}, "must be odd, found 4"),
        ({"model_args": {"in_chans": 1}}, "in_chans must be 3, found 1"),
        ({"model_args": {"global_pool": "max"}}, "global_pool must be one of avg, found 'max'"),
        ({"model_args": [1]}, "model_args must be an object"),
        ({"pretrained_cfg": {"input_size": [3, 224, 256]}}, "input_size must be"),
        ({"pretrained_cfg": {"crop_pct": 1.2}}, "crop_pct must be at most 1, found 1.2"),
        ({"pretrained_cfg": {"crop_pct": 0}}, "crop_pct must be a number above 0"),
        ({"pretrained_cfg": {"crop_mode": "border"}}, "crop_mode must be one of center, squash, found 'border'"),
        ({"pretrained_cfg": {"interpolation": "lanczos"}}, "interpolation must be one of bicubic, bilinear"),
        ({"pretrained_cfg": {"mean": [0.5]}}, "mean must be three numbers"),
        ({"pretrained_cfg": {"std": [0.5, 0.5, 0]}}, "std above 0"),
    ],
)
def test_refusals(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_config({"architecture": "tiny_vit_5m_224", **change})
    assert "\n" not in str(caught.value)


def test_labels() -> None:
    two = {"num_classes": 2}
    assert parse_labels(two) == ("LABEL_0", "LABEL_1")
    assert len(parse_labels({"pretrained_cfg": {"num_classes": 7}})) == 7
    assert len(parse_labels({})) == 1000
    assert parse_labels({**two, "label_names": ["cat", "dog"]}) == ("cat", "dog")
    assert parse_labels({"pretrained_cfg": {"label_names": ["cat", "dog"], "num_classes": 2}}) == ("cat", "dog")
    assert parse_labels({**two, "label_names": {"1": "dog", "0": "cat"}}) == ("cat", "dog")
    names = {**two, "label_names": ["n01", "n02"]}
    assert parse_labels({**names, "label_descriptions": {"n01": "tench, Tinca tinca"}}) == ("tench", "n02")
    described = {"n01": "crane, bird", "n02": "crane, machine"}
    assert parse_labels({**names, "label_descriptions": described}) == ("n01", "n02")


@pytest.mark.parametrize(
    "wrong", ["cat", [1, 2], ["cat"], {"x": "cat", "0": "dog"}, {"0": "cat", "2": "dog"}, ["", "dog"]]
)
def test_labels_that_do_not_fit(wrong: Any) -> None:
    with pytest.raises(InputError, match="label_names"):
        parse_labels({"num_classes": 2, "label_names": wrong})
