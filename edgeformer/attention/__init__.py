"""Attention kernels: `(q, k, v, bias, scale) -> out`.

The exact ones are shaped for what one kind of target runs well, and each target has its own. The approximate ones are
for long inputs; nobody gets one without asking for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from edgeformer.lazy_table import LazyTable

if TYPE_CHECKING:
    from torch import Tensor

AttentionKernel: TypeAlias = "Callable[[Tensor, Tensor, Tensor, Tensor | None, float], Tensor]"
"""q (B, H, T, D); k, v (B, H, S, D); additive bias broadcastable to (B, H, T, S) or None; scale -> out (B, H, T, D)."""

_EXACT = {
    "dense": "edgeformer.attention.dense:dense",
    "fused": "edgeformer.attention.fused:fused",
    "chunked": "edgeformer.attention.chunked:chunked",
    "split_heads": "edgeformer.attention.split_heads:split_heads",
}

# Other functions than what a checkpoint was trained with: it has to be distilled into them. For texts.
_APPROXIMATE = {
    "sliding_window": "edgeformer.attention.sliding_window:sliding_window",
    "linear": "edgeformer.attention.linear:linear",
}

KERNELS: LazyTable[AttentionKernel] = LazyTable(_EXACT)
APPROXIMATE_KERNELS: LazyTable[AttentionKernel] = LazyTable(_APPROXIMATE)
ALL_KERNELS: LazyTable[AttentionKernel] = LazyTable(_EXACT | _APPROXIMATE)

KERNEL_FOR_TARGET: dict[str, str] = {
    # Two BATCH_MATMULs and a SOFTMAX in one XNNPACK partition; splitting heads is 37 % slower.
    "litert": "dense",
    # Stays one scaled_dot_product_attention operator from iOS 18 on, for Core ML to place as it likes.
    "coreml": "fused",
    # 3 XNNPACK delegates and 64 ms for MobileBERT; the sdpa operator is 2 to 5 times slower (safe softmax on the CPU).
    "executorch": "dense",
    # As fast as fused (20.1 ms and 20.0 ms for 3 layers of MiniLM at 128 tokens, one x86-64 thread), so ONNX shares its
    # graph with LiteRT and ExecuTorch; split_heads takes 35.5 ms.
    "onnx": "dense",
}
