"""The spellings of parameter names in public TinyViT checkpoints, brought to timm's, which are ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

from edgeformer.models.public_names import unwrapped
from edgeformer_runtime.errors import InputError

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
"""It ends a stage there and begins the next one in timm."""


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
