"""The installed runtime as a wheel again, to install it on another machine: no index has to know this version."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib import metadata
from pathlib import Path

import edgeformer_runtime
from edgeformer_runtime.errors import InputError

DISTRIBUTION = "edgeformer-runtime"
_MODULE = "edgeformer_runtime"
_WHEEL = "Wheel-Version: 1.0\nGenerator: edgeformer\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_METADATA_FILES = ("METADATA", "entry_points.txt")
_DATE = (1980, 1, 1, 0, 0, 0)


def write_runtime_wheel(folder: Path) -> Path:
    """Write the wheel of the runtime that this process uses, wherever it is installed from.

    The package is Python alone, so its files and the metadata of its installation are all that a wheel holds
    (https://packaging.python.org/specifications/binary-distribution-format/).

    Args:
        folder: where to.

    Returns:
        The wheel's file; equal sources give equal bytes.

    Raises:
        InputError: the runtime is not installed, only found on the path.
    """
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        raise InputError(f"{DISTRIBUTION} is not installed here: pip install it, then it can be sent") from None
    package = Path(edgeformer_runtime.__file__).parent
    files = {
        f"{_MODULE}/{path.relative_to(package).as_posix()}": path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    information = f"{_MODULE}-{distribution.version}.dist-info"
    for name in _METADATA_FILES:
        files[f"{information}/{name}"] = (distribution.read_text(name) or "").encode()
    files[f"{information}/WHEEL"] = _WHEEL.encode()
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in files.items())
    files[f"{information}/RECORD"] = f"{record}{information}/RECORD,,\n".encode()
    wheel = folder / f"{_MODULE}-{distribution.version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            member = zipfile.ZipInfo(name, _DATE)
            member.external_attr = 0o644 << 16
            archive.writestr(member, data, zipfile.ZIP_DEFLATED)
    return wheel


def _digest(data: bytes) -> str:
    """As RECORD has it: URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
