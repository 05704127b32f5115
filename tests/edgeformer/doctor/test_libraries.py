"""Native libraries for Android devices with pages of 16 KB."""

from __future__ import annotations

import struct
import sys
import zipfile
from pathlib import Path

import pytest

from edgeformer.doctor.check_bundle import _alignment
from edgeformer.doctor.diagnosis import diagnose
from edgeformer.doctor.examiner import DoctorOptions, Severity
from edgeformer_runtime.errors import InputError


def elf(*alignments: int, bits: int = 64) -> bytes:
    """A library of nothing but program headers: one to be loaded for each alignment, and one that is not."""
    header = b"\x7fELF" + bytes([bits // 32, 1, 1]) + bytes(9)
    header += struct.pack("<2HI3QI6H", 3, 183, 1, 0, 64, 0, 0, 64, 56, len(alignments) + 1, 0, 0, 0)
    segments = b"".join(struct.pack("<2I6Q", 1, 5, 0, 0, 0, 0, 0, each) for each in alignments)
    return header + segments + struct.pack("<2I6Q", 2, 6, 0, 0, 0, 0, 0, 8)


def examine(path: Path) -> list[tuple[Severity, str]]:
    return [(finding.severity, finding.what) for finding in diagnose(path, DoctorOptions()).findings]


def test_a_library_alone(tmp_path: Path) -> None:
    path = tmp_path / "libmodel.so"
    path.write_bytes(elf(16384, 65536))
    assert examine(path) == [(Severity.FINE, "1 of 1 libraries have 64 bits, all aligned to 16 KB")]
    path.write_bytes(elf(16384, 4096))
    assert examine(path) == [(Severity.ERROR, "libmodel.so is aligned to pages of 4 KB")]
    path.write_bytes(elf(4096, bits=32))
    assert examine(path)[0][0] is Severity.FINE


def test_the_header_of_a_real_library() -> None:
    library = Path(sys.modules["numpy._core._multiarray_umath"].__file__ or "")
    with library.open("rb") as file:
        # Linux on x86 links for 4 KB unless it is told otherwise.
        assert _alignment(file, library.name) in (4096, 16384, 65536, 2097152)


def archive(path: Path, compress: int, padding: int) -> Path:
    with zipfile.ZipFile(path, "w", compress) as file:
        info = zipfile.ZipInfo("lib/arm64-v8a/libmodel.so")
        info.extra = struct.pack("<2H", 0xD935, padding) + bytes(padding)
        file.writestr(info, elf(16384), compress)
        file.writestr("classes.dex", b"dex")
    return path


def test_an_apk_maps_uncompressed_libraries_where_they_lie(tmp_path: Path) -> None:
    header = 30 + len("lib/arm64-v8a/libmodel.so") + 4
    assert examine(archive(tmp_path / "a.apk", zipfile.ZIP_STORED, 16384 - header))[0][0] is Severity.FINE
    (finding,) = examine(archive(tmp_path / "b.apk", zipfile.ZIP_STORED, 0))
    assert finding == (
        Severity.ERROR,
        f"lib/arm64-v8a/libmodel.so lies uncompressed at byte {header} of the archive, no multiple of 16384",
    )
    assert examine(archive(tmp_path / "c.apk", zipfile.ZIP_DEFLATED, 0))[0][0] is Severity.FINE
    assert examine(archive(tmp_path / "d.aar", zipfile.ZIP_STORED, 0))[0][0] is Severity.FINE


def test_what_is_no_library(tmp_path: Path) -> None:
    for name in ("text.so", "text.apk"):
        (tmp_path / name).write_bytes(b"not a library, and long enough to have a header of its own if it were one")
        with pytest.raises(InputError, match=r"no ELF library|no archive"):
            examine(tmp_path / name)
    with pytest.raises(InputError, match="no file at"):
        examine(tmp_path / "absent.so")
    (tmp_path / "cut.so").write_bytes(elf(4096)[:40])
    with pytest.raises(InputError, match="cut off"):
        examine(tmp_path / "cut.so")
    with zipfile.ZipFile(tmp_path / "empty.apk", "w") as file:
        file.writestr("classes.dex", b"dex")
    assert examine(tmp_path / "empty.apk") == [(Severity.INFO, "empty.apk holds no native library")]
