"""A decoder that stops at its next step when nobody wants the text any more: a window may have thousands of them."""

from __future__ import annotations

from edgeformer_runtime.cancellation import IsCancelled, check
from edgeformer_runtime.engines.decoder import DecoderOutput, Floats, SpeechDecoder


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
