"""Approximate attention for long inputs: each position sees its neighbourhood, and the first position sees all."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeformer.attention.exact import dense
from edgeformer.attention.mask import MASK_VALUE, key_bias, spans

BLOCK = 64
"""Positions of a block. Each sees its own block and the two beside it: at least 64 positions to either side, and at
most 127."""

PART = 8
"""Blocks whose scores are in memory at once."""

GLOBAL = 1
"""First positions that see all and that all see: the one whose output a classifier reads (Longformer, section 3.1)."""


def sliding_window(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, *, block: int = BLOCK, first: int = GLOBAL
) -> Tensor:
    """Self-attention within a sliding window, with global positions: time and memory grow with T, not with T * T.

    The window is BigBird's, in blocks (Zaheer et al. 2020, section 2 and appendix D), the global positions are
    Longformer's (Beltagy et al. 2020, section 3.1); BigBird's random blocks are left out. A product of static shape
    takes several blocks, so nothing has to be gathered. Inputs of at most two blocks come out exact.

    Args:
        q: (B, H, T, D) float; T is S, or at most `first`: queries of the first positions alone.
        k: (B, H, S, D).
        v: (B, H, S, D).
        bias: added to the scores of a key, broadcastable to (B, 1, 1, S), or None.
        scale: factor of q·k.
        block: positions of a block, at least 1.
        first: global positions, 1 to `block`.

    Returns:
        (B, H, T, D).

    Raises:
        ValueError: blocks or global positions out of range, queries that are not the keys' positions, or a bias that
            differs from query to query or from head to head: such scores have no window.
    """
    if not 1 <= first <= block:
        raise ValueError(f"expected 1 to {block} global positions in blocks of {block}, found {first}")
    batch, heads, length, head_dim = k.shape
    row = key_bias(bias, k)  # (B or 1, 1, 1, S)
    if q.shape[2] <= first or (q.shape[2] == length and length <= 2 * block):
        return dense(q, k, v, bias, scale)
    if q.shape[2] != length:
        raise ValueError(f"sliding_window: expected as many queries as keys, found {q.shape[2]} and {length}")
    blocks = -(-length // block)
    missing = blocks * block - length
    queries = F.pad(q * scale, (0, 0, 0, missing)).reshape(batch * heads, blocks, block, head_dim)
    # A block of padding on either side, so that the outer blocks have neighbours, too.
    keys, values = (
        F.pad(x.reshape(batch * heads, length, head_dim), (0, 0, block, block + missing)) for x in (k, v)
    )  # (B*H, (blocks + 2) * block, D)
    # Padding is hidden, and in the windows the global positions, which would count twice.
    row = row.reshape(-1, length, 1)  # (B or 1, S, 1)
    hidden = F.pad(row[:, first:], (0, 0, block + first, block + missing), value=MASK_VALUE)
    if batch > 1 and row.shape[0] > 1:
        row, hidden = (x.repeat_interleave(heads, dim=0) for x in (row, hidden))
    out = [dense(q[:, :, :first], k, v, bias, scale)]
    # The loop runs over a static length, so that an export unrolls it.
    for start, end in spans(blocks, PART):
        part = slice(start * block, (end + 2) * block)
        seen = _seen(keys[:, block : block + first], keys[:, part], block)  # (B*H, part, first + 3 * block, D)
        scores = torch.matmul(queries[:, start:end], seen.transpose(2, 3))
        scores = scores + _seen(row[:, :first], hidden[:, part], block).transpose(2, 3)
        seen = _seen(values[:, block : block + first], values[:, part], block)
        local = torch.matmul(scores.softmax(dim=-1), seen)  # (B*H, part, block, D)
        own = slice(first if start == 0 else 0, min(end * block, length) - start * block)
        out.append(local.reshape(batch, heads, -1, head_dim)[:, :, own])
    return torch.cat(out, dim=2)


def _seen(shared: Tensor, padded: Tensor, block: int) -> Tensor:
    """What each inner block of (R, (n + 2) * block, D) sees: `shared` (R, first, D), and itself between its neighbours.

    Returns:
        (R, n, first + 3 * block, D).
    """
    blocks = padded.reshape(padded.shape[0], -1, block, padded.shape[2])
    for_all = shared[:, None].expand(-1, blocks.shape[1] - 2, -1, -1)
    return torch.cat([for_all, blocks[:, :-2], blocks[:, 1:-1], blocks[:, 2:]], dim=2)


# Approximate attention for long inputs: keys and values are averaged over segments before anything attends to them.


SEGMENTS = 128
"""Keys that are left. Inputs of at most so many positions come out exact."""


def linear(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, *, segments: int = SEGMENTS) -> Tensor:
    """Attention to means of keys and values: time and memory grow with T * segments, not with T * S.

    Linformer's (Wang et al. 2020, section 4), with its projection by mean pooling, which has no weights, so that any
    checkpoint can be swapped to it. Positions that the bias hides are left out of the means, and a mean counts as often
    as it has positions: where the keys of a segment are equal, the result is exact.

    Chosen over Performer's random features (FAVOR+, Choromanski et al. 2021), which are exact for no length: in MiniLM
    over 512 tokens each layer's output is 0.47 to 0.69 off in L2 norm, with 256 random features 0.68 to 0.98.

    Args:
        q: (B, H, T, D) float.
        k: (B, H, S, D).
        v: (B, H, S, D).
        bias: of keys, broadcastable to (B, 1, 1, S), or None: 0 for a position that is seen, `MASK_VALUE` for others.
        scale: factor of q·k.
        segments: at least 1.

    Returns:
        (B, H, T, D).

    Raises:
        ValueError: no segments, or a bias that differs from query to query or from head to head.
    """
    if segments < 1:
        raise ValueError(f"expected at least 1 segment, found {segments}")
    length = k.shape[2]
    row = key_bias(bias, k)  # (B or 1, 1, 1, S)
    size = math.ceil(length / segments)
    if size == 1:
        return dense(q, k, v, bias, scale)
    count = math.ceil(length / size)
    missing = count * size - length
    weights = F.pad(1 - row.reshape(-1, 1, length, 1) / MASK_VALUE, (0, 0, 0, missing))  # (B or 1, 1, S', 1)
    totals = _sums(weights, count, size)  # (B or 1, 1, segments, 1)
    positions = totals.clamp(min=1)
    keys, values = (_sums(F.pad(x, (0, 0, 0, missing)) * weights, count, size) / positions for x in (k, v))
    # The logarithm of how many positions a mean stands for, and nothing is seen of one that stands for none.
    means_bias = positions.log() + (1 - totals.clamp(max=1)) * MASK_VALUE
    return dense(q, keys, values, means_bias.transpose(2, 3), scale)


def _sums(x: Tensor, count: int, size: int) -> Tensor:
    """Sums (B, H, count, D) over the segments of (B, H, count * size, D)."""
    batch, heads, _, width = x.shape
    return x.reshape(batch * heads, count, size, width).sum(dim=2).reshape(batch, heads, count, width)
