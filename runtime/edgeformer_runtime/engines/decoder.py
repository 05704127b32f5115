"""What a speech pipeline sees of an engine: encode once, then tokens in, logits out; the caches stay inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class DecoderOutput:
    """What follows a token.

    Attributes:
        logits: (V,) float32, the caller's to change until the next call.
        alignment: (A, T) float32, attention of the alignment heads from this token to the audio; rows do not sum to 1
            where silence stands in for a part of the window.
    """

    logits: Floats
    alignment: Floats


class SpeechDecoder(Protocol):
    """One bucket's programs with their caches. Not for several threads at once.

    The self-attention cache has L rows, each of which holds one token that was fed. A hypothesis is the set of rows
    that its tokens lie in: `mask` (L,) float32 holds 0 for these and a large negative number for all others. So
    greedy decoding uses row = position, and beams share the rows of what they have in common: nothing is ever copied.
    """

    rows: int
    """L."""

    prefill_tokens: int
    """P, the most tokens that `prefill` takes."""

    def encode(self, mel: Floats) -> None:
        """Encode a recording; everything fed before is forgotten. mel: (1, n_mels, 2 T) float32."""

    def step(self, token: int, position: int, row: int, mask: Floats) -> DecoderOutput:
        """Feed one token, written to `row`; it sees the rows of `mask` and itself."""

    def prefill(
        self, tokens: list[int], position: int, row: int, mask: Floats, wanted: tuple[int, int]
    ) -> tuple[DecoderOutput, DecoderOutput]:
        """Feed up to P tokens at once: the first at `position` into `row`, the others right behind it.

        Each sees the rows of `mask`, those before it in this call, and itself.

        Returns:
            What follows the tokens number wanted[0] and wanted[1] of this call. Only the second has an alignment;
            the first one's is empty, (A, 0).
        """

    def close(self) -> None:
        """Release the caches. A second call does nothing."""
