"""How large the files of a bundle may be, by what the manifest says that they are: known before any is read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from edgeformer_runtime.bundle.manifest import (
    CASES_FILE,
    MAX_CASES_BYTES,
    REPORT_FILE,
    TENSORS_FILE,
    VECTORS_FOLDER,
    Manifest,
)
from edgeformer_runtime.errors import BundleError
from edgeformer_runtime.tasks.task import TASKS

MAX_REPORT_BYTES = 64 << 20
MAX_RAW_INPUT_BYTES = 128 << 20
"""Of a file of raw input among the vectors."""
MAX_TENSORS_BYTES = 1 << 30
MAX_OTHER_BYTES = 256 << 20
"""Of a file that nothing refers to, as a licence."""
MAX_MODEL_BYTES = {"litert": (2 << 30) - 1, "onnx": (2 << 30) - 1}
"""Of a file that a program names: offsets in FlatBuffers and lengths in Protocol Buffers are 31 bits."""

LARGE_BYTES = 64 << 20
_MAX_HOLES = 10_000


def check_sizes(manifest: Manifest) -> None:
    """Refuse a size that a file of its kind cannot have, before it is read and hashed.

    Raises:
        BundleError: names the file and what was expected.
    """
    limits = _limits(manifest)
    models = {program.file for program in manifest.all_programs}
    beside_models = {name.rpartition("/")[0] for name in models} if manifest.target == "onnx" else set()
    for name, entry in manifest.files.items():
        limit = limits.get(name)
        if limit is None and name.startswith(VECTORS_FOLDER):
            limit = MAX_RAW_INPUT_BYTES
        elif limit is None and name in models:
            limit = MAX_MODEL_BYTES.get(manifest.target)
        elif limit is None and manifest.target != "coreml" and name.rpartition("/")[0] not in beside_models:
            limit = MAX_OTHER_BYTES
        if limit is not None and entry.size > limit:
            raise BundleError(f"{name}: expected at most {limit} bytes, found {entry.size}")


def _limits(manifest: Manifest) -> dict[str, int]:
    """The files that the manifest names."""
    limits = {CASES_FILE: MAX_CASES_BYTES, TENSORS_FILE: MAX_TENSORS_BYTES, REPORT_FILE: MAX_REPORT_BYTES}
    return limits | {file.name: file.max_bytes for file in TASKS[manifest.task].files(manifest)}


def refuse_holes(paths: Iterable[Path]) -> None:
    """Refuse large files that are mostly holes: nothing was ever written there, and hashing their zeros takes minutes.

    Raises:
        BundleError: names the file.
    """
    for path in paths:
        size = path.stat().st_size
        if size >= LARGE_BYTES and hasattr(os, "SEEK_HOLE") and _data_bytes(path, size) < size // 2:
            raise BundleError(f"{path.name}: most of its {size} bytes were never written: copy or download it again")


def _data_bytes(path: Path, size: int) -> int:
    """How many bytes a file holds that were written; all, where the file system does not tell."""
    written = position = 0
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for _ in range(_MAX_HOLES):
            position = os.lseek(descriptor, position, os.SEEK_DATA)
            end = os.lseek(descriptor, position, os.SEEK_HOLE)
            written += end - position
            position = end
            if position >= size:
                return written
    except OSError:  # ENXIO: no data behind the position; EINVAL: not known here
        return written if position else (0 if _ends_in_a_hole(descriptor) else size)
    finally:
        os.close(descriptor)
    return size


def _ends_in_a_hole(descriptor: int) -> bool:
    """Whether the file system finds a hole at the very beginning."""
    try:
        return os.lseek(descriptor, 0, os.SEEK_HOLE) == 0
    except OSError:
        return False
