"""Writes all golden files: python -m tests.golden.make [NAME...], each NAME a generator such as `manifests`."""

from __future__ import annotations

import sys
from importlib import import_module

from tests.golden.golden_files import FOLDER

GENERATORS = (
    "text",
    "manifests",
    "unicode",
    "wordpiece",
    "places",
    "byte_level",
    "heads",
    "image",
    "log_mel",
    "recording",
    "wav",
    "silence",
    "decoding",
    "bundles",
    "zips",
    "signatures",
    "published",
    "hostile_models",
    "hostile_tokenizers",
    "tokenizers",
)
"""Modules make_<name>, each with a function `files` that gives the bytes of its golden files by path."""


def make(generator: str) -> dict[str, bytes]:
    """The files of a generator, made anew."""
    made: dict[str, bytes] = import_module(f"tests.golden.make_{generator}").files()
    return made


if __name__ == "__main__":
    for generator in sys.argv[1:] or GENERATORS:
        for name, data in make(generator).items():
            path = FOLDER / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
