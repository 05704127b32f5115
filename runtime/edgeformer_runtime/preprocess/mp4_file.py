"""What an m4a or mp4 file may ask of FFmpeg, decided before FFmpeg sees it.

Its tables state counts, and FFmpeg makes an index of what they state: of a file of 5 KB with 16 million frames of one
byte 600 MB. So what counts is compared with what is there, and with what recordings of a day have.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from edgeformer_runtime.errors import InputError

MAX_FRAMES = 1 << 22
"""Coded frames of all tracks, and those of a file with edits for each of them: a day of AAC. FFmpeg keeps 36 bytes for
each."""
MAX_FRAGMENTS = 1 << 15
"""Of a file that was recorded in pieces, nine hours of a second each; FFmpeg keeps 60 bytes of each for each track."""
MAX_TRACKS = 32
MAX_BOXES = 1 << 19
_MAX_DEPTH = 12  # FFmpeg gives up at ten

# Those in which FFmpeg looks for others, wherever they lie (ISO/IEC 14496-12; `mov_default_parse_table`).
_CONTAINERS = frozenset(
    b"moov hoov trak mdia minf dinf stbl edts mvex moof traf tref udta ilst sinf schi wave iprp ipco".split()
)
_COUNTING = (b"stsz", b"stz2", b"trun", b"sidx", b"elst", b"cmov", b"trak", b"moof")


@dataclass
class _Counts:
    boxes: int = 0
    tracks: int = 0
    fragments: int = 0
    frames: int = 0
    edits: int = 1  # of the track that has most


def check_mp4(file: IO[bytes], what: str) -> None:
    """Refuse a file whose tables state more than it holds, or than a recording has.

    Args:
        file: read from its start to its end.
        what: what messages call it.

    Raises:
        InputError: it does.
    """
    end = file.seek(0, io.SEEK_END)
    counts = _Counts()
    waiting = [(0, end, 0)]
    while waiting:
        start, stop, depth = waiting.pop()
        for name, inside, after in _boxes(file, start, stop):
            counts.boxes += 1
            if counts.boxes > MAX_BOXES:
                raise InputError(f"{what} has more than {MAX_BOXES} boxes: convert it to wav")
            _count(file, name, inside, after, counts, what)
            if depth < _MAX_DEPTH and name in _CONTAINERS:
                waiting.append((inside, after, depth + 1))
            elif depth < _MAX_DEPTH and name == b"meta":
                waiting.append((_handler_of(file, inside, after), after, depth + 1))
    for stated, most, kind in (
        (counts.tracks, MAX_TRACKS, "tracks"),
        (counts.fragments, MAX_FRAGMENTS, "fragments"),
        (counts.frames, min(end, MAX_FRAMES), "frames"),
        (counts.frames * counts.edits, MAX_FRAMES, "frames in its edits"),
    ):
        if stated > most:
            raise InputError(f"{what} states {stated} {kind}, where at most {most} are taken: convert it to wav")


def _boxes(file: IO[bytes], start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Boxes that lie one behind the other: the name of each, where its content begins, and where it ends."""
    while end - start >= 8:
        file.seek(start)
        size, name = struct.unpack(">I4s", file.read(8))
        inside = start + 8
        if size == 1 and end - inside >= 8:
            size, inside = int.from_bytes(file.read(8), "big"), inside + 8
        after = min(end, start + size) if size else end
        if after < inside:  # FFmpeg reads no further, either
            return
        yield name, inside, after
        start = after


def _count(file: IO[bytes], name: bytes, start: int, end: int, counts: _Counts, what: str) -> None:
    if name == b"trak":
        counts.tracks += 1
    elif name == b"moof":
        counts.fragments += 1
    elif name == b"cmov":
        raise InputError(f"{what} has compressed tables: convert it to wav")
    elif name == b"stsd":  # whose entries end in boxes, behind heads of many kinds
        file.seek(start)
        content = file.read(end - start)
        if any(other in content for other in _COUNTING):
            raise InputError(f"{what} is corrupted: it has tables in its description of samples")
    elif name in (b"stsz", b"stz2"):
        counts.frames += _number(file, start + 8, end)
    elif name == b"trun":
        counts.frames += _number(file, start + 4, end)
    elif name == b"elst":
        counts.edits = max(counts.edits, _number(file, start + 4, end))
    elif name == b"sidx":
        file.seek(start)
        has_long_times = file.read(1) > b"\0"
        counts.fragments += _number(file, start + (28 if has_long_times else 20), end) & 0xFFFF


def _number(file: IO[bytes], at: int, end: int) -> int:
    file.seek(at)
    return int.from_bytes(file.read(4), "big") if at + 4 <= end else 0


def _handler_of(file: IO[bytes], start: int, end: int) -> int:
    """Where the boxes of a meta begin: with its handler, as QuickTime and MP4 have other heads before it."""
    file.seek(start)
    content = file.read(end - start)
    at = content.find(b"hdlr")
    while at % 4 and at >= 0:
        at = content.find(b"hdlr", at + 1)
    return end if at < 0 else start + at - 4
