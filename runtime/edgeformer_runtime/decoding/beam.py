"""Beam search over slots of one cache: hypotheses share the rows of what they have in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeformer_runtime.decoding.greedy import Search
from edgeformer_runtime.decoding.hypothesis import Hypothesis
from edgeformer_runtime.decoding.rows import SEEN, Floats, free_rows


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
