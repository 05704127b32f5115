"""Work that ends when nobody wants its outcome any more: whoever does it asks now and then."""

from __future__ import annotations

from collections.abc import Callable

from edgeformer_runtime.engines.decoder import DecoderOutput, Floats, SpeechDecoder
from edgeformer_runtime.errors import EdgeFormerError

IsCancelled = Callable[[], bool]
"""Whether nobody wants the outcome any more. Called often, from the thread that works."""


class Cancelled(EdgeFormerError):
    """The work was given up before it was done, because its caller said so."""


def never() -> bool:
    """For callers that wait whatever it takes."""
    return False


def check(is_cancelled: IsCancelled) -> None:
    """Go on, or give up.

    Raises:
        Cancelled: nobody wants the outcome any more.
    """
    if is_cancelled():
        raise Cancelled("the work was given up: its caller no longer waits for it")


# A decoder that stops at its next step when nobody wants the text any more: a window may have thousands of them.


class CancellableDecoder:
    """Another decoder, asked before each of its calls; see `SpeechDecoder`."""

    def __init__(self, decoder: SpeechDecoder, is_cancelled: IsCancelled) -> None:
        """Watch over a decoder, which stays its owner's to close."""
        self._decoder = decoder
        self._is_cancelled = is_cancelled
        self.rows = decoder.rows
        self.prefill_tokens = decoder.prefill_tokens

    def encode(self, mel: Floats) -> None:
        """Hear a sound, unless cancelled."""
        check(self._is_cancelled)
        self._decoder.encode(mel)

    def step(self, token: int, position: int, row: int, mask: Floats) -> DecoderOutput:
        """Feed one token, unless cancelled."""
        check(self._is_cancelled)
        return self._decoder.step(token, position, row, mask)

    def prefill(
        self, tokens: list[int], position: int, row: int, mask: Floats, wanted: tuple[int, int]
    ) -> tuple[DecoderOutput, DecoderOutput]:
        """Feed several tokens, unless cancelled."""
        check(self._is_cancelled)
        return self._decoder.prefill(tokens, position, row, mask, wanted)

    def close(self) -> None:
        """Nothing: the decoder is its owner's."""
