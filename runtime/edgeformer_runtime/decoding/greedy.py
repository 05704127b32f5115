"""One hypothesis, token by token: the likeliest each time, or drawn by chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgeformer_runtime.bundle.specs import SpeechTokens
from edgeformer_runtime.decoding.hypothesis import Hypothesis
from edgeformer_runtime.decoding.logit_rules import LogitRules
from edgeformer_runtime.decoding.prompt import Context
from edgeformer_runtime.decoding.repetition import loop_period
from edgeformer_runtime.decoding.rows import SEEN, Floats
from edgeformer_runtime.engines.decoder import SpeechDecoder

Pick = Callable[[Floats], int]
"""Chooses a token from logits (V,) whose forbidden ones are -inf."""


@dataclass(frozen=True, eq=False)
class Search:
    """What every search of one window works with.

    Attributes:
        decoder: has encoded the audio and been fed the prompt.
        context: the prompt.
        rules: what may follow.
        tokens: of the manifest.
        max_tokens: the longest hypothesis; the slots of the cache may end it sooner.
        keep_alignments: whether hypotheses get their alignments.
        stop_loops: whether a hypothesis ends when it repeats itself.
        stretches: of the window's audio between pauses; see `loop_period`.
    """

    decoder: SpeechDecoder
    context: Context
    rules: LogitRules
    tokens: SpeechTokens
    max_tokens: int
    keep_alignments: bool
    stop_loops: bool = True
    stretches: int = 0

    def is_loop(self, said: list[int]) -> bool:
        """Whether text has begun to repeat itself; timestamps in between do not matter."""
        if not self.stop_loops or said[-1] >= self.tokens.first_timestamp:
            return False
        return loop_period([token for token in said if token < self.tokens.first_timestamp], self.stretches) > 0

    def is_said_repeatedly(self, found: Hypothesis) -> bool:
        """Whether a hypothesis ends with repetitions that the audio has room for, and the model came to its end."""
        said = [token for token in found.tokens if token < self.tokens.first_timestamp]
        return found.ended and loop_period(said) > 0


def likeliest(logits: Floats) -> int:
    """The token of the largest logit (V,)."""
    return int(logits.argmax())


def sampler(temperature: float, generator: np.random.Generator) -> Pick:
    """Draws tokens with probabilities softmax(logits / temperature)."""

    def pick(logits: Floats) -> int:
        exponents = np.exp((logits - logits.max()) / np.float32(temperature))
        cumulated = np.cumsum(exponents, dtype=np.float64)
        drawn = (1 - generator.random()) * cumulated[-1]  # above 0, so that no forbidden token can be hit
        return int(np.searchsorted(cumulated, drawn))

    return pick


def follow(search: Search, pick: Pick) -> Hypothesis:
    """Decode one hypothesis. Its tokens lie in the rows behind the prompt, so that a row is a position.

    Raises:
        EngineError: the logits hold NaN or infinity.
    """
    decoder, context, rules = search.decoder, search.context, search.rules
    mask = context.mask.copy()
    logits, alignment = context.logits.copy(), context.alignment
    said: list[int] = []
    log_probabilities: list[float] = []
    alignments: list[Floats] = []
    ended = looped = False
    position = context.position
    while True:
        rules.apply(logits, said)
        token = pick(logits)
        chosen = float(logits[token])
        largest = chosen if pick is likeliest else float(logits.max())
        log_probabilities.append(chosen - rules.log_normalizer(logits, largest))
        if search.keep_alignments:
            alignments.append(alignment.copy())
        if token == search.tokens.end:
            ended = True
            break
        said.append(token)
        looped = search.is_loop(said)
        if looped or len(said) >= search.max_tokens or position >= decoder.rows:
            break
        output = decoder.step(token, position, position, mask)
        logits, alignment = output.logits, output.alignment
        mask[position] = SEEN
        position += 1
    return Hypothesis(tuple(said), tuple(log_probabilities), ended, looped, tuple(alignments))
