"""Which tokens may come next: in a transcript (Radford et al. 2022, sections 2.3 and 4.5), and in generated text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime.bundle.specs import Transcription
from edgeformer_runtime.decoding.options import GenerateOptions
from edgeformer_runtime.engines.decoder import Floats
from edgeformer_runtime.errors import EngineError

NEVER = np.float32(-np.inf)
NOT_FINITE = "the decoder's logits hold NaN or infinity: run verify, or convert at a higher precision"


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
            raise EngineError(NOT_FINITE)
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


class Sampler:
    """Chooses the tokens of one generated text. Not for several threads at once.

    The order is that of transformers: repetition penalty, temperature, top-k, top-p.
    """

    def __init__(self, options: GenerateOptions) -> None:
        """Draw by the options, from their seed on."""
        self._options = options
        self._random = np.random.default_rng(options.seed)

    def choose(self, logits: Floats, said: Sequence[int]) -> int:
        """The next token.

        Args:
            logits: (V,) float32; they are not changed.
            said: the tokens of the prompt and of the text so far.
        """
        scores = self._penalized(logits, said)
        if self._options.temperature == 0:
            return int(scores.argmax())
        order, probabilities = self.distribution(scores)
        drawn = self._random.random() * probabilities.sum()
        return int(order[min(int(np.searchsorted(probabilities.cumsum(), drawn, side="right")), len(order) - 1)])

    def distribution(self, scores: Floats) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """The tokens that may be drawn, likeliest first, and their probabilities, which sum to 1.

        Args:
            scores: (V,), the repetition penalty applied.
        """
        options = self._options
        count = len(scores) if not options.top_k else min(options.top_k, len(scores))
        kept = np.argpartition(-scores, count - 1)[:count] if count < len(scores) else np.arange(len(scores))
        order = kept[np.argsort(-scores[kept], kind="stable")]
        probabilities = softmax(scores[order] / options.temperature)
        if options.top_p < 1:
            # A token stays where those before it have less than the share: the likeliest always does.
            before = np.concatenate(([0.0], probabilities.cumsum()[:-1]))
            probabilities = probabilities[: int((before < options.top_p).sum())]
            probabilities /= probabilities.sum()
        return order[: len(probabilities)], probabilities

    def _penalized(self, logits: Floats, said: Sequence[int]) -> Floats:
        penalty = np.float32(self._options.repetition_penalty)
        if penalty == 1 or not said:
            return logits
        scores = logits.copy()
        tokens = np.unique(np.asarray(said, np.intp))
        scores[tokens] = np.where(scores[tokens] < 0, scores[tokens] * penalty, scores[tokens] / penalty)
        return scores


def softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Probabilities of logits (N,), computed in float64."""
    exponents = np.exp(logits.astype(np.float64) - float(logits.max()))
    probabilities: NDArray[np.float64] = exponents / exponents.sum()
    return probabilities


def check_finite(logits: Floats) -> None:
    """Raises EngineError: logits hold NaN or infinity."""
    if not np.isfinite(logits).all():
        raise EngineError(NOT_FINITE)
