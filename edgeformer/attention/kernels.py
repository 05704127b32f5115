"""The attention mask, and the kernels: exact ones, each shaped for one kind of target, and approximate ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from edgeformer.attention import AttentionKernel

MASK_VALUE = -1000.0
"""What a hidden position adds to its score, unless a model's scores spread too far for it.

Finite, so that no -inf or NaN meets a converter: exp(-1000 + x) is 0 in float32 and in float16 for every spread x of
scores below 900. 65 times inside float16's range (65504), where the usual -1e9 or float32's minimum turn into -inf and
break MobileBERT. Scores stay floating point at every precision of ours, so no int8 step has to span it.
"""

EXACT_MASK = -1e30
"""Hides as minus infinity does, in float32, whatever the scores are: what references are computed with."""

_WIDER = (-3000.0, -10000.0, -30000.0)
_BEYOND_HALF = -1e9
_UNDERFLOW = 104.0
"""exp(-104) is 0 in float32."""
_UNSEEN = 2.0
"""How much farther than on the recorded samples scores may go on other texts."""
_LARGEST_HALF = 65504.0


@dataclass(frozen=True)
class ScoreRange:
    """The scores of a model's attention on recorded samples, before the mask.

    Attributes:
        spread: the largest distance between two scores of one query.
        largest: the largest absolute score.
    """

    spread: float = 0.0
    largest: float = 0.0

    @property
    def mask(self) -> float:
        """The smallest mask that hides, with room for texts that were not seen."""
        needed = _UNSEEN * self.spread + _UNDERFLOW
        return next((value for value in (MASK_VALUE, *_WIDER) if needed <= -value), _BEYOND_HALF)

    @property
    def hides(self) -> bool:
        """Whether any mask does; scores that are not finite have none."""
        return _UNSEEN * self.spread + _UNDERFLOW <= -self.mask

    @property
    def fits_float16(self) -> bool:
        """Whether the scores with that mask stay inside float16."""
        return _UNSEEN * self.largest - self.mask <= _LARGEST_HALF


def additive_mask(attention_mask: Tensor, value: float | None = None) -> Tensor:
    """Turn attention_mask (B, S) int32, 1 for tokens and 0 for padding, into a bias (B, 1, 1, S) float32.

    Plain arithmetic only: `where`, `masked_fill` and `new_ones` are what converters stumble over.

    Args:
        attention_mask: see above.
        value: what a hidden position adds; None: `MASK_VALUE`.
    """
    batch, seq_len = attention_mask.shape
    hidden = MASK_VALUE if value is None else value
    return ((1.0 - attention_mask.float()) * hidden).reshape(batch, 1, 1, seq_len)


def spans(length: int, size: int) -> list[tuple[int, int]]:
    """Start and end of each stretch of at most `size` positions.

    The last one ends where the tensor does: readers of bundles refuse a model file whose slices reach beyond.
    """
    return [(start, min(start + size, length)) for start in range(0, length, size)]


def bias_rows(bias: Tensor | None, start: int, end: int) -> Tensor | None:
    """The bias of the queries from `start` to before `end`; one row stands for all of them."""
    if bias is None or bias.dim() < 2 or bias.shape[-2] == 1:
        return bias
    return bias[..., start:end, :]


def key_bias(bias: Tensor | None, k: Tensor) -> Tensor:
    """A bias of keys alone, (B or 1, 1, 1, S) for keys k (B, H, S, D); zeros for None.

    Raises:
        ValueError: it differs from query to query, or from head to head.
    """
    length = k.shape[2]
    if bias is None:
        return k[:1, :1, :, 0].reshape(1, 1, 1, length) * 0.0
    row = bias.reshape((1,) * (4 - bias.dim()) + tuple(bias.shape))
    if row.shape[1:] != (1, 1, length):
        raise ValueError(
            f"expected a bias of {length} keys, alike for all queries and heads, found {tuple(bias.shape)}"
        )
    return row


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
    """Scaled queries (B, H, t, D) to (B, H, t, D), or the head dim of values that have another one."""
    batch, heads, query_len, head_dim = queries.shape
    key_len = k.shape[2]
    rows = batch * heads
    keys = k.reshape(rows, key_len, head_dim)  # (B*H, S, D)
    values = v.reshape(rows, key_len, v.shape[3])  # (B*H, S, D)
    # Each part turns the keys over anew: with keys turned once for all, LiteRT holds all parts' scores at a time.
    scores = torch.bmm(queries.reshape(rows, query_len, head_dim), keys.transpose(1, 2))  # (B*H, t, S)
    if bias is not None:
        scores = _add_bias(scores, bias, batch)
    return torch.bmm(scores.softmax(dim=-1), values).reshape(batch, heads, query_len, v.shape[3])


def _add_bias(scores: Tensor, bias: Tensor, batch: int) -> Tensor:
    """Scores (B*H, T, S) plus bias."""
    rows, query_len, key_len = scores.shape
    bias = bias.reshape((1,) * (4 - bias.dim()) + tuple(bias.shape))
    if batch == 1:
        # Three dimensions all the way: a reshape to (B, H, T, S) and back would cut XNNPACK's partition in two.
        return scores + bias.reshape(bias.shape[1:])
    return (scores.reshape(batch, rows // batch, query_len, key_len) + bias).reshape(rows, query_len, key_len)


ANY_LENGTH: dict[AttentionKernel, int] = {dense: MAX_QUERIES}
"""Kernels that compute alike for every length up to so many positions: an export need not know which one it is."""


# Attention as the one operator that Core ML keeps whole from iOS 18 on.


def fused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """Scaled dot-product attention through F.scaled_dot_product_attention. Shapes as in `AttentionKernel`."""
    # coremltools keeps one operator only for the default scale 1/sqrt(D): any other goes into q.
    ratio = scale * math.sqrt(q.shape[-1])
    if not math.isclose(ratio, 1.0, rel_tol=1e-9):
        q = q * ratio
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


# Attention in the layout of Apple's Neural Engine: channels first, one small product per head.
#
# Follows the principles of "Deploying Transformers on the Apple Neural Engine" (Apple, 2022): data as (B, C, 1, S), so
# that the sequence lies on the 64-byte aligned last axis, and heads as separate products that fit the cache better.


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


# Exact attention in bounded memory: blocks of queries, and an online softmax over blocks of keys.


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
        _attend_in_blocks(q[:, :, start:end] * scale, k, v, bias_rows(bias, start, end), key_block)
        for start, end in spans(q.shape[2], query_block)
    ]
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=2)


def _attend_in_blocks(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, key_block: int) -> Tensor:
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


# Approximate attention for long inputs: each position sees its neighbourhood, and the first position sees all.

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
