"""Every committed golden file is what its generator gives."""

from __future__ import annotations

import pytest

from tests.golden.golden_files import FOLDER, difference
from tests.golden.make import GENERATORS, make

LARGEST_BYTES = 3_300_000


SLOW = ("unicode", "zips", "tokenizers")


@pytest.mark.parametrize(
    "generator", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in GENERATORS]
)
def test_generator_gives_the_committed_files(generator: str) -> None:
    for name, made in make(generator).items():
        committed = (FOLDER / name).read_bytes()
        assert difference(name, committed, made) is None, "run make golden"


def test_they_are_small() -> None:
    suffixes = (".json", ".safetensors", ".zip")
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.suffix in suffixes) < LARGEST_BYTES
