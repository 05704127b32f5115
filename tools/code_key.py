"""A name for a state of the code, under which what it makes is kept."""

from __future__ import annotations

import hashlib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
CONVERSION = ("edgeformer", "converters/edgeformer_converters", "runtime/edgeformer_runtime")
"""What a conversion's result depends on, beside its arguments; the built-in checkpoints lie in it."""


def code_key(arguments: str, parts: tuple[str, ...] = CONVERSION) -> str:
    """16 hexadecimal digits of the hash of some arguments and of the files and folders named of the repository."""
    digest = hashlib.sha256(arguments.encode())
    for part in parts:
        for path in sorted([REPOSITORY / part, *(REPOSITORY / part).rglob("*")]):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(REPOSITORY)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]
