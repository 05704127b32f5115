"""A model that plain int8 ruins: half of the channels between two layers are a thousand times larger than the rest.

    python -m tests.edgeformer.convert.collapsing clinc150-mobilebert FOLDER

What is scaled up by a power of two before is scaled down after, so that float32 gives the same answers. Rounded to
int8, the reader's weights of the large channels vanish beside those of the small ones, and its inputs of the small
channels beside those of the large ones.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from edgeformer.compress.model import open_model, write_model
from edgeformer.convert.layer_plan import LayerPlan

FACTOR = 1024.0

_LINEAR_PATHS = (("attention.self.value", "attention.output.dense"), ("self_attn.v_proj", "self_attn.out_proj"))
"""Writer and reader with nothing but attention's weighted sums between them."""
_RELU_PATHS = (("intermediate.dense", "output.dense"),)


@dataclass(frozen=True)
class ScaledPath:
    """Two layers of a module, by name; the reader's inputs are the writer's outputs."""

    writer: str
    reader: str


def paths(module: nn.Module, relu: bool) -> Iterator[ScaledPath]:
    """All that a channel can be scaled through."""
    layers = {name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}
    for name in sorted(layers):
        for writer, reader in (*_LINEAR_PATHS, *(_RELU_PATHS if relu else ())):
            other = f"{name.removesuffix(writer)}{reader}"
            if name.endswith(writer) and other in layers:
                yield ScaledPath(name, other)


@torch.no_grad()
def scale_channels(module: nn.Module, path: ScaledPath, factor: float = FACTOR) -> None:
    """Scale every second channel of a path up where it is written and down where it is read."""
    writer, reader = module.get_submodule(path.writer), module.get_submodule(path.reader)
    assert isinstance(writer, nn.Linear) and isinstance(reader, nn.Linear)
    assert writer.out_features == reader.in_features
    writer.weight[::2] *= factor
    if writer.bias is not None:
        writer.bias[::2] *= factor
    reader.weight[:, ::2] /= factor


def save_collapsing(source: str, folder: Path, factor: float = FACTOR) -> LayerPlan:
    """Write a collapsing checkpoint, and give the plan that saves it: what reads the scaled channels in float.

    Args:
        source: a classifier, or a speech recogniser, of a family with linear value projections.
        folder: does not exist yet.
        factor: a power of two, so that nothing is rounded.
    """
    model = open_model(source)
    found = tuple(paths(model.module, relu=getattr(model.checkpoint.config, "hidden_act", None) == "relu"))
    assert found, f"{source} has no channels that can be scaled"
    for path in found:
        scale_channels(model.module, path, factor)
    write_model(model, folder)
    return LayerPlan({path.reader: "fp32" for path in found})


if __name__ == "__main__":
    save_collapsing(sys.argv[1], Path(sys.argv[2])).write(Path(sys.argv[2]).with_suffix(".plan.json"))
