"""Exact attention in bounded memory: blocks of queries, and an online softmax over blocks of keys."""

from __future__ import annotations

import torch
from torch import Tensor

from edgeformer.attention.mask import bias_rows, spans

QUERY_BLOCK = 128
KEY_BLOCK = 128


def chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    scale: float,
    *,
    query_block: int = QUERY_BLOCK,
    key_block: int = KEY_BLOCK,
) -> Tensor:
    """Scaled dot-product attention that never holds more than query_block * key_block scores per head.

    The softmax is kept as a running maximum and a running sum (Milakov and Gimelshein 2018, "Online normalizer
    calculation for softmax"; Rabe and Staats 2021, "Self-attention does not need O(n^2) memory").

    Args:
        q: (B, H, T, D) float.
        k: (B, H, S, D).
        v: (B, H, S, D).
        bias: added to the scores, broadcastable to (B, H, T, S), or None.
        scale: factor of q·k.
        query_block: queries per block, at least 1.
        key_block: keys per block, at least 1.

    Returns:
        (B, H, T, D).
    """
    if query_block < 1 or key_block < 1:
        raise ValueError(f"expected blocks of at least 1, found query_block={query_block}, key_block={key_block}")
    # The loops run over static lengths, so that an export unrolls them.
    blocks = [
        _attend(q[:, :, start:end] * scale, k, v, bias_rows(bias, start, end), key_block)
        for start, end in spans(q.shape[2], query_block)
    ]
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=2)


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, key_block: int) -> Tensor:
    """One block of scaled queries (B, H, t, D) against all keys."""
    first, *others = spans(k.shape[2], key_block)
    maximum, total, out = _block(q, k, v, bias, *first)
    for start, end in others:
        block_maximum, block_total, block_out = _block(q, k, v, bias, start, end)
        joint = torch.maximum(maximum, block_maximum)  # (B, H, t, 1)
        old, new = torch.exp(maximum - joint), torch.exp(block_maximum - joint)
        total = total * old + block_total * new
        out = out * old + block_out * new
        maximum = joint
    return out / total


def _block(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, start: int, end: int) -> tuple[Tensor, Tensor, Tensor]:
    """Maximum (B, H, t, 1), sum of exponentials (B, H, t, 1) and weighted values (B, H, t, D) of one key block."""
    scores = torch.matmul(q, k[:, :, start:end].transpose(2, 3))  # (B, H, t, s)
    if bias is not None:
        scores = scores + (bias if bias.shape[-1] == 1 else bias[..., start:end])
    maximum = scores.amax(dim=-1, keepdim=True)
    weights = torch.exp(scores - maximum)
    return maximum, weights.sum(dim=-1, keepdim=True), torch.matmul(weights, v[:, :, start:end])
