"""What weight files state of themselves, compared with their sizes before they are hashed or loaded."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import IO

from edgeformer_runtime.bundle.file_sizes import refuse_holes
from edgeformer_runtime.errors import BundleError, InputError

MAX_TENSORS = 100_000
"""Of a checkpoint: the largest that is converted has 1,300."""
MAX_HEADER_BYTES = 16 << 20
"""Of a safetensors file, a hundred bytes for each tensor."""
MAX_PICKLE_BYTES = 4 << 20
"""Of the part of a PyTorch archive that names its tensors, which is interpreted opcode by opcode."""
MAX_DIRECTORY_BYTES = MAX_TENSORS * 160

_HEADER = struct.Struct("<Q")
_END, _END64, _LOCATOR = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")


def check_weight_files(files: tuple[Path, ...]) -> None:
    """Refuse weight files that were never written, or whose heads state more than the files hold.

    What is neither safetensors nor an archive of PyTorch is left to its reader.

    Raises:
        InputError: names the file, what it states and what was expected.
    """
    try:
        refuse_holes(files)
        for path in files:
            with path.open("rb") as file:
                if path.suffix == ".safetensors":
                    _check_header(file, path)
                elif file.read(4) == b"PK\x03\x04":
                    _check_archive(file, path)
    except BundleError as error:
        raise InputError(str(error)) from None
    except OSError as error:
        raise InputError(f"cannot read the weights: {error.strerror or error}") from None


def _check_header(file: IO[bytes], path: Path) -> None:
    size = path.stat().st_size
    start = file.read(_HEADER.size)
    length = _HEADER.unpack(start)[0] if len(start) == _HEADER.size else size
    if length > size - _HEADER.size:
        raise _spoiled(path, f"a header of {length} bytes in a file of {size}")
    if length > MAX_HEADER_BYTES:
        raise InputError(f"{path.name} has a header of {length} bytes: expected {MAX_HEADER_BYTES} at most")
    # Each tensor has one pair of offsets.
    tensors = file.read(length).count(b"data_offsets")
    if tensors > MAX_TENSORS:
        raise InputError(f"{path.name} holds {tensors} tensors: expected {MAX_TENSORS} at most")


def _check_archive(file: IO[bytes], path: Path) -> None:
    """An archive of PyTorch: nothing in it is compressed, so that its members are no larger than itself."""
    size = path.stat().st_size
    directory = _directory_bytes(file, size)
    if directory is None:
        raise _spoiled(path, "its directory is not at its end")
    if directory > MAX_DIRECTORY_BYTES:
        raise InputError(f"{path.name} has a directory of {directory} bytes: expected {MAX_DIRECTORY_BYTES} at most")
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise _spoiled(path, str(error)) from None
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            raise InputError(f"{path.name} is compressed: expected what torch.save writes")
        if member.filename.endswith("/data.pkl") and member.file_size > MAX_PICKLE_BYTES:
            raise InputError(
                f"{path.name} names its tensors in {member.file_size} bytes: expected {MAX_PICKLE_BYTES} at most"
            )
    stated = sum(member.file_size for member in members)
    if stated > size:
        raise _spoiled(path, f"its members come to {stated} bytes, and it has {size}")


def _directory_bytes(file: IO[bytes], size: int) -> int | None:
    """The size of a zip's directory by its end records, which say it twice where the archive is large."""
    tail = min(size, _END64.size + _LOCATOR.size + _END.size)
    file.seek(size - tail)
    records = file.read(tail)
    if len(records) < _END.size:
        return None
    end = _END.unpack(records[-_END.size :])
    if end[0] != b"PK\x05\x06" or end[7] != 0:
        return None
    if tail > _END.size and records.startswith(b"PK\x06\x06"):
        return int(_END64.unpack(records[: _END64.size])[8])
    return int(end[5])


def _spoiled(path: Path, what: str) -> InputError:
    return InputError(f"cannot read {path.name}, it is spoiled or cut short: {what}")
