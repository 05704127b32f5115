"""What a search finds: tokens with their probabilities."""

from __future__ import annotations

from dataclasses import dataclass

from edgeformer_runtime.decoding.rows import Floats


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """A transcript of one window.

    Attributes:
        tokens: text and timestamps, without prompt and end.
        log_probabilities: of each token, and of the end where it was reached.
        ended: the model said that the transcript is complete.
        looped: the search gave up since the same text came again and again.
        alignments: (A, T) float32 for each entry of `log_probabilities`: where in the audio the decoder looked when
            it said so. Empty where nobody asked for them.
    """

    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    ended: bool
    looped: bool
    alignments: tuple[Floats, ...] = ()

    @property
    def log_probability(self) -> float:
        """Of the whole."""
        return sum(self.log_probabilities)

    @property
    def mean_log_probability(self) -> float:
        """Per token, the end counted as one even if it was not reached."""
        return self.log_probability / (len(self.tokens) + 1)

    def score(self, length_penalty: float | None) -> float:
        """What hypotheses are ranked by: the log probability per length, or Wu et al. 2016, equation 14."""
        length = max(1, len(self.tokens))
        return self.log_probability / (length if length_penalty is None else ((5 + length) / 6) ** length_penalty)
