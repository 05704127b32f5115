"""Zips in which something hides are refused, signed or not; and what refuses them says how to pack a bundle."""

from __future__ import annotations

import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgeformer_runtime.bundle.bundle import Bundle, pack
from edgeformer_runtime.errors import BundleError


@pytest.fixture
def packed(tiny: Path, tmp_path: Path) -> Path:
    pack(tiny, tmp_path / "tiny.zip")
    return tmp_path / "tiny.zip"


def refused(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.open(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def zipped(folder: Path, path: Path, compression: int = zipfile.ZIP_STORED, **info: object) -> Path:
    """The folder as Python's own writer packs it."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            member = zipfile.ZipInfo(file.relative_to(folder).as_posix())
            member.compress_type = compression
            for name, value in info.items():
                setattr(member, name, value)
            archive.writestr(member, file.read_bytes())
    return path


def moved_by(data: bytes, by: int, begin: int) -> bytes:
    """The directory and end record of a zip whose bytes from `begin` on lie further behind."""
    end = len(data) - 22
    start = struct.unpack_from("<L", data, end + 16)[0]
    out, at = bytearray(data[start:]), 0
    while out[at : at + 4] == b"PK\x01\x02":
        (offset,) = struct.unpack_from("<L", out, at + 42)
        struct.pack_into("<L", out, at + 42, offset + (by if offset >= begin else 0))
        name, extra, comment = struct.unpack_from("<3H", out, at + 28)
        at += 46 + name + extra + comment
    struct.pack_into("<L", out, len(out) - 6, start + by)
    return bytes(out)


def with_bytes_at(data: bytes, place: int, hidden: bytes) -> bytes:
    """A valid zip with bytes that belong to nobody."""
    start = struct.unpack_from("<L", data, len(data) - 6)[0]
    return data[:place] + hidden + data[place:start] + moved_by(data, len(hidden), place)


def test_bytes_before_between_and_behind_the_files(packed: Path) -> None:
    data = packed.read_bytes()
    with zipfile.ZipFile(packed) as archive:
        second = archive.infolist()[1].header_offset
        start = archive.start_dir
    for place in (0, second, start):
        packed.write_bytes(with_bytes_at(data, place, b"#!/bin/sh\necho hidden\n"))
        with zipfile.ZipFile(packed) as archive:
            assert archive.testzip() is None, "any other reader takes it"
        assert "other bytes lie" in refused(packed)
    for corrupted in (b"prefix" + data, data + b"behind", data[:-22] + b"hidden" + data[-22:]):
        packed.write_bytes(corrupted)
        assert refused(packed)
    packed.write_bytes(data)
    Bundle.open(packed).close()


def test_a_comment_and_extra_fields(tiny: Path, packed: Path) -> None:
    with zipfile.ZipFile(packed, "a") as archive:
        archive.comment = b"hidden"
    assert "use edgeformer pack FOLDER" in refused(packed)
    for info in ({"comment": b"hidden"}, {"extra": struct.pack("<2H4s", 0x5455, 4, b"evil")}):
        assert "use edgeformer pack FOLDER" in refused(zipped(tiny, packed, **info))


def test_a_header_that_says_something_else(packed: Path) -> None:
    good = packed.read_bytes()
    with zipfile.ZipFile(packed) as archive:
        member = archive.infolist()[0]
    for at in range(4, 30 + len(member.filename)):
        data = bytearray(good)
        data[member.header_offset + at] ^= 1
        packed.write_bytes(data)
        assert refused(packed), at


@pytest.mark.parametrize("date", [(1980, 1, 1, 0, 0, 0), (2026, 11, 29, 23, 14, 32)])
def test_other_dates_and_orders_hide_nothing(tiny: Path, tmp_path: Path, date: tuple[int, ...]) -> None:
    Bundle.open(zipped(tiny, tmp_path / "other.zip", date_time=date)).close()


def test_ordinary_zips_are_told_how_to_pack(tiny: Path, tmp_path: Path) -> None:
    said = refused(zipped(tiny, tmp_path / "deflated.zip", zipfile.ZIP_DEFLATED))
    assert "is compressed: expected a stored zip" in said and "use edgeformer pack FOLDER" in said
    with (tmp_path / "streamed.zip").open("wb") as file:
        stream = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys, zipfile\n"
                "with zipfile.ZipFile(sys.stdout.buffer, 'w') as z:\n"
                f"    z.write({str(tiny / 'manifest.json')!r}, 'manifest.json')",
            ],
            stdout=subprocess.PIPE,
            check=True,
        )
        file.write(stream.stdout)
    assert "has its size behind its data" in refused(tmp_path / "streamed.zip")


def test_zip64_where_sizes_need_it(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of a few bytes makes the writer do what it does beyond 2 GiB."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    pack(tiny, tmp_path / "wide.zip")
    data = (tmp_path / "wide.zip").read_bytes()
    assert b"PK\x06\x06" in data and b"PK\x06\x07" in data
    Bundle.open(tmp_path / "wide.zip").close()
    at = data.index(b"PK\x06\x06")
    for offset in (4, 16, 24, 40, 48, 56, 56 + 8, 56 + 16):
        corrupted = bytearray(data)
        corrupted[at + offset] ^= 4
        (tmp_path / "wide.zip").write_bytes(corrupted)
        assert refused(tmp_path / "wide.zip"), offset
