"""A bundle of int8 convolutions and nothing else, whose outputs leave a processor no rounding to choose.

TinyViT's static-int8 computes attention, GELU and norms in floats, which is faster; their last bits differ between
processors, and the next quantization can make a whole level of that. What static int8 computes itself is exact.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeformer.checkpoints.checkpoint import open_checkpoint
from edgeformer.convert.bundle_writer import seal, write_bundle
from edgeformer.convert.calibration import calibrated
from edgeformer.convert.target import PRECISIONS, converter_for
from edgeformer.models.family import Program, ProgramOptions
from edgeformer.tasks.image import CLASSIFICATION
from edgeformer_runtime.bundle.manifest import Source, TensorSpec

NAME = "convolutions"
SIDE, CHANNELS, LABELS = 64, 16, 10
PRECISION = "static-int8"


class Convolutions(nn.Module):
    """Spatial and pointwise convolutions with ReLU, and a linear layer, with seeded random weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, CHANNELS, 4, 4),
            nn.ReLU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(CHANNELS, 2 * CHANNELS, 1),
            nn.ReLU(),
            nn.Conv2d(2 * CHANNELS, CHANNELS, 4, 4),
            nn.ReLU(),
        )
        self.head = nn.Linear(CHANNELS * (SIDE // 32) ** 2, LABELS)

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        """(1, 3, SIDE, SIDE) to logits (1, LABELS)."""
        return (self.head(self.body(pixels).flatten(1)),)


def write_convolutions(folder: Path, images: Path, scratch: Path) -> None:
    """Write the bundle, for LiteRT.

    Args:
        folder: of the bundle; it does not exist yet.
        images: to calibrate with.
        scratch: an empty folder for what comes before.
    """
    program = Program(
        "image",
        Convolutions().eval(),
        (TensorSpec("pixels", "float32", (1, 3, SIDE, SIDE)),),
        (TensorSpec("logits", "float32", (1, LABELS)),),
    )
    # Preprocessing and labels are those of the zoo's image classifier.
    zoo = open_checkpoint("cifar10-tinyvit", None, None, None)
    spec = CLASSIFICATION.spec(zoo, (program,), ProgramOptions())
    weights = b"".join(tensor.numpy().tobytes() for tensor in program.module.state_dict().values())
    checkpoint = replace(
        zoo,
        family=replace(zoo.family, name=NAME),
        source=Source(f"local:{NAME}", None, hashlib.sha256(weights).hexdigest()),
    )
    converter = converter_for("litert")
    programs = calibrated((program,), spec, images)
    for name in ("fp32", "int8"):
        (scratch / name).mkdir()
    fp32 = converter.lower_fp32(programs, scratch / "fp32")
    lowered = converter.lower_precision(programs, fp32, PRECISIONS[PRECISION], scratch / "int8")
    folder.mkdir(parents=True)
    draft = write_bundle(folder, NAME, checkpoint, converter, PRECISIONS[PRECISION], "dense", programs, lowered, spec)
    seal(folder, draft.manifest)
