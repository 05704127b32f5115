"""What tests of the service share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient
from tiny_speech_bundle import NoiseEngine

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.errors import EngineError
from edgeformer_runtime.pipelines import Pipeline, open_pipeline

Connect = Callable[..., TestClient]


def one_by_one(pipelines: Sequence[Pipeline[Any, Any]]) -> Callable[[], Pipeline[Any, Any]]:
    """Opens given pipelines in turn, and says that there are no more."""
    left = list(pipelines)

    def open_next() -> Pipeline[Any, Any]:
        if not left:
            raise EngineError("no pipeline is left")
        return left.pop(0)

    return open_next


def open_noise(path: Path) -> Pipeline[Any, Any]:
    """A transcriber that transcribes noise."""
    bundle = Bundle.open(path)
    return open_pipeline(bundle, NoiseEngine(bundle.manifest.programs), owned=True)
