"""Which tokens may come next: in transcripts (Radford et al. 2022, sections 2.3, 4.5), in generated text, in words."""

from __future__ import annotations

import heapq
import itertools
import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime.bundle.specs import Transcription
from edgeformer_runtime.decoding.options import GenerateOptions
from edgeformer_runtime.decoding.tokenizer import TextTokens
from edgeformer_runtime.engines.decoder import SEEN, Floats, TokenDecoder
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


# The likeliest next words after a text, which a keyboard offers.
#
# A word is the tokens up to the one that begins something else, so its probability is that of its tokens one after
# the other and of such a token behind them. Beginnings of words are followed likeliest first, and share the cache's
# slots as beams do. No word is likelier than its beginning, so the first ones that are complete are the likeliest.


@dataclass(frozen=True)
class Suggestion:
    """A word that may come next, without spaces, and its probability among those that begin with what is typed."""

    word: str
    probability: float


_TYPED = re.compile(r" ?[\w'\u2019-]*\Z")
_INSIDE = "'\u2019-"
"""Marks that words have inside."""
_RUNS_PER_WORD, _MORE_RUNS = 2, 6
"""Of the model, at most: what is likeliest so far is the answer then."""
_CHILDREN = 64
"""Of a beginning, the likeliest: the others cannot be among few suggestions."""


def split_typed(text: str) -> tuple[str, str]:
    """A text up to the word that is being typed, and that word with the space before it.

    >>> split_typed("see you tom")
    ('see you', ' tom')
    """
    place = _TYPED.search(text)
    assert place is not None
    return text[: place.start()], place[0]


class Vocabulary:
    """What tokens do at a word's border, for a whole vocabulary."""

    def __init__(self, tokens: TextTokens, size: int, ends: Sequence[int]) -> None:
        """Look at each of `size` tokens once."""
        self.bytes = [tokens.bytes_of(token) for token in range(size)]
        self.continues = np.array([_is_inside(each) for each in self.bytes])
        """(V,): a word goes on with it."""
        self.begins = np.array([_is_inside(each.removeprefix(b" ")) for each in self.bytes])
        """(V,): a word begins with it, with or without a space."""
        self.closes = np.array(
            [bool(each) and not inside for each, inside in zip(self.bytes, self.continues, strict=True)]
        )
        """(V,): it ends the word before it."""
        self.closes[list(ends)] = True

    def fitting(self, written: bytes, typed: bytes) -> NDArray[np.bool_]:
        """(V,): the tokens behind some bytes of a word that agree with what is typed."""
        rest = typed[len(written) :]
        allowed = self.continues if written.strip() else self.begins
        if not rest:
            return allowed
        agree = [each.startswith(rest) or (bool(each) and rest.startswith(each)) for each in self.bytes]
        space = np.array([each == b" " for each in self.bytes])
        fitting: NDArray[np.bool_] = np.array(agree) & (allowed | space)
        return fitting


def _is_inside(written: bytes) -> bool:
    """Whether bytes are all of words; those that are only a part of a character are."""
    text = written.decode("utf-8", "ignore")
    return bool(written) and all(
        letter.isalnum() or letter in _INSIDE or unicodedata.category(letter)[0] == "M" for letter in text
    )


@dataclass(frozen=True, eq=False)
class Branch:
    """The beginning of a word.

    Attributes:
        tokens: of it.
        written: their bytes.
        probability: of all of them.
        mask: (L,) float32, what its last token sees.
        logits: (V,) float32, what follows; None: nobody asked yet.
    """

    tokens: tuple[int, ...]
    written: bytes
    probability: float
    mask: Floats
    logits: Floats | None = None


class Branches:
    """Beginnings of words behind a text, in the slots of a cache that are free."""

    def __init__(self, decoder: TokenDecoder, start: int, root: Branch) -> None:
        """Behind a text of `start` tokens."""
        self.root = root
        self._decoder = decoder
        self._start = self._row = start

    @property
    def is_full(self) -> bool:
        """Whether no slot is free."""
        return self._row >= self._decoder.rows

    def run(self, branch: Branch) -> Branch:
        """The branch with what follows it, which its children see in its mask."""
        if branch.logits is not None:
            return branch
        place = self._start + len(branch.tokens) - 1
        logits = self._decoder.step(branch.tokens[-1], place, self._row, branch.mask).logits.copy()
        check_finite(logits)
        mask = branch.mask.copy()
        mask[self._row] = SEEN
        self._row += 1
        return replace(branch, mask=mask, logits=logits)


def next_words(
    branches: Branches, vocabulary: Vocabulary, typed: str, count: int, check: Callable[[], None]
) -> list[Suggestion]:
    """The likeliest words that begin with what is typed, `count` at most, likeliest first; see `split_typed`.

    `check` is called before each run of the model, and may raise.
    """
    prefix = typed.encode()
    order = itertools.count()  # equal probabilities are taken in the order of their finding
    waiting: list[tuple[float, int, Branch | str]] = [(-1.0, next(order), branches.root)]
    found: dict[str, float] = {}
    runs = _RUNS_PER_WORD * count + _MORE_RUNS
    while waiting and len(found) < count:
        check()
        value, _, branch = heapq.heappop(waiting)
        if isinstance(branch, str):
            found.setdefault(branch, -value)  # the likeliest of the ways to write it
            continue
        if branch.logits is None and (runs == 0 or branches.is_full):
            break
        runs -= branch.logits is None
        branch = branches.run(branch)
        assert branch.logits is not None
        follows = softmax(branch.logits)
        word = branch.written.decode("utf-8", "ignore").strip()
        if len(branch.written) >= len(prefix) and any(letter.isalnum() for letter in word):
            ended = branch.probability * float(follows[vocabulary.closes].sum())
            heapq.heappush(waiting, (-ended, next(order), word))
        possible = np.where(vocabulary.fitting(branch.written, prefix), follows, 0.0)
        for token in np.argsort(-possible, kind="stable")[:_CHILDREN].tolist():
            if possible[token] > 0:
                probability = branch.probability * float(possible[token])
                child = Branch(
                    (*branch.tokens, token), branch.written + vocabulary.bytes[token], probability, branch.mask
                )
                heapq.heappush(waiting, (-probability, next(order), child))
    total = sum(found.values()) - sum(value for value, _, _ in waiting)
    return [Suggestion(word, probability / total) for word, probability in found.items()] if total > 0 else []
