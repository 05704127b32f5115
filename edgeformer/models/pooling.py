"""From the vectors of a text's tokens to its embedding, as sentence-transformers' modules do it (versions 2 to 6).

Key: B batch, S length, C hidden size, P poolings, D embedding size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MEAN, CLS, MAX, LAST = "mean", "cls", "max", "lasttoken"
MEAN_SQRT, WEIGHTED = "mean_sqrt_len_tokens", "weightedmean"
POOLINGS = (CLS, MAX, MEAN, MEAN_SQRT, WEIGHTED, LAST)
"""How an embedder makes one vector of its tokens', by the library's names, in the order in which its flags are read."""

DENSE_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "Identity": lambda x: x,
    "Tanh": torch.tanh,
    "ReLU": F.relu,
    "GELU": F.gelu,
    "SiLU": F.silu,
    "Sigmoid": torch.sigmoid,
}
"""torch's classes that a Dense module may name, as they are without arguments."""

_NORM_FLOOR = 1e-12


@dataclass(frozen=True)
class DenseLayer:
    """A dense layer behind the pooling: sizes, and one of `DENSE_ACTIVATIONS`."""

    in_features: int
    out_features: int
    bias: bool
    activation: str


@dataclass(frozen=True)
class EmbeddingHead:
    """How the tokens of a text become its embedding.

    Attributes:
        poolings: of `POOLINGS`; the vectors of several stand one behind the other.
        layers: dense layers behind them, in their order.
        normalize: the embedding is scaled to L2 norm 1.
    """

    poolings: tuple[str, ...] = (MEAN,)
    layers: tuple[DenseLayer, ...] = ()
    normalize: bool = True


MEAN_HEAD = EmbeddingHead()
"""Of a checkpoint that says nothing of it."""


class SentenceHead(nn.Module):
    """Pooling, dense layers and norm of an `EmbeddingHead`."""

    shares: Tensor

    def __init__(self, head: EmbeddingHead, hidden_size: int, longest: int) -> None:
        """Untrained.

        Args:
            head: what to compute.
            hidden_size: C.
            longest: the largest S.
        """
        super().__init__()
        self.head = head
        self.dense = nn.ModuleList(
            nn.Linear(layer.in_features, layer.out_features, bias=layer.bias) for layer in head.layers
        )
        self.output_dim = head.layers[-1].out_features if head.layers else len(head.poolings) * hidden_size
        if WEIGHTED in head.poolings:
            # (1, longest): weights of the positions; shares, as the sum of 512 whole numbers is beyond float16.
            shares = torch.arange(1, longest + 1, dtype=torch.float32)[None] / longest
            self.register_buffer("shares", shares, persistent=False)

    def pool(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """hidden (B, S, C), or (B, 1, C) of the first token alone, and attention_mask (B, S) to (B, P*C)."""
        pooled = [self._pool(pooling, hidden, attention_mask) for pooling in self.head.poolings]
        return pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Pooled vectors (B, P*C) to embeddings (B, D)."""
        for dense, layer in zip(self.dense, self.head.layers, strict=True):
            x = DENSE_ACTIVATIONS[layer.activation](dense(x))
        return l2_normalize(x) if self.head.normalize else x

    def _pool(self, pooling: str, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, S, C) and (B, S) to (B, C)."""
        if pooling == CLS:
            return hidden[:, 0]
        mask = attention_mask.float()
        if pooling == MAX:
            # The first token, which is never padding, stands in for all that is: no number is below all and in float16.
            kept = mask[:, :, None]
            return (hidden * kept + hidden[:, :1] * (1 - kept)).amax(dim=1)
        if pooling == LAST:
            # The last 1 of each row: what follows it is 0.
            return weighted_sum(hidden, mask * (1 - F.pad(mask[:, 1:], (0, 1))))
        if pooling == WEIGHTED:
            mask = mask * self.shares[:, : mask.shape[1]]
        count = mask.sum(dim=1, keepdim=True)
        return weighted_sum(hidden, mask / (count.sqrt() if pooling == MEAN_SQRT else count))


def masked_mean(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean over the tokens: hidden (B, S, C), attention_mask (B, S) with at least one 1 per row, to (B, C)."""
    mask = attention_mask.float()
    return weighted_sum(hidden, mask / mask.sum(dim=1, keepdim=True))


def weighted_sum(hidden: Tensor, weights: Tensor) -> Tensor:
    """hidden (B, S, C) and weights (B, S), divided before so that sums stay inside float16's range, to (B, C)."""
    return torch.bmm(weights[:, None, :], hidden)[:, 0]


def l2_normalize(x: Tensor) -> Tensor:
    """Scale the rows of (B, D) to L2 norm 1."""
    return x * torch.rsqrt((x * x).sum(dim=-1, keepdim=True) + _NORM_FLOOR)
