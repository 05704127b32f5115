"""An `.onnx` file in ONNX Runtime as our engine opens it, without a bundle around it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def run_onnx(path: Path | str, inputs: Mapping[str, Any], outputs: list[str] | None = None) -> list[Any]:
    """The model's outputs, all or those named; int8 is right on CPUs without VNNI too."""
    import onnxruntime

    from edgeformer_runtime.engines.onnx import PRECISE_INT8

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(*PRECISE_INT8)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return list(session.run(outputs, dict(inputs)))
