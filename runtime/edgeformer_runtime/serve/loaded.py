"""One bundle, opened as often as there are workers; a service has one, and while it changes to another one, two."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from edgeformer_runtime.errors import BundleError
from edgeformer_runtime.isolation.pipeline import IsolatedPipeline, verify_isolated
from edgeformer_runtime.pipelines.base import Pipeline
from edgeformer_runtime.serve.options import ServeOptions
from edgeformer_runtime.serve.workers import Workers
from edgeformer_runtime.verify.verify import verify

OpenPipeline = Callable[[], Pipeline[Any, Any]]
"""Opens the bundle that lies at the service's path now."""

PATIENCE_S = {"text": 2.0, "image": 2.0, "audio": 15.0}
"""Work that nobody waits for has so long to give up, of sound until its window has been heard; then its process is
ended, or its worker replaced."""


class Loaded:
    """A bundle's manifest and the workers that answer with it."""

    def __init__(
        self,
        open_pipeline: OpenPipeline,
        options: ServeOptions,
        on_replaced: Callable[[str], None],
        is_verified: bool = False,
    ) -> None:
        """Open a bundle.

        Args:
            open_pipeline: opens one pipeline.
            options: the service's.
            on_replaced: see `Workers`.
            is_verified: replay the recorded vectors before it may answer.

        Raises:
            BundleError: it cannot be used, it was exchanged while it was being opened, or it does not answer as
                recorded.
            EngineError: its engine does not run here.
        """
        self._open_pipeline = open_pipeline
        self._sha256: str | None = None
        pipelines: list[Pipeline[Any, Any]] = []
        with ExitStack() as undo:
            for _ in range(options.workers):
                pipelines.append(self._open_same())
                undo.callback(pipelines[-1].close)
            if is_verified:
                _verify(pipelines[0])
            undo.pop_all()
        self.manifest = pipelines[0].bundle.manifest
        patience_s = PATIENCE_S[self.manifest.preprocessing.kind]
        self.workers = Workers(pipelines, options.max_waiting, self._open_same, on_replaced, patience_s)

    def _open_same(self) -> Pipeline[Any, Any]:
        """One more pipeline of the same bundle: answers must not depend on which worker gives them."""
        pipeline = self._open_pipeline()
        sha256 = pipeline.bundle.manifest_sha256
        if self._sha256 is not None and sha256 != self._sha256:
            pipeline.close()
            raise BundleError("another bundle lies at the path now: send SIGHUP to change to it")
        self._sha256 = sha256
        return pipeline


def _verify(pipeline: Pipeline[Any, Any]) -> None:
    is_isolated = isinstance(pipeline, IsolatedPipeline)
    found = verify_isolated(pipeline.bundle) if is_isolated else verify(pipeline.bundle, pipeline.engine)
    if not found.ok:
        raise BundleError(f"expected answers as recorded, found others in {found.first_diverging}: run verify")
