"""Attention as two batched matrix products: the operators that LiteRT's and ExecuTorch's XNNPACK delegates know."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from edgeformer.attention.mask import bias_rows

MAX_QUERIES = 640
"""Queries whose scores are in memory at once. Whisper's 1500 positions would need 56 MB of scores in each layer, and as
much again for their softmax; in three parts LiteRT needs 34 MB less in all and 3 % more time."""


def dense(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017, section 3.2.1) through torch.bmm.

    Many queries are taken in equal parts, which changes nothing but the memory.

    Args:
        q: (B, H, T, D) float.
        k: (B, H, S, D).
        v: (B, H, S, D).
        bias: added to the scores, broadcastable to (B, H, T, S), or None.
        scale: factor of q·k.

    Returns:
        (B, H, T, D).
    """
    batch, heads, query_len, head_dim = q.shape
    key_len = k.shape[2]
    rows = batch * heads
    # Scaling q is T*D multiplications per head, scaling the scores would be T*S.
    queries = (q * scale).reshape(rows, query_len, head_dim)  # (B*H, T, D)
    keys = k.reshape(rows, key_len, head_dim).transpose(1, 2)  # (B*H, D, S)
    values = v.reshape(rows, key_len, head_dim)  # (B*H, S, D)
    parts = math.ceil(query_len / MAX_QUERIES)
    size = math.ceil(query_len / parts)
    # The loop runs over a static length, so that an export unrolls it.
    out = [
        _attend(queries[:, at : at + size] if parts > 1 else queries, keys, values, bias_rows(bias, at, size), batch)
        for at in range(0, query_len, size)
    ]
    return (out[0] if parts == 1 else torch.cat(out, dim=1)).reshape(batch, heads, query_len, head_dim)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, batch: int) -> Tensor:
    """Scaled queries (B*H, t, D), keys (B*H, D, S) and values (B*H, S, D) to (B*H, t, D)."""
    scores = torch.bmm(queries, keys)  # (B*H, t, S)
    if bias is not None:
        scores = _add_bias(scores, bias, batch)
    return torch.bmm(scores.softmax(dim=-1), values)


def _add_bias(scores: Tensor, bias: Tensor, batch: int) -> Tensor:
    """Scores (B*H, T, S) plus bias."""
    rows, query_len, key_len = scores.shape
    bias = bias.reshape((1,) * (4 - bias.dim()) + tuple(bias.shape))
    if batch == 1:
        # Three dimensions all the way: a reshape to (B, H, T, S) and back would cut XNNPACK's partition in two.
        return scores + bias.reshape(bias.shape[1:])
    return (scores.reshape(batch, rows // batch, query_len, key_len) + bias).reshape(rows, query_len, key_len)
