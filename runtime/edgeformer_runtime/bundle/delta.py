"""Deltas: what makes a file from one that a device has already; made here, too, by who publishes.

A new file is cut into runs, and each has its place in the old one (or none, where zeros stand for it). Runs
that follow one another are found by blocks of equal bytes. What is compressed is the difference, word by word: zero
where both are alike, and small where a weight moved a little, which leaves whole planes of bytes empty. bsdiff
(Percival 2003) subtracts bytes alike; the words, and their planes, are what weights gain by.
"""

from __future__ import annotations

import bz2
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime.bundle.site import MAX_DELTA_BYTES
from edgeformer_runtime.errors import BundleError

Bytes = NDArray[np.uint8]

_LINE = b"edgeformer-delta-1 %s\n"
_COMPRESS: dict[bytes, Callable[[bytes], bytes]] = {b"zlib": partial(zlib.compress, level=9), b"bzip2": bz2.compress}
"""bzip2 is the smaller one where few words differ, and zlib is everywhere."""
_HEAD = struct.Struct("<BI")  # width of a word in bytes, number of runs
_RUN = struct.Struct("<Qq")  # length in bytes, offset in the old file or -1
_BLOCK = 64
_WIDTHS = (1, 2, 4)
_BASE = 0x9E3779B97F4A7C15  # of hashes; odd, so that no byte's weight vanishes modulo 2^64
_FILTER_BITS = 22
_CHUNK_BYTES = 1 << 22
_NOWHERE = -(1 << 62)


def apply_delta(old: bytes, delta: bytes, size: int) -> bytes:
    """The file that a delta makes.

    Args:
        old: the file that it was made for.
        delta: as `make_delta` gives it, from an untrusted place.
        size: the bytes that the new file is to have.

    Raises:
        BundleError: it is no delta for such files. (Whether the right file came out, its hash tells.)
    """
    payload = _inflated(delta, size)
    width, count = _HEAD.unpack_from(payload)
    start = _HEAD.size + _RUN.size * count
    padded = -(-size // 4) * 4
    if width not in _WIDTHS or len(payload) != start + padded:
        raise BundleError(f"delta: expected {padded} bytes of differences behind {count} runs, found {len(payload)}")
    base, place = np.zeros(padded, np.uint8), 0
    source = np.frombuffer(old, np.uint8)
    for length, offset in _RUN.iter_unpack(payload[_HEAD.size : start]):
        if length > size - place or offset < -1 or (offset >= 0 and offset + length > len(source)):
            raise BundleError(f"delta: a run of {length} bytes at {offset} lies outside a file")
        if offset >= 0:
            base[place : place + length] = source[offset : offset + length]
        place += length
    if place != size:
        raise BundleError(f"delta: its runs have {place} bytes: expected {size}")
    planes = np.frombuffer(payload, np.uint8, padded, start).reshape(width, -1)
    zigzag = np.ascontiguousarray(planes.T).reshape(-1).view(f"<u{width}")
    difference = (zigzag >> 1) ^ (-(zigzag & 1)).astype(zigzag.dtype)
    made: Bytes = (base.view(f"<u{width}") + difference).view(np.uint8)
    return made[:size].tobytes()


def _inflated(delta: bytes, size: int) -> bytes:
    """What was compressed, which is no more than runs and differences of that size can be."""
    name = next((each for each in _COMPRESS if delta.startswith(_LINE % each)), None)
    if name is None or size > MAX_DELTA_BYTES:
        raise BundleError("delta: expected one of version 1, for a file that is not too large")
    most = _HEAD.size + 3 * _RUN.size * (size // _BLOCK + 1) + size + 3
    reader = zlib.decompressobj() if name == b"zlib" else bz2.BZ2Decompressor()
    try:
        payload = reader.decompress(delta[len(_LINE % name) :], most + 1)
    except (zlib.error, OSError) as error:
        raise BundleError(f"delta: corrupted: {error}") from None
    if not reader.eof or reader.unused_data or len(payload) < _HEAD.size:
        raise BundleError(f"delta: expected a stream of at most {most} bytes that ends with it")
    return payload


def make_delta(old: bytes, new: bytes) -> bytes:
    """A delta that makes a file from another one, which may be empty, by the width of a word that compresses best."""
    runs = list(_runs(np.frombuffer(old, np.uint8), np.frombuffer(new, np.uint8)))
    padded = -(-len(new) // 4) * 4
    base, target, place = np.zeros(padded, np.uint8), np.zeros(padded, np.uint8), 0
    target[: len(new)] = np.frombuffer(new, np.uint8)
    for length, offset in runs:
        if offset >= 0:
            base[place : place + length] = np.frombuffer(old, np.uint8)[offset : offset + length]
        place += length
    table = b"".join(_RUN.pack(*run) for run in runs)
    payloads = []
    for width in _WIDTHS:
        difference = target.view(f"<u{width}") - base.view(f"<u{width}")
        sign = difference >> (8 * width - 1)
        zigzag = (difference << 1) ^ (-sign.astype(difference.dtype))
        planes = np.ascontiguousarray(zigzag.view(np.uint8).reshape(-1, width).T)
        payloads.append(_HEAD.pack(width, len(runs)) + table + planes.tobytes())
    payload = min(payloads, key=lambda each: len(zlib.compress(each, 1)))
    return min((_LINE % name + compress(payload) for name, compress in _COMPRESS.items()), key=len)


def _runs(old: Bytes, new: Bytes) -> Iterator[tuple[int, int]]:
    """Lengths that make up the new file, each with its offset in the old one, or -1."""
    blocks = -(-len(new) // _BLOCK)
    if not blocks:
        return
    shifts = _shifts(old, new, blocks)
    bounds = [0, *(np.flatnonzero(np.diff(shifts)) + 1).tolist(), blocks]
    for first, last in pairwise(bounds):
        begin, end = first * _BLOCK, min(last * _BLOCK, len(new))
        shift = int(shifts[first])
        low = min(max(begin, -shift), end)  # of what lies inside the old file
        high = min(max(len(old) - shift, low), end)
        for length, offset in ((low - begin, -1), (high - low, low + shift), (end - high, -1)):
            if length:
                yield length, offset


def _shifts(old: Bytes, new: Bytes, blocks: int) -> NDArray[np.int64]:
    """For each block of the new file how far behind it the old one has its like; (blocks,)."""
    matched = np.full(blocks, _NOWHERE, np.int64)
    whole = min(len(old), len(new)) // _BLOCK
    same = (old[: whole * _BLOCK].reshape(whole, _BLOCK) == new[: whole * _BLOCK].reshape(whole, _BLOCK)).all(1)
    matched[:whole][same] = 0
    left = np.flatnonzero(matched[: len(new) // _BLOCK] == _NOWHERE)
    if len(left) and len(old) >= _BLOCK:
        wanted = _block_hashes(new[: len(new) // _BLOCK * _BLOCK].reshape(-1, _BLOCK)[left])
        order = np.argsort(wanted, kind="stable")
        keys = wanted[order]
        seen = np.zeros(1 << _FILTER_BITS, np.bool_)
        seen[keys >> np.uint64(64 - _FILTER_BITS)] = True
        for start in range(0, len(old) - _BLOCK + 1, _CHUNK_BYTES):  # every place of the old file, some at a time
            hashes = _hashes(old[start : start + _CHUNK_BYTES + _BLOCK - 1])
            likely = np.flatnonzero(seen[hashes >> np.uint64(64 - _FILTER_BITS)])
            index = np.minimum(np.searchsorted(keys, hashes[likely]), len(keys) - 1)
            hit = keys[index] == hashes[likely]
            found = left[order[index[hit]]]
            matched[found] = likely[hit] + start - found * _BLOCK
    return _filled(old, new, matched)


def _filled(old: Bytes, new: Bytes, matched: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same where neighbours agree; elsewhere that of a neighbour, or none, whichever leaves most bytes equal."""
    alike = matched[1:] == matched[:-1]
    steady = np.append(alike, False) | np.insert(alike, 0, False)
    shifts = np.where(steady, matched, _NOWHERE)
    bounds = [0, *(np.flatnonzero(np.diff(shifts)) + 1).tolist(), len(shifts)]
    values = [int(shifts[first]) for first in bounds[:-1]]
    before = 0
    for number, value in enumerate(values):
        first, last = bounds[number], bounds[number + 1]
        if value == _NOWHERE:
            after = values[number + 1] if number + 1 < len(values) else before
            choices = dict.fromkeys((before, after, 0))
            equal = {each: _equal_bytes(old, new, first * _BLOCK, last * _BLOCK, each) for each in choices}
            value = max(choices, key=lambda each: equal[each])
            shifts[first:last] = value
        before = value
    return shifts


def _equal_bytes(old: Bytes, new: Bytes, begin: int, end: int, shift: int) -> int:
    """How many bytes of a part of the new file the old one has at that distance."""
    begin, end = max(begin, -shift), min(end, len(new), len(old) - shift)
    return int((new[begin:end] == old[begin + shift : end + shift]).sum()) if begin < end else 0


def _block_hashes(blocks: Bytes) -> NDArray[np.uint64]:
    """The hash of each row; (B, bytes) to (B,)."""
    found = np.zeros(len(blocks), np.uint64)
    for column in blocks.T:
        found = found * np.uint64(_BASE) + column
    return found


def _hashes(text: Bytes) -> NDArray[np.uint64]:
    """The hash of every window of a block's length, in steps that double it; (n,) to (n - block + 1,)."""
    found, power, length = text.astype(np.uint64), _BASE, 1
    while length < _BLOCK:
        found = found[:-length] * np.uint64(power) + found[length:]
        power, length = power * power % (1 << 64), 2 * length
    return found
