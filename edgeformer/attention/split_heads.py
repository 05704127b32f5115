"""Attention in the layout of Apple's Neural Engine: channels first, one small product per head.

Follows the principles of "Deploying Transformers on the Apple Neural Engine" (Apple, 2022): data as (B, C, 1, S), so
that the sequence lies on the 64-byte aligned last axis, and heads as separate products that fit the cache better.
"""

from __future__ import annotations

import torch
from torch import Tensor


def split_heads(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """Scaled dot-product attention, head by head, over (B, C, 1, S). Arguments as in `AttentionKernel`."""
    batch, heads, query_len, head_dim = q.shape
    queries = torch.split(_channels_first(q * scale), head_dim, dim=1)  # H x (B, D, 1, T)
    keys = torch.split(_channels_first(k).transpose(1, 3), head_dim, dim=3)  # H x (B, S, 1, D)
    values = torch.split(_channels_first(v), head_dim, dim=1)  # H x (B, D, 1, S)
    out = []
    for head in range(heads):
        scores = torch.einsum("bchq,bkhc->bkhq", queries[head], keys[head])  # (B, S, 1, T)
        if bias is not None:
            scores = scores + _head_bias(bias, head)
        out.append(torch.einsum("bkhq,bchk->bchq", scores.softmax(dim=1), values[head]))  # (B, D, 1, T)
    merged = torch.cat(out, dim=1)  # (B, H*D, 1, T)
    return merged.reshape(batch, heads, head_dim, query_len).transpose(2, 3)


def _channels_first(x: Tensor) -> Tensor:
    """(B, H, S, D) to (B, H*D, 1, S)."""
    batch, heads, seq_len, head_dim = x.shape
    return x.transpose(2, 3).reshape(batch, heads * head_dim, 1, seq_len)


def _head_bias(bias: Tensor, head: int) -> Tensor:
    """The bias of one head, (B or 1, S or 1, 1, T or 1), to match scores (B, S, 1, T)."""
    bias = bias.reshape((1,) * (4 - bias.dim()) + tuple(bias.shape))
    index = head if bias.shape[1] > 1 else 0
    return bias[:, index : index + 1].permute(0, 3, 1, 2)
