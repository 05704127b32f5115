"""Which tokens may come next (Radford et al. 2022, sections 2.3 and 4.5)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime.bundle.specs import Transcription
from edgeformer_runtime.engines.decoder import Floats
from edgeformer_runtime.errors import EngineError

NEVER = np.float32(-np.inf)


class LogitRules:
    """Rules for one transcript at a time, in place on logits (V,). Not for several threads at once.

    The vocabulary is in the order of all Whisper models: text, the end, other special tokens, timestamps.
    With timestamps these come in pairs, except before the end; never fall; and are taken as soon as all of them
    together are likelier than any one text token.
    """

    def __init__(self, spec: Transcription, timestamps: bool) -> None:
        """Take the tokens from the manifest; `timestamps` says whether times are asked for."""
        tokens = spec.tokens
        self._end = tokens.end
        self._first_timestamp = tokens.first_timestamp
        self._timestamps = timestamps
        self._latest_start = tokens.first_timestamp + round(spec.max_initial_timestamp / spec.seconds_per_timestamp)
        self._suppressed = np.array(spec.suppress, dtype=np.intp)
        self._suppressed_at_start = np.array(spec.suppress_at_start, dtype=np.intp)
        self._scratch = np.empty(spec.vocab_size, np.float32)

    def apply(self, logits: Floats, said: Sequence[int]) -> None:
        """Set the logits (V,) of tokens that may not follow the tokens `said` (without the prompt) to -inf."""
        logits[self._suppressed] = NEVER
        logits[self._end + 1 : self._first_timestamp if self._timestamps else None] = (
            NEVER  # they stand in prompts only
        )
        if not said:
            logits[self._suppressed_at_start] = NEVER
        if self._timestamps:
            self._apply_timestamps(logits, said)

    def log_normalizer(self, logits: Floats, largest: float) -> float:
        """The log of the sum of exp(logits), which turns logits (V,) into log probabilities; float32 inside.

        Args:
            logits: after `apply`.
            largest: their largest.

        Raises:
            EngineError: the logits hold NaN or infinity.
        """
        result = self._log_sum(logits, largest)
        if not math.isfinite(result):
            raise EngineError("the decoder's logits hold NaN or infinity: run verify, or convert at a higher precision")
        return result

    def _apply_timestamps(self, logits: Floats, said: Sequence[int]) -> None:
        first = self._first_timestamp
        if not said:
            logits[:first] = NEVER
            logits[self._latest_start + 1 :] = NEVER
            return
        ends_in_time = said[-1] >= first
        ends_in_pair = ends_in_time and (len(said) < 2 or said[-2] >= first)
        if ends_in_pair:
            logits[first:] = NEVER
        elif ends_in_time:
            logits[: self._end] = NEVER
        latest = next((token for token in reversed(said) if token >= first), None)
        if latest is not None:
            # A segment that has begun may not end where it starts; the one that follows may begin where it ended.
            logits[first : latest if ends_in_time and not ends_in_pair else latest + 1] = NEVER
        self._prefer_timestamps(logits)

    def _prefer_timestamps(self, logits: Floats) -> None:
        text, times = logits[: self._first_timestamp], logits[self._first_timestamp :]
        latest = float(times.max())
        if latest > NEVER and self._log_sum(times, latest) > text.max():
            text[:] = NEVER

    def _log_sum(self, logits: NDArray[np.float32], largest: float) -> float:
        scratch = self._scratch[: len(logits)]
        with np.errstate(invalid="ignore"):  # NaN shows in the sum
            np.subtract(logits, np.float32(largest), out=scratch)
            np.exp(scratch, out=scratch)
        total = float(scratch.sum())
        return largest + math.log(total) if total > 0 else math.nan
