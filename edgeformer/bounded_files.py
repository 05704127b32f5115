"""Text files that anyone may have written, read no further than a file of their kind goes."""

from __future__ import annotations

from pathlib import Path

from edgeformer_runtime.errors import InputError

MAX_TABLE_BYTES = 256 << 20
"""Of data to evaluate, calibrate or train on."""
MAX_VOCABULARY_BYTES = 32 << 20
"""Of vocab.txt and merges.txt: a quarter of a million tokens take 4 MB."""
MAX_LABELS_BYTES = 4 << 20
MAX_RECIPE_BYTES = 64 << 10

_BLOCK_BYTES = 1 << 20


def read_text(path: Path, most_bytes: int, where: str | None = None, encoding: str = "utf-8-sig") -> str:
    """A file's text.

    Args:
        path: the file. Its size is looked at before anything is read, and reading ends with the first NUL.
        most_bytes: that a file of its kind has.
        where: what messages call it; None: its name.
        encoding: "utf-8-sig" skips a byte order mark before the text, as Windows' editors write it; "utf-8" keeps it.

    Raises:
        InputError: the file cannot be read, is larger, or is not UTF-8 text.
    """
    where = path.name if where is None else where
    try:
        if path.stat().st_size > most_bytes:
            raise InputError(f"{where} has {path.stat().st_size} bytes: expected {most_bytes} at most")
        data = _read(path, most_bytes, where)
    except OSError as error:
        raise InputError(f"cannot read {where}: {error.strerror}") from None
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: expected UTF-8 text, found byte {error.object[error.start]:#04x}") from None


def _read(path: Path, most_bytes: int, where: str) -> bytearray:
    data = bytearray()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            if b"\0" in block:
                raise InputError(f"{where}: expected UTF-8 text, found byte 0x00")
            data += block
            if len(data) > most_bytes:  # a pipe has no size of its own
                raise InputError(f"{where} goes on behind {most_bytes} bytes: expected that many at most")
    return data
