"""Approximate attention for long inputs: each position sees its neighbourhood, and the first position sees all."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeformer.attention.dense import dense
from edgeformer.attention.mask import MASK_VALUE, key_bias

BLOCK = 64
"""Positions of a block. Each sees its own block and the two beside it: at least 64 positions to either side, and at
most 127."""

GLOBAL = 1
"""First positions that see all and that all see: the one whose output a classifier reads (Longformer, section 3.1)."""


def sliding_window(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, *, block: int = BLOCK, first: int = GLOBAL
) -> Tensor:
    """Self-attention within a sliding window, with global positions: time and memory grow with T, not with T * T.

    The window is BigBird's, in blocks (Zaheer et al. 2020, section 2 and appendix D), the global positions are
    Longformer's (Beltagy et al. 2020, section 3.1); BigBird's random blocks are left out. All blocks are one product of
    static shape, so nothing has to be gathered. Inputs of at most two blocks come out exact.

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
    keys, values = (_seen(x.reshape(batch * heads, length, head_dim), block, first) for x in (k, v))
    scores = torch.matmul(queries, keys.transpose(2, 3))  # (B*H, blocks, block, first + 3 * block)
    hidden = _seen_bias(row.reshape(-1, length), block, first)  # (B or 1, blocks, 1, first + 3 * block)
    if hidden.shape[0] > 1:
        hidden = hidden.repeat_interleave(heads, dim=0)
    local = torch.matmul((scores + hidden).softmax(dim=-1), values).reshape(batch, heads, blocks * block, head_dim)
    return torch.cat([dense(q[:, :, :first], k, v, bias, scale), local[:, :, first:length]], dim=2)


def _seen(x: Tensor, block: int, first: int) -> Tensor:
    """What each block sees of keys or values (R, S, D): (R, blocks, first + 3 * block, D)."""
    windows = _windows(F.pad(x, (0, 0, block, block + -x.shape[1] % block)), block)
    shared = x[:, None, :first].expand(-1, windows.shape[1], -1, -1)
    return torch.cat([shared, windows], dim=2)


def _seen_bias(row: Tensor, block: int, first: int) -> Tensor:
    """The bias of what each block sees, of keys' biases (R, S): (R, blocks, 1, first + 3 * block).

    What lies outside of the input is hidden, and in the windows the global positions, which would count twice.
    """
    length = row.shape[1]
    inner = F.pad(row[:, first:], (block + first, block + -length % block), value=MASK_VALUE)
    windows = _windows(inner[:, :, None], block)  # (R, blocks, 3 * block, 1)
    shared = row[:, None, :first, None].expand(-1, windows.shape[1], -1, -1)
    return torch.cat([shared, windows], dim=2).transpose(2, 3)


def _windows(padded: Tensor, block: int) -> Tensor:
    """Each inner block of (R, (blocks + 2) * block, D) between its neighbours: (R, blocks, 3 * block, D)."""
    parts = padded.reshape(padded.shape[0], -1, block, padded.shape[2])
    return torch.cat([parts[:, :-2], parts[:, 1:-1], parts[:, 2:]], dim=2)
