"""What a TinyViT weight file alone says about its model: timm publishes its checkpoints as such files too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from edgeformer.models.tinyvit_config import VARIANTS
from edgeformer.models.tinyvit_names import timm_names

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
