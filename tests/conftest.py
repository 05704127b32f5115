"""What every test may use: the reference assets and a place for conversions that are made once per session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
ASSETS = Path(os.environ.get("EDGEFORMER_ASSETS", REPOSITORY.parent / "shared" / "assets")).resolve()


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of reference weights, golden tensors and data sets (EDGEFORMER_ASSETS). CI must have it."""
    if not ASSETS.is_dir():
        absent = f"no reference assets at {ASSETS}: set EDGEFORMER_ASSETS"
        pytest.fail(absent) if os.environ.get("CI") else pytest.skip(absent)
    return ASSETS
