"""Writes zips.json: ways to hide bytes in a bundle's zip, and orders and dates of members that are free."""

from __future__ import annotations

import difflib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from edgeformer_runtime import __version__
from tests.golden.golden_files import FOLDER, document

BASE = "tiny-text.zip"
_FACTS = struct.Struct("<5H3L")  # version needed, flags, method, time, date, CRC, both sizes
_UNIX = 3 << 8
_MODE = 0o100644 << 16


@dataclass(frozen=True)
class _Member:
    """A member as it is written, headers and all; `hidden` stands in no directory."""

    name: bytes
    data: bytes
    facts: tuple[int, ...]
    local_facts: tuple[int, ...]
    local_name: bytes
    before: bytes = b""
    extra: bytes = b""
    local_extra: bytes = b""
    comment: bytes = b""
    hidden: bool = False
    after: bytes = b""


def files() -> dict[str, bytes]:
    """The golden file by name."""
    # As it was written: made anew on another processor, its numbers may have other last digits, and another length.
    base = (FOLDER / BASE).read_bytes()
    assert _written(_members(base)) == base
    cases = [
        {
            "name": name,
            "splices": _splices(base, changed),
            "error": None if taken else "BundleError",
            "canonical": changed == base,
        }
        for name, changed, taken in _zips(base)
    ]
    return {"zips.json": document(f"edgeformer-runtime {__version__}", cases, base=BASE)}


def apply(case: dict[str, Any], base: bytes) -> bytes:
    """The zip of a case: each splice puts bytes in place of those from `start` to `end` of the base."""
    pieces, position = [], 0
    for start, end, put in case["splices"]:
        pieces += [base[position:start], bytes.fromhex(put)]
        position = end
    return b"".join([*pieces, base[position:]])


def _zips(base: bytes) -> Iterator[tuple[str, bytes, bool]]:
    """Name, bytes, and whether a reader that asks for no signature takes it."""
    members = _members(base)
    first, last = members[0], members[-1]
    yield "as it was written", base, True
    yield "members in another order", _written([*members[:-2], last, members[-2]]), True
    later = (20, 0, 0, 1, 0x5A21, *first.facts[5:])
    yield "another date", _written([replace(first, facts=later, local_facts=later), *members[1:]]), True
    yield "bytes before the zip", b"#!/bin/sh\n" + base, False
    yield "bytes before the zip, offsets moved", _written([replace(first, before=b"hidden"), *members[1:]]), False
    yield "bytes between members", _written([first, replace(members[1], before=b"hidden"), *members[2:]]), False
    yield "bytes before the directory", _written([*members[:-1], replace(last, after=b"hidden")]), False
    yield "bytes behind the zip", base + b"hidden", False
    yield "a comment of the zip", base[:-2] + b"\x06\x00hidden", False
    hidden = replace(last, local_name=b"hidden.txt", data=b"hidden", hidden=True)
    yield "a member that the directory does not list", _written([*members, hidden]), False
    for name, change in _changes(first):
        yield name, _written([change, *members[1:]]), False
    yield "two members that share their bytes", _shared(members), False


def _changes(member: _Member) -> Iterator[tuple[str, _Member]]:
    """What a member's headers may not say."""
    extra = struct.pack("<2H", 0xCAFE, 6) + b"hidden"
    yield "an extra field in the directory", replace(member, extra=extra)
    yield "an extra field in a header", replace(member, local_extra=extra)
    yield "a comment of a member", replace(member, comment=b"hidden")
    yield "another name in the header", replace(member, local_name=b"M" + member.local_name[1:])
    for place, what in enumerate(("version", "flags", "method", "time", "date", "CRC", "packed size", "size")):
        facts = list(member.facts)
        facts[place] ^= 1 << (11 if what == "flags" else 0)
        yield f"another {what} in the header", replace(member, local_facts=tuple(facts))
    wrong = (*member.facts[:5], member.facts[5] ^ 1, *member.facts[6:])
    yield "a CRC that is wrong in both places", replace(member, facts=wrong, local_facts=wrong)
    described = (20, 8, *member.facts[2:])
    descriptor = b"PK\x07\x08" + struct.pack("<3L", *member.facts[5:])
    yield "a data descriptor", replace(member, facts=described, local_facts=described, after=descriptor)


def _shared(members: list[_Member]) -> bytes:
    """The first entry's place is the second's."""
    text = bytearray(_written(members))
    entry = text.index(b"PK\x01\x02")
    second = entry + 46 + len(members[0].name)
    text[entry + 42 : entry + 46] = text[second + 42 : second + 46]
    return bytes(text)


def _members(base: bytes) -> list[_Member]:
    found, position = [], 0
    while base[position : position + 4] == b"PK\x03\x04":
        facts = _FACTS.unpack_from(base, position + 4)
        name_bytes = struct.unpack_from("<H", base, position + 26)[0]
        begin = position + 30 + name_bytes
        name, data = base[position + 30 : begin], base[begin : begin + facts[-1]]
        assert zlib.crc32(data) == facts[5]
        found.append(_Member(name, data, facts, facts, name))
        position = begin + len(data)
    return found


def _written(members: list[_Member]) -> bytes:
    body, directory, count = b"", b"", 0
    for member in members:
        body += member.before
        if not member.hidden:
            lengths = map(len, (member.name, member.extra, member.comment))
            place = struct.pack("<5HLL", *lengths, 0, 0, _MODE, len(body))
            directory += b"PK\x01\x02" + struct.pack("<H", _UNIX | 20) + _FACTS.pack(*member.facts) + place
            directory += member.name + member.extra + member.comment
            count += 1
        body += b"PK\x03\x04" + _FACTS.pack(*member.local_facts)
        body += struct.pack("<2H", len(member.local_name), len(member.local_extra))
        body += member.local_name + member.local_extra + member.data + member.after
    return body + directory + b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, count, count, len(directory), len(body), 0)


def _splices(base: bytes, changed: bytes) -> list[list[object]]:
    """What differs, as [start, end, hexadecimal of what stands there instead]."""
    same = next((at for at, (a, b) in enumerate(zip(base, changed, strict=False)) if a != b), len(base))
    matcher = difflib.SequenceMatcher(None, base[same:], changed[same:], autojunk=False)
    return [
        [same + start, same + end, changed[same + put : same + until].hex()]
        for tag, start, end, put, until in matcher.get_opcodes()
        if tag != "equal"
    ]
