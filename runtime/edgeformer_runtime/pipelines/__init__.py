"""Pipelines: raw input to a typed answer, one class per task."""

from __future__ import annotations

from typing import Any, cast

from edgeformer_runtime.bundle import Bundle
from edgeformer_runtime.engines.base import Engine
from edgeformer_runtime.lazy import load_attribute
from edgeformer_runtime.pipelines.base import Pipeline

PIPELINES: dict[str, str] = {
    "text-classification": "edgeformer_runtime.pipelines.text:TextClassifier",
    "text-embedding": "edgeformer_runtime.pipelines.text:TextEmbedder",
    "image-classification": "edgeformer_runtime.pipelines.vision:ImageClassifier",
}


def open_pipeline(bundle: Bundle, engine: Engine, owned: bool = False) -> Pipeline[Any, Any]:
    """The pipeline of the bundle's task.

    Args:
        bundle: an open bundle, which has to stay open.
        engine: what runs its programs.
        owned: whether the pipeline's `close` closes both.
    """
    kind = load_attribute(PIPELINES[bundle.manifest.task])
    return cast(Pipeline[Any, Any], kind(bundle, engine, owned))
