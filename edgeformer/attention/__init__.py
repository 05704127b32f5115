"""Attention kernels: `(q, k, v, bias, scale) -> out`.

The exact ones are shaped for what one kind of target runs well, and each target has its own. The approximate ones are
for long inputs; nobody gets one without asking for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from edgeformer_runtime.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

AttentionKernel: TypeAlias = "Callable[[Tensor, Tensor, Tensor, Tensor | None, float], Tensor]"
"""q (B, H, T, D); k, v (B, H, S, D); additive bias broadcastable to (B, H, T, S) or None; scale -> out (B, H, T, D)."""

_EXACT = {
    "dense": "edgeformer.attention.kernels:dense",
    "fused": "edgeformer.attention.kernels:fused",
    "chunked": "edgeformer.attention.kernels:chunked",
    "split_heads": "edgeformer.attention.kernels:split_heads",
}

# Other functions than what a checkpoint was trained with: it has to be distilled into them. For texts.
_APPROXIMATE = {
    "sliding_window": "edgeformer.attention.kernels:sliding_window",
    "linear": "edgeformer.attention.kernels:linear",
}

KERNELS: Registry[AttentionKernel] = Registry(_EXACT)
APPROXIMATE_KERNELS: Registry[AttentionKernel] = Registry(_APPROXIMATE)
ALL_KERNELS: Registry[AttentionKernel] = Registry(_EXACT | _APPROXIMATE)
