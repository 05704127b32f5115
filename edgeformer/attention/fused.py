"""Attention as the one operator that Core ML keeps whole from iOS 18 on."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F


def fused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """Scaled dot-product attention through F.scaled_dot_product_attention. Shapes as in `AttentionKernel`."""
    # coremltools keeps one operator only for the default scale 1/sqrt(D): any other goes into q.
    ratio = scale * math.sqrt(q.shape[-1])
    if not math.isclose(ratio, 1.0, rel_tol=1e-9):
        q = q * ratio
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
