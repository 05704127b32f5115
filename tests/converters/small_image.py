"""A small image classifier: every operator family of TinyViT, lowered in seconds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeformer.models.family import Program
from edgeformer_runtime.bundle.manifest import TensorSpec

SIZE, CHANNELS, HEADS, LABELS = 32, 32, 2, 10
TOKENS = (SIZE // 4) ** 2


class SmallImageClassifier(nn.Module):
    """Spatial, pointwise and depthwise convolutions, and one attention layer with a constant bias on its scores."""

    bias: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 3, 4, 1)
        self.widen, self.narrow = nn.Conv2d(CHANNELS, 2 * CHANNELS, 1), nn.Conv2d(2 * CHANNELS, CHANNELS, 1)
        self.depthwise = nn.Conv2d(2 * CHANNELS, 2 * CHANNELS, 3, 1, 1, groups=2 * CHANNELS)
        self.query, self.key, self.value = (nn.Linear(CHANNELS, CHANNELS) for _ in range(3))
        self.register_buffer("bias", torch.randn(HEADS, TOKENS, TOKENS))
        self.norm = nn.LayerNorm(CHANNELS)
        self.head = nn.Linear(CHANNELS, LABELS)

    def split_heads(self, x: Tensor) -> Tensor:
        """(1, T, C) to (H, T, D)."""
        return x.reshape(-1, HEADS, CHANNELS // HEADS).permute(1, 0, 2)

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        """(1, 3, S, S) to logits (1, LABELS)."""
        x = self.stem(pixels)
        inner = nn.functional.gelu(self.depthwise(nn.functional.gelu(self.widen(x))))
        tokens = (x + self.narrow(inner)).flatten(2).transpose(1, 2)
        q, k, v = (self.split_heads(project(tokens)) for project in (self.query, self.key, self.value))
        weights = torch.softmax(torch.bmm(q * (CHANNELS // HEADS) ** -0.5, k.transpose(1, 2)) + self.bias, -1)
        tokens = self.norm(tokens + torch.bmm(weights, v).permute(1, 0, 2).reshape(1, TOKENS, CHANNELS))
        return (self.head(tokens.mean(1)),)


def image_inputs(count: int, seed: int) -> tuple[tuple[Tensor, ...], ...]:
    """Seeded images with large smooth shapes and a little noise, normalised."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 1, 3, 4, 4, generator=generator)
    smooth = [nn.functional.interpolate(image, (SIZE, SIZE), mode="bilinear") for image in coarse]
    return tuple((image + 0.1 * torch.randn(image.shape, generator=generator),) for image in smooth)


def image_program(calibration: int = 8) -> Program:
    """The classifier with seeded weights and so many calibration inputs."""
    torch.manual_seed(0)
    return Program(
        "image",
        SmallImageClassifier().eval(),
        (TensorSpec("pixels", "float32", (1, 3, SIZE, SIZE)),),
        (TensorSpec("logits", "float32", (1, LABELS)),),
        image_inputs(calibration, seed=1),
    )
