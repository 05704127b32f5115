"""The likeliest next words after a text, which a keyboard offers.

A word is the tokens up to the one that begins something else, so its probability is that of its tokens one after the
other and of such a token behind them. Beginnings of words are followed likeliest first, and share the cache's slots as
beams do. No word is likelier than its beginning, so the first ones that are complete are the likeliest.
"""

from __future__ import annotations

import heapq
import itertools
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime.decoding.logit_rules import check_finite, softmax
from edgeformer_runtime.decoding.tokenizer import TextTokens
from edgeformer_runtime.engines.decoder import SEEN, Floats, TokenDecoder


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
