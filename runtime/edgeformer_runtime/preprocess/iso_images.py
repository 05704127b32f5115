"""HEIC and AVIF, the photos of phones: which of them a file is, and what opens it here."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from PIL import features

from edgeformer_runtime.errors import InputError
from edgeformer_runtime.lazy import needs

if TYPE_CHECKING:
    from pillow_heif import HeifFile

HEIC, AVIF = "HEIC", "AVIF"
START_BYTES = 32
"""Of a file, enough to tell: the size, "ftyp", the major brand, and the first compatible ones."""

# ISO/IEC 23008-12, table 1 and annexes B and G; mif1 and msf1 hold either codec, which the other brands then say.
_AVIF_BRANDS = (b"avif", b"avis")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_EITHER = (b"mif1", b"msf1")

UNREADABLE = (OSError, ValueError, SyntaxError, RuntimeError, EOFError, IndexError, KeyError, TypeError, MemoryError)
"""What libheif's binding raises on spoiled files."""


def kind_of(start: bytes) -> str | None:
    """`HEIC`, `AVIF`, or None for what is neither, by a file's first `START_BYTES`."""
    if start[4:8] != b"ftyp":
        return None
    length = min(int.from_bytes(start[:4], "big"), len(start))
    brands = [start[8:12], *(start[at : at + 4] for at in range(16, length - 3, 4))]
    if brands[0] not in (*_AVIF_BRANDS, *_HEIC_BRANDS, *_EITHER):
        return None
    return AVIF if any(brand in _AVIF_BRANDS for brand in brands) else HEIC


def check_avif(what: str) -> None:
    """Refuse an AVIF photo where Pillow was built without its decoder.

    Raises:
        InputError: says what to install.
    """
    if not features.check("avif"):
        raise InputError(f"{what} is an AVIF photo: reading it needs Pillow 11.3 or later: pip install -U Pillow")


def open_heic(file: IO[bytes], what: str) -> HeifFile:
    """Parse a HEIC photo; its pixels are decoded when they are asked for, turned and mirrored as the file says.

    The EXIF orientation beside that is not applied: the format's own transformations stand for it (ISO/IEC 23008-12,
    6.5.10), as phones write both.

    Raises:
        InputError: the reader is not installed, or the file is spoiled or holds several images.
    """
    try:
        import pillow_heif
    except ImportError as error:
        raise InputError(f"{what} is a HEIC photo: {needs('reading it', error, 'heic')}") from error
    try:
        heif = pillow_heif.open_heif(file, convert_hdr_to_8bit=True)
    except UNREADABLE as error:
        raise InputError(f"{what} is a spoiled image: {' '.join(str(error).split())}") from None
    if len(heif) == 0:
        raise InputError(f"{what} is a spoiled image: it holds none")
    if len(heif) > 1:
        raise InputError(f"{what} is animated or has several pages: expected a single image, save one of them")
    return heif
