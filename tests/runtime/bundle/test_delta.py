"""Deltas make the very bytes they were made for, pay where weights moved, and harm nobody who applies a foreign one."""

from __future__ import annotations

import bz2
import random
import struct
import zlib

import numpy as np
import pytest

from edgeformer_runtime.bundle.delta import apply_delta, make_delta
from edgeformer_runtime.errors import BundleError

RANDOM = np.random.default_rng(0)
WEIGHTS = (0.05 * RANDOM.standard_normal(5_000)).astype(np.float32)
HEAD, TAIL = RANDOM.bytes(1_000), RANDOM.bytes(700)
OLD = HEAD + WEIGHTS.tobytes() + TAIL
TUNED = (WEIGHTS + 1e-4 * RANDOM.standard_normal(5_000)).astype(np.float32)


@pytest.mark.parametrize(
    ("new", "most"),
    [
        (OLD, 200),
        (HEAD + RANDOM.bytes(400) + OLD[1_400:], 800),
        (OLD[:777] + b"inserted" + OLD[777:], 300),
        (OLD[5_000:], 300),
        (OLD + OLD, 400),
        (HEAD + TUNED.tobytes() + TAIL, 13_000),
        (HEAD[:500] + b"moved" * 8 + HEAD[500:] + TUNED.tobytes() + TAIL, 13_500),
        (RANDOM.bytes(20_000), 20_300),
        (b"short", 60),
        (b"", 60),
    ],
    ids=["same", "head", "inserted", "cut", "twice", "fine-tuned", "fine-tuned and moved", "other", "short", "empty"],
)
def test_what_a_delta_makes_and_takes(new: bytes, most: int) -> None:
    delta = make_delta(OLD, new)
    assert apply_delta(OLD, delta, len(new)) == new
    assert len(delta) < most
    assert apply_delta(b"", make_delta(b"", new), len(new)) == new


def test_any_two_files() -> None:
    chance = random.Random(1)
    for _ in range(150):
        old = bytes(chance.choices(range(chance.randint(1, 256)), k=chance.randrange(500)))
        piece = chance.randrange(len(old) + 1)
        new = (old[piece:] + chance.randbytes(chance.randrange(80)) + old[:piece])[: chance.randrange(700)]
        assert apply_delta(old, make_delta(old, new), len(new)) == new


def by_hand(width: int, runs: list[tuple[int, int]], planes: bytes, compression: str = "zlib") -> bytes:
    """As docs/delivery.md has it."""
    table = b"".join(struct.pack("<Qq", *run) for run in runs)
    compress = {"zlib": zlib.compress, "bzip2": bz2.compress}[compression]
    return f"edgeformer-delta-1 {compression}\n".encode() + compress(
        struct.pack("<BI", width, len(runs)) + table + planes
    )


@pytest.mark.parametrize("compression", ["zlib", "bzip2"])
def test_the_bytes_of_the_specification(compression: str) -> None:
    # Words of two bytes, little-endian: 0x0201 + 1, 0x0403 - 1, and 0x0005 behind zeros; zigzag has 2, 1 and 10.
    delta = by_hand(2, [(4, 1), (2, -1)], bytes([2, 1, 10, 0, 0, 0, 0, 0]), compression)
    assert apply_delta(bytes([9, 1, 2, 3, 4]), delta, 6) == bytes([2, 2, 2, 4, 5, 0])


@pytest.mark.parametrize(
    ("delta", "message"),
    [
        (b"", "expected one of version 1"),
        (b"edgeformer-delta-2 zlib\n", "expected one of version 1"),
        (b"edgeformer-delta-1 zlib\nnot compressed", "corrupted"),
        (b"edgeformer-delta-1 bzip2\nnot compressed", "corrupted"),
        (b"edgeformer-delta-1 none\n", "expected one of version 1"),
        (by_hand(1, [(8, 0)], bytes(8))[:-3], "expected a stream"),
        (by_hand(1, [(8, 0)], bytes(8)) + b"more", "expected a stream"),
        (b"edgeformer-delta-1 zlib\n" + zlib.compress(bytes(1 << 20)), "expected a stream"),
        (b"edgeformer-delta-1 zlib\n" + zlib.compress(b""), "expected a stream"),
        (b"edgeformer-delta-1 bzip2\n" + bz2.compress(bytes(1 << 20)), "expected a stream"),
        (by_hand(1, [(8, 0)], bytes(8), "bzip2")[:-3], "expected a stream"),
        (by_hand(3, [(8, 0)], bytes(8)), "expected 8 bytes of differences"),
        (by_hand(1, [(8, 0)], bytes(7)), "expected 8 bytes of differences"),
        (by_hand(1, [(8, 13)], bytes(8)), "lies outside a file"),
        (by_hand(1, [(8, -2)], bytes(8)), "lies outside a file"),
        (by_hand(1, [(1 << 63, 0)], bytes(8)), "lies outside a file"),
        (by_hand(1, [(7, 0)], bytes(8)), "its runs have 7 bytes"),
    ],
)
def test_hostile_deltas(delta: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        apply_delta(bytes(20), delta, 8)


def test_damaged_deltas() -> None:
    """They are refused, or make something of the right size, whose hash is compared then."""
    chance = random.Random(2)
    delta = bytearray(make_delta(OLD, OLD[:3_000] + OLD[3_100:]))
    for _ in range(300):
        damaged = bytearray(delta)
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            made = apply_delta(OLD, bytes(damaged), len(OLD) - 100)
        except BundleError:
            continue
        assert len(made) == len(OLD) - 100
