"""A small text classifier with buckets: every operator family of the real models, lowered in seconds."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeformer.models.family import Program
from edgeformer_runtime.bundle.manifest import TensorSpec

VOCAB, CHANNELS, HEADS, LABELS = 64, 32, 2, 3


class SmallTextClassifier(nn.Module):
    """One transformer layer over token and position embeddings; bmm attention with a finite additive mask."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCAB, CHANNELS)
        self.types = nn.Embedding(2, CHANNELS)
        self.positions = nn.Parameter(torch.randn(64, CHANNELS))
        self.query, self.key, self.value = (nn.Linear(CHANNELS, CHANNELS) for _ in range(3))
        self.norm = nn.LayerNorm(CHANNELS)
        self.up, self.down = nn.Linear(CHANNELS, 4 * CHANNELS), nn.Linear(4 * CHANNELS, CHANNELS)
        self.head = nn.Linear(CHANNELS, LABELS)

    def split_heads(self, x: Tensor) -> Tensor:
        """(1, T, C) to (H, T, D)."""
        return x.reshape(-1, HEADS, CHANNELS // HEADS).permute(1, 0, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor]:
        """Three (1, T) int32 tensors to logits (1, LABELS)."""
        seq_len = input_ids.shape[1]
        x = self.tokens(input_ids) + self.types(token_type_ids) + self.positions[:seq_len]
        bias = (1.0 - attention_mask.to(torch.float32)).reshape(1, 1, seq_len) * -100.0
        q, k, v = (self.split_heads(project(x)) for project in (self.query, self.key, self.value))
        weights = torch.softmax(torch.bmm(q * (CHANNELS // HEADS) ** -0.5, k.transpose(1, 2)) + bias, -1)
        x = self.norm(x + torch.bmm(weights, v).permute(1, 0, 2).reshape(1, seq_len, CHANNELS))
        x = x + self.down(nn.functional.gelu(self.up(x)))
        return (self.head(torch.tanh(x[:, 0])),)


def text_programs(module: nn.Module, seq_lens: tuple[int, ...]) -> tuple[Program, ...]:
    """One program per bucket, all of them on the same weights."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    return tuple(
        Program(
            f"classify_{seq_len}",
            module,
            tuple(TensorSpec(name, "int32", (1, seq_len)) for name in names),
            (TensorSpec("logits", "float32", (1, LABELS)),),
        )
        for seq_len in seq_lens
    )


def text_inputs(program: Program, seed: int = 0) -> dict[str, NDArray[np.int32]]:
    """Seeded ids with two thirds of the positions unmasked, by input name."""
    random = np.random.default_rng(seed)
    shape = program.inputs[0].shape
    mask = np.zeros(shape, np.int32)
    mask[:, : shape[1] * 2 // 3] = 1
    return {
        "input_ids": random.integers(0, VOCAB, shape, dtype=np.int32),
        "attention_mask": mask,
        "token_type_ids": random.integers(0, 2, shape, dtype=np.int32),
    }


def reference(program: Program, inputs: dict[str, NDArray[np.int32]]) -> NDArray[np.float32]:
    """What the torch module says, first output."""
    with torch.no_grad():
        outputs = program.module(*(torch.from_numpy(inputs[spec.name]) for spec in program.inputs))
    return outputs[0].numpy()


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float((a.ravel() @ b.ravel()) / np.linalg.norm(a) / np.linalg.norm(b))
