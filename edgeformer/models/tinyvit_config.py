"""The configuration of TinyViT, read from the config.json that timm writes beside a checkpoint."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from edgeformer.models import config as fields
from edgeformer.models.config import LayerWidths, read_layer_widths
from edgeformer.models.family import unwrapped
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.tasks.vision import INTERPOLATIONS, ImagePreprocessing

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_CROP_PCT = 0.95
"""What timm states for each of its TinyViT checkpoints."""

_NUM_CLASSES = 1000

_STAGE_ARGS = ("embed_dims", "depths", "num_heads", "window_sizes")
_TRAINING_ARGS = ("drop_rate", "drop_path_rate", "use_checkpoint")
"""Arguments of timm's constructor that change training only."""


@dataclass(frozen=True)
class TinyViTConfig:
    """The arguments of timm's TinyVit that shape the computation, and what its pixels are.

    The four tuples have an entry per stage. The first stage is convolutional: its heads and window are not used.
    `layer_widths` has an entry per block of the other stages, one stage after the other. Empty in the constructor:
    every block is whole.
    """

    embed_dims: tuple[int, ...]
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window_sizes: tuple[int, ...]
    preprocessing: ImagePreprocessing
    mlp_ratio: float = 4.0
    mbconv_expand_ratio: float = 4.0
    local_conv_size: int = 3
    layer_widths: tuple[LayerWidths, ...] = ()

    input_names = ("pixels",)

    def __post_init__(self) -> None:
        lengths = {len(getattr(self, name)) for name in _STAGE_ARGS}
        if len(lengths) != 1 or len(self.depths) < 2:
            raise InputError(
                f"config.json: {', '.join(_STAGE_ARGS)} must have one entry per stage and two at least, found "
                + ", ".join(str(len(getattr(self, name))) for name in _STAGE_ARGS)
            )
        for width, num_heads in zip(self.embed_dims[1:], self.num_heads[1:], strict=True):
            fields.check_heads(width, num_heads, "each of embed_dims")
        if self.embed_dims[0] % 2:
            raise InputError(f"config.json: the first of embed_dims must be even, found {self.embed_dims[0]}")
        if self.local_conv_size % 2 == 0:
            raise InputError(f"config.json: local_conv_size must be odd, found {self.local_conv_size}")
        if not self.layer_widths:
            stages = list(zip(self.embed_dims, self.num_heads, self.depths, strict=True))[1:]
            whole = [(LayerWidths(heads, (int(size * self.mlp_ratio),)),) * depth for size, heads, depth in stages]
            object.__setattr__(self, "layer_widths", sum(whole, ()))

    def stage_widths(self, stage: int) -> tuple[LayerWidths, ...]:
        """Of the blocks of a stage from the second on."""
        first = sum(self.depths[1:stage])
        return self.layer_widths[first : first + self.depths[stage]]

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.preprocessing.height, self.preprocessing.width


@dataclass(frozen=True)
class _Variant:
    """What the name of a timm architecture stands for."""

    embed_dims: tuple[int, ...]
    num_heads: tuple[int, ...]
    image_size: int = 224
    window_sizes: tuple[int, ...] = (7, 7, 14, 7)
    crop_pct: float = _CROP_PCT
    crop: str = "center"
    depths: tuple[int, ...] = (2, 2, 6, 2)


VARIANTS: dict[str, _Variant] = {
    "tiny_vit_5m_224": _Variant((64, 128, 160, 320), (2, 4, 5, 10)),
    "tiny_vit_11m_224": _Variant((64, 128, 256, 448), (2, 4, 8, 14)),
    "tiny_vit_21m_224": _Variant((96, 192, 384, 576), (3, 6, 12, 18)),
    "tiny_vit_21m_384": _Variant((96, 192, 384, 576), (3, 6, 12, 18), 384, (12, 12, 24, 12), 1.0),
    "tiny_vit_21m_512": _Variant((96, 192, 384, 576), (3, 6, 12, 18), 512, (16, 16, 32, 16), 1.0, "squash"),
}
"""timm's architectures and what their checkpoints expect of an image (section 4 of the paper, appendix A)."""


def parse_config(raw: Mapping[str, Any]) -> TinyViTConfig:
    """A config.json in timm's hub layout to TinyViTConfig.

    Args:
        raw: `architecture`, and optionally `pretrained_cfg` (input_size, crop_pct, ...) and `model_args`.

    Raises:
        InputError: an architecture, argument or value that cannot be honoured.
    """
    architecture = raw.get("architecture")
    variant = VARIANTS.get(architecture) if isinstance(architecture, str) else None
    if variant is None:
        raise InputError(f"config.json: architecture must be one of {', '.join(VARIANTS)}, found {architecture!r}")
    args = _mapping(raw, "model_args")
    known = (
        *_STAGE_ARGS,
        *_TRAINING_ARGS,
        "mlp_ratio",
        "mbconv_expand_ratio",
        "local_conv_size",
        "in_chans",
        "global_pool",
        "num_classes",
    )
    for key in args:
        if key not in known:
            raise InputError(f"config.json: unknown model_args {key!r}: expected any of {', '.join(sorted(known))}")
    if args.get("in_chans", 3) != 3:
        raise InputError(f"config.json: in_chans must be 3, found {args['in_chans']!r}: images are RGB")
    for source in (raw, args):
        fields.read_choice(source, "global_pool", "avg", ("avg",))
    stages = {name: _ints(args, name, getattr(variant, name)) for name in _STAGE_ARGS}
    config = TinyViTConfig(
        embed_dims=stages["embed_dims"],
        depths=stages["depths"],
        num_heads=stages["num_heads"],
        window_sizes=stages["window_sizes"],
        preprocessing=_preprocessing(_mapping(raw, "pretrained_cfg"), variant),
        mlp_ratio=fields.read_float(args, "mlp_ratio", 4.0),
        mbconv_expand_ratio=fields.read_float(args, "mbconv_expand_ratio", 4.0),
        local_conv_size=fields.read_int(args, "local_conv_size", 3),
    )
    return replace(config, layer_widths=read_layer_widths(raw, "layer_widths", config.layer_widths))


def parse_labels(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the classes in the order of the logits, LABEL_0 and on where a config in timm's hub layout has none.

    A name of `label_names` that `label_descriptions` explains is replaced by the explanation's first synonym.

    Raises:
        InputError: names that do not fit `num_classes`, or that cannot be read.
    """
    pretrained_cfg = _mapping(raw, "pretrained_cfg")
    if raw.get("num_classes", pretrained_cfg.get("num_classes")) == 0:
        raise InputError("config.json: num_classes is 0, so it has no classifier: fine-tune it for your classes first")
    count = fields.read_int(raw, "num_classes", fields.read_int(pretrained_cfg, "num_classes", _NUM_CLASSES))
    names = raw.get("label_names", pretrained_cfg.get("label_names"))
    if names is None:
        return tuple(f"LABEL_{number}" for number in range(count))
    if isinstance(names, Mapping):
        if set(names) != {str(number) for number in range(len(names))}:
            raise InputError("config.json: label_names must number its labels from 0 without gaps")
        names = [names[str(number)] for number in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise InputError("config.json: label_names must be a list of names")
    if len(names) != count:
        raise InputError(f"config.json: label_names has {len(names)} names, and num_classes is {count}")
    descriptions = _mapping(raw, "label_descriptions")
    labels = tuple(str(descriptions.get(name, name)).split(",")[0] for name in names)
    # Some classes of ImageNet share their first synonym (crane: the bird and the machine); names tell classes apart.
    return labels if len(set(labels)) == len(labels) else tuple(names)


def _preprocessing(raw: Mapping[str, Any], variant: _Variant) -> ImagePreprocessing:
    """timm's rule: the resized side is floor(input size / crop_pct)."""
    size = _ints(raw, "input_size", (3, variant.image_size, variant.image_size))
    if len(size) != 3 or size[0] != 3 or size[1] != size[2]:
        raise InputError(f"config.json: input_size must be [3, S, S], found {shorten(list(size))}")
    crop_pct = fields.read_float(raw, "crop_pct", variant.crop_pct)
    if crop_pct > 1:
        raise InputError(f"config.json: crop_pct must be at most 1, found {crop_pct}")
    return ImagePreprocessing(
        height=size[1],
        width=size[2],
        resize_short_side=math.floor(size[1] / crop_pct),
        interpolation=fields.read_choice(raw, "interpolation", "bicubic", INTERPOLATIONS),
        crop=fields.read_choice(raw, "crop_mode", variant.crop, ("center", "squash")),
        mean=_three(raw, "mean", _MEAN),
        std=_three(raw, "std", _STD),
    )


def _mapping(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = raw.get(key) or {}
    if not isinstance(value, Mapping):
        raise InputError(f"config.json: {key} must be an object, found {shorten(value)}")
    return value


def _ints(raw: Mapping[str, Any], key: str, default: tuple[int, ...]) -> tuple[int, ...]:
    value = raw.get(key, default)
    if not isinstance(value, list | tuple):
        raise InputError(f"config.json: {key} must be a list of integers, found {shorten(value)}")
    return tuple(fields.read_int({key: item}, key, 1) for item in value)


def _three(raw: Mapping[str, Any], key: str, default: tuple[float, float, float]) -> tuple[float, float, float]:
    value = raw.get(key, default)
    numbers = isinstance(value, list | tuple) and all(isinstance(item, int | float) for item in value)
    if not numbers or len(value) != 3:
        raise InputError(f"config.json: {key} must be three numbers, found {shorten(value)}")
    return float(value[0]), float(value[1]), float(value[2])


# What a TinyViT weight file alone says about its model: timm publishes its checkpoints as such files too.


_STEM = "patch_embed.conv1.conv.weight"
_HEAD = "head.fc.weight"
_PATCHES_PER_WINDOW = 32
"""Each published image size is the last stage's window times its stride, so that one window covers the image there."""


def describe(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """A config.json in timm's hub layout for the weights of these shapes, or None where they are no TinyViT's.

    The architecture's name is a published variant's, whose preprocessing is then used; sizes are the weights' own.

    Args:
        shapes: by public name.
    """
    shapes = timm_names(shapes)
    if _STEM not in shapes or _HEAD not in shapes:
        return None
    stages = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("stages."))
    blocks = [
        {int(name.split(".")[3]) for name in shapes if name.startswith(f"stages.{stage}.blocks.")}
        for stage in range(stages)
    ]
    biases = {
        stage: shapes[name]
        for stage in range(1, stages)
        for name in shapes
        if name.startswith(f"stages.{stage}.blocks.") and name.endswith("attn.attention_biases")
    }
    widths = [_width(shapes, stage) for stage in range(stages)]
    windows = [math.isqrt(biases[stage][1]) for stage in range(1, stages)]
    size = windows[-1] * _PATCHES_PER_WINDOW
    same_width = [name for name, variant in VARIANTS.items() if list(variant.embed_dims) == widths]
    if not same_width:
        return None
    architecture = next((name for name in same_width if VARIANTS[name].image_size == size), same_width[0])
    return {
        "architecture": architecture,
        "num_classes": shapes[_HEAD][0],
        "model_args": {
            "embed_dims": widths,
            "depths": [len(found) for found in blocks],
            "num_heads": [VARIANTS[architecture].num_heads[0], *(biases[stage][0] for stage in range(1, stages))],
            "window_sizes": [windows[0], *windows],
        },
        "pretrained_cfg": {"input_size": [3, size, size]},
    }


def _width(shapes: Mapping[str, tuple[int, ...]], stage: int) -> int:
    name = "stages.0.blocks.0.conv1.conv.weight" if stage == 0 else f"stages.{stage}.downsample.conv3.conv.weight"
    return shapes[name][1 if stage == 0 else 0]


# The spellings of parameter names in public TinyViT checkpoints, brought to timm's, which are ours.


T = TypeVar("T")

_TIMM_WRAPPER = "timm_model."
"""What transformers' timm_wrapper puts before every name."""

_AUTHORS = "patch_embed.seq.0.c.weight"
"""A name that only the authors' own implementation has (github.com/microsoft/Cream, TinyViT)."""

_AUTHORS_PARTS = (
    (r"^patch_embed\.seq\.0\.", "patch_embed.conv1."),
    (r"^patch_embed\.seq\.2\.", "patch_embed.conv2."),
    (r"^norm_head\.", "head.norm."),
    (r"^head\.(weight|bias)$", r"head.fc.\1"),
    (r"^layers\.(\d+)\.blocks\.", r"stages.\1.blocks."),
    (r"\.c\.weight$", ".conv.weight"),
)

_AUTHORS_DOWNSAMPLE = re.compile(r"^layers\.(\d+)\.downsample\.")
"""It ends a stage there and starts the next one in timm."""


def timm_names(state: Mapping[str, T]) -> dict[str, T]:
    """What is given by public names, by timm's names.

    Raises:
        InputError: two public names mean the same.
    """
    names = {name: _without_wrappers(name) for name in state}
    if _AUTHORS in names.values():
        names = {public: _from_authors(name) for public, name in names.items()}
    if len(set(names.values())) < len(names):
        twice = sorted(name for name in names.values() if list(names.values()).count(name) > 1)
        raise InputError(f"checkpoint holds {twice[0]} twice, under different prefixes: remove one")
    return {names[public]: value for public, value in state.items()}


def _without_wrappers(name: str) -> str:
    while (shorter := unwrapped(name).removeprefix(_TIMM_WRAPPER)) != name:
        name = shorter
    return name


def _from_authors(name: str) -> str:
    for pattern, replacement in _AUTHORS_PARTS:
        name = re.sub(pattern, replacement, name)
    return _AUTHORS_DOWNSAMPLE.sub(lambda found: f"stages.{int(found.group(1)) + 1}.downsample.", name)
