"""The additive mask that hides padding from attention, and which one a model's scores need."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

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
