"""Tiny bundles for the runtime's tests; see tiny_bundle.py."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tiny_bundle import make_executorch, make_litert, make_onnx, make_without_model
from tiny_image_bundle import make_image_onnx, make_image_without_model

from tests.conftest import MakeOnce


@pytest.fixture(scope="session")
def tiny_original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_without_model(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def tiny(tiny_original: Path, tmp_path: Path) -> Path:
    """A valid classification bundle without a real model, to corrupt at will."""
    return Path(shutil.copytree(tiny_original, tmp_path / "tiny"))


@pytest.fixture(scope="session")
def tiny_embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid embedding bundle without a real model."""
    return make_without_model(tmp_path_factory.mktemp("bundles") / "tiny_embedder", task="text-embedding")


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that ONNX Runtime runs."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    return make_onnx(tmp_path_factory.mktemp("bundles") / "tiny.onnx.fp32")


@pytest.fixture(scope="session")
def tiny_onnx_any_length(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with one file for all lengths."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    return make_onnx(tmp_path_factory.mktemp("bundles") / "tiny.onnx.fp32", any_length=True)


@pytest.fixture(scope="session")
def tiny_litert(make_once: MakeOnce) -> Path:
    """A bundle that LiteRT runs; EDGEFORMER_TINY_LITERT names one for machines that cannot make it."""
    if made := os.environ.get("EDGEFORMER_TINY_LITERT"):
        return Path(made)
    pytest.importorskip("litert_torch")
    name = "tiny.litert.fp32"
    return make_once(name, lambda folder: make_litert(folder / name)) / name


@pytest.fixture(scope="session")
def tiny_executorch(make_once: MakeOnce) -> Path:
    """A bundle that ExecuTorch runs."""
    pytest.importorskip("executorch")
    name = "tiny.executorch.fp32"
    return make_once(name, lambda folder: make_executorch(folder / name)) / name


@pytest.fixture
def tiny_executorch_by_shim(tiny_executorch: Path, executorch_shim: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, run by the shim."""
    monkeypatch.setenv("EDGEFORMER_EXECUTORCH", str(executorch_shim))
    return tiny_executorch


@pytest.fixture(scope="session")
def tiny_image_original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image_without_model(tmp_path_factory.mktemp("bundles") / "tiny_image")


@pytest.fixture
def tiny_image(tiny_image_original: Path, tmp_path: Path) -> Path:
    """A valid bundle of an image classifier without a real model, to corrupt at will."""
    return Path(shutil.copytree(tiny_image_original, tmp_path / "tiny_image"))


@pytest.fixture(scope="session")
def tiny_image_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of an image classifier that ONNX Runtime runs."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    return make_image_onnx(tmp_path_factory.mktemp("bundles") / "tiny_image.onnx.fp32")
