"""Attention as two batched matrix products: the operators that LiteRT's and ExecuTorch's XNNPACK delegates know."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from edgeformer.attention.mask import bias_rows, spans

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
    # Scaling q is T*D multiplications per head, scaling the scores would be T*S.
    queries = q * scale
    parts = math.ceil(q.shape[2] / MAX_QUERIES)
    if parts == 1:
        return _attend(queries, k, v, bias)
    size = math.ceil(q.shape[2] / parts)
    # The loop runs over a static length, so that an export unrolls it.
    return torch.cat(
        [_attend(queries[:, :, at:end], k, v, bias_rows(bias, at, end)) for at, end in spans(q.shape[2], size)],
        dim=2,
    )


def _attend(queries: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Scaled queries (B, H, t, D) to (B, H, t, D)."""
    batch, heads, query_len, head_dim = queries.shape
    key_len = k.shape[2]
    rows = batch * heads
    keys = k.reshape(rows, key_len, head_dim)  # (B*H, S, D)
    values = v.reshape(rows, key_len, head_dim)  # (B*H, S, D)
    # Each part turns the keys over anew: with keys turned once for all, LiteRT holds all parts' scores at a time.
    scores = torch.bmm(queries.reshape(rows, query_len, head_dim), keys.transpose(1, 2))  # (B*H, t, S)
    if bias is not None:
        scores = _add_bias(scores, bias, batch)
    return torch.bmm(scores.softmax(dim=-1), values).reshape(batch, heads, query_len, head_dim)


def _add_bias(scores: Tensor, bias: Tensor, batch: int) -> Tensor:
    """Scores (B*H, T, S) plus bias."""
    rows, query_len, key_len = scores.shape
    bias = bias.reshape((1,) * (4 - bias.dim()) + tuple(bias.shape))
    if batch == 1:
        # Three dimensions all the way: a reshape to (B, H, T, S) and back would cut XNNPACK's partition in two.
        return scores + bias.reshape(bias.shape[1:])
    return (scores.reshape(batch, rows // batch, query_len, key_len) + bias).reshape(rows, query_len, key_len)
