"""Writes hostile_models.json: model files that break a rule of BUNDLE.md, "Model files", and sound ones beside them."""

from __future__ import annotations

from edgeformer_runtime import __version__
from tests.golden import hostile_coreml, hostile_executorch, hostile_litert, hostile_onnx
from tests.golden.golden_files import document


def files() -> dict[str, bytes]:
    """The golden file by name."""
    makers = (hostile_onnx, hostile_litert, hostile_executorch, hostile_coreml)
    cases = [case.to_json() for maker in makers for case in maker.cases()]
    return {"hostile_models.json": document(f"edgeformer-runtime {__version__}", cases)}
