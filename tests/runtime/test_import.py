"""Importing has no effects: no engine, no heavy package, no file, no thread count."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import json, os, sys, threading
before = dict(os.environ)
import edgeformer_runtime
light = sorted(sys.modules)
import edgeformer_runtime.cli.app, edgeformer_runtime.bench.measure, edgeformer_runtime.verify.verify
with_manifest = sorted(sys.modules)
import edgeformer_runtime.pipelines.text, edgeformer_runtime.pipelines.vision, edgeformer_runtime.pipelines.speech
print(json.dumps([light, with_manifest, sorted(sys.modules), dict(os.environ) == before, threading.active_count()]))
"""
ENGINE_PACKAGES = {"ai_edge_litert", "onnxruntime", "executorch", "coremltools", "torch", "transformers"}


def test_import(tmp_path: Path) -> None:
    environment = os.environ | {"HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    light, with_manifest, everything, same_environment, threads = json.loads(done.stdout)
    assert done.stderr == ""
    assert not ENGINE_PACKAGES & {name.partition(".")[0] for name in everything}
    assert not {"numpy", "tokenizers", "jsonschema", "typer", "rich"} & set(light)
    assert "edgeformer_runtime.bundle.manifest" in with_manifest
    assert not {"tokenizers", "PIL"} & set(with_manifest)  # what a text bundle, or an image bundle, has no use for
    assert not {"soundfile", "soxr"} & set(everything)  # arrays at the model's rate need neither
    assert same_environment
    assert threads == 1
    assert not list(tmp_path.iterdir())
