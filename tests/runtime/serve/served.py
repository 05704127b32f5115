"""What tests of the service share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient
from tiny_speech_bundle import NoiseEngine

from edgeformer_runtime.bundle import Bundle
from edgeformer_runtime.pipelines import open_pipeline
from edgeformer_runtime.pipelines.base import Pipeline

Connect = Callable[..., TestClient]


def open_noise(path: Path) -> Pipeline[Any, Any]:
    """A transcriber that hears noise."""
    bundle = Bundle.open(path)
    return open_pipeline(bundle, NoiseEngine(bundle.manifest.programs), owned=True)
