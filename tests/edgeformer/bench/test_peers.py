"""Peers run the bundle's weights on the bundle's input: what they compute is what was recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeformer.bench.command import peer_contenders
from edgeformer.bench.peers import speech_contenders, speech_run
from edgeformer.checkpoints.checkpoint import open_checkpoint
from edgeformer_runtime.bench.contender import Contender
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.vectors import longest_case
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.registry import load_attribute
from tests.checkpoint_factory import save_whisper
from tests.conftest import REPOSITORY
from tests.runtime.tiny_bundle import make_without_model
from tools.conversions import INTENTS_ONNX, THINGS_ONNX, Model, bundles

pytestmark = pytest.mark.slow

IMAGES, TEXTS = "cifar10-tinyvit", "clinc150-mobilebert"


def converted(model: Model) -> Path:
    """The bundle at fp32, which other builds convert, too."""
    return next(path for path, precision in bundles((model,)).items() if precision == "fp32")


@pytest.fixture(scope="module")
def image_bundle() -> Path:
    return converted(THINGS_ONNX)


@pytest.fixture(scope="module")
def text_bundle() -> Path:
    return converted(INTENTS_ONNX)


@pytest.fixture
def speech_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(REPOSITORY / "tests" / "runtime"))  # where it finds its helpers
    from tests.runtime.tiny_speech_bundle import make_speech_without_model

    return make_speech_without_model(tmp_path / "speech")


def output(contender: Contender) -> np.ndarray:
    """What one run gives: each engine has a way of its own to return a single output."""
    result: Any = load_attribute(contender.factory)(**contender.arguments, threads=1)()
    if hasattr(result, "values"):  # OpenVINO
        result = list(result.values())
    if isinstance(result, (list, tuple)):
        (result,) = result
    return np.asarray(result)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_tensor_peers_compute_what_was_recorded(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    for package in ("onnxruntime", "openvino", "ncnn", "pnnx"):
        pytest.importorskip(package)
    path = request.getfixturevalue(f"{kind}_bundle")
    with Bundle.open(path) as bundle:
        (expected,) = longest_case(bundle).outputs.values()
        every = ("onnxruntime", "openvino", "torch", *(("ncnn",) if kind == "image" else ()))
        for batch, names in ((1, every), (3, ("onnxruntime", "torch"))):
            folder = tmp_path / str(batch)
            folder.mkdir()
            contenders = peer_contenders(names, bundle, {"image": IMAGES, "text": TEXTS}[kind], folder, None, batch)
            assert {each.engine for each in contenders} == set(names)
            for each in contenders:
                assert each.batch == batch and each.size_bytes > 100_000
                if each.precision == "fp32":
                    found = output(each).reshape(batch, -1)
                    limit = 1e-3 * np.abs(expected).max()
                    np.testing.assert_allclose(found, np.repeat(expected, batch, axis=0), rtol=0, atol=limit)
        with pytest.raises(InputError, match="ncnn takes one input at a time"):
            peer_contenders(("ncnn",), bundle, {"image": IMAGES, "text": TEXTS}[kind], tmp_path, None, 2)


def test_a_model_that_ends_ncnn(text_bundle: Path, tmp_path: Path) -> None:
    """pnnx converts MobileBERT, and ncnn's process dies with it: that is an error, not the end of the benchmark."""
    for package in ("ncnn", "pnnx"):
        pytest.importorskip(package)
    with Bundle.open(text_bundle) as bundle, pytest.raises(InputError, match=r"ncnn does not run this model \(SIG"):
        peer_contenders(("ncnn",), bundle, TEXTS, tmp_path)


def test_speech_peers_hear(speech_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights say nothing sensible, but every engine loads them and answers."""
    for package in ("ctranslate2", "faster_whisper", "pywhispercpp"):
        pytest.importorskip(package)
    monkeypatch.setenv("EDGEFORMER_CACHE", str(tmp_path / "cache"))
    checkpoint = open_checkpoint(str(save_whisper(tmp_path / "whisper")))
    with Bundle.open(speech_bundle) as bundle:
        names = ("faster-whisper", "whisper.cpp", "torch")
        found = speech_contenders(names, bundle, checkpoint, tmp_path, None, 1)
    assert [(each.name, each.precision) for each in found] == [
        ("faster-whisper", "int8"),
        ("faster-whisper", "float32"),
        ("whisper.cpp", "fp16"),
        ("whisper.cpp", "q8_0"),
        ("torch", "fp32"),
    ]
    assert all(each.size_bytes > 10_000 for each in found)
    heard: Any = speech_run(**found[-1].arguments, threads=1)()
    assert len(heard) == 1 and heard[0].tokens >= 0


def test_a_peer_that_does_not_run_such_a_model(speech_bundle: Path, tmp_path: Path) -> None:
    with Bundle.open(make_without_model(tmp_path / "tiny")) as bundle:
        problem = "does not run text-classification: expected one of onnxruntime"
        with pytest.raises(InputError, match=problem):
            peer_contenders(("faster-whisper",), bundle, None, tmp_path)
    with Bundle.open(speech_bundle) as bundle:
        problem = "does not run speech-recognition: expected one of faster-whisper"
        with pytest.raises(InputError, match=problem):
            peer_contenders(("openvino",), bundle, None, tmp_path)
