"""A site that a test owns, and releases of one bundle for it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_bundle import TinyEngine, manifest, seal

from edgeformer_runtime import delivery
from edgeformer_runtime import fetch as fetching
from edgeformer_runtime.verify import verify as verifying

pytest.importorskip("cryptography")

from cryptography.hazmat.primitives.asymmetric import ed25519
from published import (
    Site,
    served,
)

posix = pytest.mark.skipif(not delivery.available(), reason="this system has no locks that end with their process")
OTHER = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server, a cache of the test's own, and an engine that gives what the vectors say."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(verifying, "open_engine", lambda _: TinyEngine())
    monkeypatch.setattr(fetching.time, "sleep", lambda _: None)
    with served() as site:
        yield site


@pytest.fixture
def releases(tiny: Path) -> list[Path]:
    """Three releases, whose models are 40,000 bytes that differ."""
    made = []
    for number in range(3):
        folder = Path(shutil.copytree(tiny, tiny.with_name(f"release_{number}")))
        (folder / "model.bin").write_bytes(random.Random(number).randbytes(40_000))
        seal(folder, manifest())
        made.append(folder)
    return made
