"""Services over the tiny bundles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tiny_speech_bundle import make_speech_without_model

pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")

from served import Connect, one_by_one
from starlette.testclient import TestClient

from edgeformer_runtime.pipelines import Pipeline
from edgeformer_runtime.serve.app import make_app
from edgeformer_runtime.serve.options import ServeOptions
from edgeformer_runtime.serve.service import Service, open_service


@pytest.fixture(scope="session")
def tiny_speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid speech bundle without a real model."""
    return make_speech_without_model(tmp_path_factory.mktemp("bundles") / "tiny_speech")


@pytest.fixture
def connect() -> Iterator[Connect]:
    """A client of a service over a bundle, or over pipelines; both end with the test."""
    with ExitStack() as stack:

        def start(source: Path | list[Pipeline[Any, Any]], **limits: Any) -> TestClient:
            if isinstance(source, list):
                service = Service(one_by_one(source), ServeOptions(workers=len(source), **limits))
            else:
                service = open_service(source, ServeOptions(**limits))
            client = TestClient(make_app(service), base_url="http://127.0.0.1", raise_server_exceptions=False)
            return stack.enter_context(client)

        yield start
