"""Decoders and models for the tests of decoding; see scripted.py and real_whisper.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from real_whisper import open_tiny_english

from edgeformer.models.family import FULL_WINDOW, TAIL_WINDOW
from edgeformer_runtime.pipelines.speech import Transcriber


@pytest.fixture(scope="session")
def tiny_english(assets: Path) -> Transcriber:
    """The assets' tiny.en with its silent tail, in torch."""
    return open_tiny_english(assets / "whisper-tiny.en", TAIL_WINDOW)


@pytest.fixture(scope="session")
def tiny_english_full(assets: Path) -> Transcriber:
    """The assets' tiny.en that always transcribes 30 seconds, in torch."""
    return open_tiny_english(assets / "whisper-tiny.en", FULL_WINDOW)
