"""Variants of short commands, for a teacher to label: neighbouring words, slips, politeness, splices."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
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


# Augmentation of whole batches of small images as tensor operations: no worker processes, no image library.


@dataclass(frozen=True)
class Augmentation:
    """How far each image may move from itself. Distances and sizes are shares of the image's side.

    Attributes:
        shift: largest translation along each axis.
        zoom: largest change of scale, as a factor or its inverse.
        rotation_degrees: largest rotation.
        jitter: largest change of brightness, contrast and saturation, as a share.
        cutout: side of the square that is blanked in half of the images.
        mix: share of batches in which images are mixed in pairs, one half by mixup and one by cutmix.
    """

    shift: float = 0.125
    zoom: float = 1.2
    rotation_degrees: float = 12.0
    jitter: float = 0.3
    cutout: float = 0.4
    mix: float = 0.5


def transform(images: Tensor, size: int, spec: Augmentation, rng: torch.Generator) -> Tensor:
    """Flip, move, zoom, rotate, recolour and blank parts of a batch.

    Args:
        images: (B, 3, h, w) float32, 0 to 1.
        size: side of the result in pixels.
        spec: the limits.
        rng: source of every random number.

    Returns:
        (B, 3, size, size) float32, 0 to 1; blanked parts are mid-gray.
    """
    return _cut_out(_recolour(_move(images, size, spec, rng), spec, rng), spec, rng)


def _uniform(count: int, limit: float, rng: torch.Generator) -> Tensor:
    """(count,) in -limit to limit."""
    return (torch.rand(count, generator=rng) * 2 - 1) * limit


def _move(images: Tensor, size: int, spec: Augmentation, rng: torch.Generator) -> Tensor:
    """One bilinear sampling for the whole of flip, shift, zoom, rotation and resize, mirrored at the borders."""
    count = len(images)
    angle = _uniform(count, math.radians(spec.rotation_degrees), rng)
    zoom = torch.exp(_uniform(count, math.log(spec.zoom), rng))
    flip = (torch.rand(count, generator=rng) < 0.5).float() * 2 - 1
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    # grid_sample's coordinates run from -1 to 1, so a share of the side is twice that.
    shift = _uniform(2 * count, 2 * spec.shift, rng).reshape(count, 2)
    rows = torch.stack((cos * flip, -sin, shift[:, 0], sin * flip, cos, shift[:, 1]), dim=1)
    grid = F.affine_grid(rows.reshape(count, 2, 3), [count, images.shape[1], size, size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _recolour(images: Tensor, spec: Augmentation, rng: torch.Generator) -> Tensor:
    """Brightness as a factor, contrast about the image's mean, saturation about each pixel's gray."""
    brightness, contrast, saturation = 1 + _uniform(3 * len(images), spec.jitter, rng).reshape(3, -1, 1, 1, 1)
    gray = images.mean(dim=1, keepdim=True)
    images = torch.lerp(gray, images, saturation)
    mean = gray.mean(dim=(2, 3), keepdim=True)
    out: Tensor = torch.lerp(mean, images, contrast) * brightness
    return out.clamp(0, 1)


def _cut_out(images: Tensor, spec: Augmentation, rng: torch.Generator) -> Tensor:
    """Blank a square about a random point (DeVries and Taylor 2017) in half of the images."""
    count, _, height, width = images.shape
    half = spec.cutout / 2
    center = torch.rand(count, 2, generator=rng)
    chosen = torch.rand(count, generator=rng) < 0.5
    rows = ((torch.arange(height) + 0.5) / height - center[:, :1]).abs() < half  # (B, H)
    columns = ((torch.arange(width) + 0.5) / width - center[:, 1:]).abs() < half  # (B, W)
    blank = rows[:, :, None] & columns[:, None, :] & chosen[:, None, None]
    return images.masked_fill(blank[:, None], 0.5)
