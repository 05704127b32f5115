"""Variants of short commands, for a teacher to label: neighbouring words, slips, politeness, splices."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

OPENINGS = (
    "please",
    "hey",
    "ok",
    "can you",
    "could you please",
    "i want to know",
    "tell me",
    "so",
    "hi",
    "i need to know",
)
CLOSINGS = ("please", "thanks", "right now", "for me", "today", "if you can", "thank you")
NEIGHBOURS = 12

_REPLACE, _DROP, _SWAP, _SLIP = 0.15, 0.06, 0.05, 0.02
"""Chances per word: a neighbour in the embedding space, nothing, the next word first, a slip of the finger."""


def word_neighbours(texts: Sequence[str], tokenizer: Tokenizer, embeddings: Tensor) -> dict[str, list[str]]:
    """For each word of `texts` that is one token, the words of `texts` nearest in cosine.

    Args:
        texts: lower-case sentences.
        tokenizer: WordPiece tokenizer of the embeddings.
        embeddings: (V, C) float32.
    """
    words = sorted({word for text in texts for word in text.split()})
    ids = {word: tokenizer.token_to_id(word) for word in words}
    known = [word for word in words if ids[word] is not None]
    vectors = F.normalize(embeddings[[ids[word] for word in known]], dim=1)
    nearest = (vectors @ vectors.T).topk(min(NEIGHBOURS + 1, len(known)), dim=1).indices.tolist()
    return {word: [known[n] for n in near if known[n] != word] for word, near in zip(known, nearest, strict=True)}


def variant(text: str, other: str, neighbours: Mapping[str, Sequence[str]], rng: random.Random) -> str:
    """A variant of `text`, with a part of `other` in some; never empty."""
    words = text.split()
    if rng.random() < 0.1:
        tail = other.split()
        words = words[: rng.randint(1, len(words))] + tail[rng.randint(0, len(tail) - 1) :]
    words = [changed for word in words if (changed := _change(word, neighbours, rng))] or words
    for i in range(len(words) - 1):
        if rng.random() < _SWAP:
            words[i], words[i + 1] = words[i + 1], words[i]
    if rng.random() < 0.12:
        words.insert(0, rng.choice(OPENINGS))
    if rng.random() < 0.08:
        words.append(rng.choice(CLOSINGS))
    return " ".join(words)


def _change(word: str, neighbours: Mapping[str, Sequence[str]], rng: random.Random) -> str:
    """The word, another, a misspelling, or nothing."""
    chance = rng.random()
    if chance < _REPLACE:
        return rng.choice(neighbours.get(word) or [word])
    if chance < _REPLACE + _DROP:
        return ""
    if chance < _REPLACE + _DROP + _SLIP and len(word) > 3:
        i = rng.randrange(len(word) - 1)
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    return word
