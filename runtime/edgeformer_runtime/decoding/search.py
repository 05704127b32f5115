"""Search for a transcript: what it finds, when it gives up on a loop, one hypothesis at a time, and several (beams)."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgeformer_runtime.bundle.specs import SpeechTokens
from edgeformer_runtime.decoding.logit_rules import LogitRules
from edgeformer_runtime.decoding.prompt import Context
from edgeformer_runtime.engines.decoder import SEEN, Floats, SpeechDecoder, free_rows


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


LONGEST_PERIOD = 40
REPEATS = 4
"""A loop is text that stands there so often in a row; refrains of songs rarely do."""
SHORTEST_LOOP = 16
"""Tokens that a loop has at least: "no no no no no" is said."""


def loop_period(tokens: Sequence[int], stretches: int = 0) -> int:
    """The period of the loop that the tokens end with, 0 if there is none.

    Costs a comparison per possible period where there is none, so that a decoder can ask after each token.

    Args:
        tokens: of text.
        stretches: of audio between pauses. Who says the same again and again pauses in between, so text that stands
            there no more often than that is no loop.
    """
    count = len(tokens)
    for period in range(1, min(LONGEST_PERIOD, count // REPEATS) + 1):
        if tokens[-1] != tokens[-1 - period]:
            continue
        needed = max(SHORTEST_LOOP, period * max(REPEATS, stretches + 1))
        if needed <= count and all(tokens[-i] == tokens[-i - period] for i in range(1, needed - period + 1)):
            return period
    return 0


PHRASE, TIMES = 5, 3
"""Tokens of a phrase, and how often it is said, by which a sampled text is doubted."""


def repeats_phrase(tokens: Sequence[int]) -> bool:
    """Whether a phrase of `PHRASE` tokens stands there `TIMES` times, wherever.

    Too little for a loop, and people say such things, but so does a model that is told another language than the one
    that is spoken: Whisper base, in float32 and with the whole window, gives English that is to be German as "was für
    ein Country du kannst" three times, at a good probability.
    """
    phrases = Counter(tuple(tokens[index : index + PHRASE]) for index in range(len(tokens) - PHRASE + 1))
    return any(count >= TIMES for count in phrases.values())


def compression_ratio(text: str) -> float:
    """Bytes of the text for each byte of its zlib stream; 0 for empty text. High values are repetitive."""
    raw = text.encode("utf-8")
    return len(raw) / len(zlib.compress(raw))


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


# Beam search over slots of one cache: hypotheses share the rows of what they have in common.


@dataclass(frozen=True, eq=False)
class _Beam:
    """A hypothesis that goes on, and what may follow it: log probabilities (V,) and where its last token looked."""

    tokens: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    score: float
    mask: Floats
    alignments: tuple[Floats, ...]
    next_log_probabilities: Floats
    alignment: Floats


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A beam and a token that may follow it."""

    score: float
    beam: _Beam
    token: int
    log_probability: float

    def hypothesis(self, ended: bool, looped: bool = False) -> Hypothesis:
        """The candidate as a result."""
        tokens = self.beam.tokens if ended else (*self.beam.tokens, self.token)
        return Hypothesis(tokens, self.log_probabilities, ended, looped, self.alignments)

    @property
    def log_probabilities(self) -> tuple[float, ...]:
        return (*self.beam.log_probabilities, self.log_probability)

    @property
    def alignments(self) -> tuple[Floats, ...]:
        return (*self.beam.alignments, self.beam.alignment)


def beam_search(search: Search, width: int, patience: float = 1.0) -> list[Hypothesis]:
    """The hypotheses that ended first, or stood when the tokens or rows ran out; rank them by `Hypothesis.score`.

    Args:
        search: what to search in.
        width: how many hypotheses are followed.
        patience: the search ends when round(patience * width) hypotheses have ended (Kasai et al. 2022, "A Call for
            Clarity in Beam Search").

    Raises:
        EngineError: the logits hold NaN or infinity.
    """
    context = search.context
    wanted = max(1, round(patience * width))
    beams = [_ruled(search, (), (), 0.0, context.mask, (), context.logits.copy(), context.alignment)]
    done: list[Hypothesis] = []
    stopped: list[_Candidate] = []
    while beams:
        ended, going_on = _best_candidates(search, beams, width)
        done += [candidate.hypothesis(ended=True) for candidate in ended][: wanted - len(done)]
        looping = [candidate for candidate in going_on if search.is_loop([*candidate.beam.tokens, candidate.token])]
        done += [candidate.hypothesis(ended=False, looped=True) for candidate in looping]
        going_on = [candidate for candidate in going_on if candidate not in looping]
        position = context.position + len(beams[0].tokens)
        if len(done) >= wanted or len(beams[0].tokens) + 1 >= search.max_tokens or position >= search.decoder.rows:
            stopped += going_on
            break
        rows = free_rows([candidate.beam.mask for candidate in going_on]) if going_on else []
        stopped += going_on[len(rows) :]  # the cache is full: they end here
        beams = [_step(search, candidate, position, row) for candidate, row in zip(going_on, rows, strict=False)]
    stopped.sort(key=lambda candidate: candidate.score, reverse=True)
    return done + [candidate.hypothesis(ended=False) for candidate in stopped[: max(0, width - len(done))]]


def _best_candidates(search: Search, beams: list[_Beam], width: int) -> tuple[list[_Candidate], list[_Candidate]]:
    """The likeliest candidates, best first: those that end, and at most `width` that go on.

    At most one candidate of a beam ends, so width + 1 of each beam are enough to have `width` that go on. They are
    taken out of the beams' log probabilities.
    """
    candidates = []
    for beam in beams:
        following = beam.next_log_probabilities
        # A few maxima one after the other are cheaper than a partial sort of the whole vocabulary.
        for _ in range(width + 1):
            token = int(following.argmax())
            log_probability = float(following[token])
            if log_probability == -np.inf:
                break
            candidates.append(_Candidate(beam.score + log_probability, beam, token, log_probability))
            following[token] = -np.inf
    candidates.sort(key=lambda candidate: candidate.score, reverse=True)
    ended, going_on = list[_Candidate](), list[_Candidate]()
    for candidate in candidates:
        (ended if candidate.token == search.tokens.end else going_on).append(candidate)
        if len(going_on) == width:
            break
    return ended, going_on


def _step(search: Search, candidate: _Candidate, position: int, row: int) -> _Beam:
    beam = candidate.beam
    output = search.decoder.step(candidate.token, position, row, beam.mask)
    mask = beam.mask.copy()
    mask[row] = SEEN
    return _ruled(
        search,
        (*beam.tokens, candidate.token),
        candidate.log_probabilities,
        candidate.score,
        mask,
        candidate.alignments if search.keep_alignments else (),
        output.logits.copy(),
        output.alignment.copy() if search.keep_alignments else output.alignment,
    )


def _ruled(
    search: Search,
    tokens: tuple[int, ...],
    log_probabilities: tuple[float, ...],
    score: float,
    mask: Floats,
    alignments: tuple[Floats, ...],
    logits: Floats,
    alignment: Floats,
) -> _Beam:
    """A beam with the rules applied to its logits (V,), in place."""
    search.rules.apply(logits, tokens)
    logits -= np.float32(search.rules.log_normalizer(logits, float(logits.max())))
    return _Beam(tokens, log_probabilities, score, mask, alignments, logits, alignment)
