"""Every engine gives the reference's numbers, checks its inputs, and says what is missing."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import TinyEngine, manifest, seal

from edgeformer_runtime import engines, load
from edgeformer_runtime.bundle.bundle import Bundle, pack
from edgeformer_runtime.bundle.manifest import Manifest, parse
from edgeformer_runtime.engines import ENGINES, open_engine
from edgeformer_runtime.errors import BundleError, EngineError, InputError
from edgeformer_runtime.verify.verify import verify

INSTALLED = [
    pytest.param("tiny_litert", marks=pytest.mark.litert),
    "tiny_onnx",
    pytest.param("tiny_executorch", marks=[pytest.mark.executorch, pytest.mark.slow]),
    pytest.param("tiny_executorch_by_shim", marks=[pytest.mark.executorch, pytest.mark.slow]),
]


@pytest.fixture(params=INSTALLED)
def real(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def inputs(length: int = 8) -> dict[str, np.ndarray]:
    return {name: np.ones((1, length), np.int32) for name in ("input_ids", "attention_mask")}


def change_manifest(folder: Path, tmp_path: Path, change) -> Path:
    """A copy of a bundle with another, valid manifest."""
    import shutil

    copy = Path(shutil.copytree(folder, tmp_path / "changed"))
    seal(copy, change(parse((copy / "manifest.json").read_bytes())))
    return copy


def test_same_numbers_as_the_reference(real: Path) -> None:
    with Bundle.open(real) as bundle:
        outcome = verify(bundle)
    assert outcome.ok, outcome
    assert outcome.executed_by.split()[0] in ("ai-edge-litert", "onnxruntime", "executorch")
    assert outcome.note is None


def test_zip(real: Path, tmp_path: Path) -> None:
    pack(real, tmp_path / "bundle.zip")
    with load(tmp_path / "bundle.zip") as pipeline, load(real) as other:
        assert pipeline("hello").scores == other("hello").scores


def test_inputs_are_checked(real: Path) -> None:
    with Bundle.open(real) as bundle:
        engine = open_engine(bundle)
        for program, given, problem in (
            ("seq_9", inputs(), "unknown program 'seq_9': did you mean seq_8\\? expected one of seq_8, seq_16"),
            ("seq_8", {"input_ids": inputs()["input_ids"]}, "expected the inputs input_ids, attention_mask"),
            ("seq_8", inputs() | {"more": np.ones(1)}, "found attention_mask, input_ids, more"),
            ("seq_8", inputs(16), r"expected int32 \(1, 8\), found int32 \(1, 16\)"),
            ("seq_8", inputs() | {"input_ids": np.ones((1, 8))}, "found float64"),
            ("seq_8", inputs() | {"input_ids": [[1] * 8]}, "expected a numpy array, found list"),
        ):
            with pytest.raises(InputError, match=problem):
                engine.run(program, given)
        engine.close()


def test_outputs_are_the_callers(real: Path) -> None:
    with Bundle.open(real) as bundle:
        engine = open_engine(bundle)
        first = engine.run("seq_8", inputs())["output"]
        kept = first.copy()
        engine.run("seq_8", inputs() | {"input_ids": np.full((1, 8), 5, np.int32)})
        np.testing.assert_array_equal(first, kept)
        first[:] = 0
        np.testing.assert_array_equal(engine.run("seq_8", inputs())["output"], kept)
        strided = np.ones((1, 16), np.int32)[:, ::2]
        np.testing.assert_array_equal(engine.run("seq_8", inputs() | {"input_ids": strided})["output"], kept)
        engine.close()
        engine.close()
        with pytest.raises(EngineError, match="engine is closed"):
            engine.run("seq_8", inputs())


def test_several_threads(real: Path) -> None:
    texts = ["hello", "turn the lights off", "on " * 12, ""]
    reference = load(real, engine=TinyEngine())
    expected = {text: reference(text).to_json() for text in texts}
    with load(real, threads=2) as pipeline, ThreadPoolExecutor(4) as pool:
        for text, result in zip(texts * 50, pool.map(pipeline, texts * 50), strict=True):
            assert result.labels == tuple(expected[text]["labels"])
            assert result.scores == pytest.approx(expected[text]["scores"], abs=1e-5)


def test_a_model_that_is_none(real: Path, tmp_path: Path) -> None:
    def corrupt(good: Manifest) -> Manifest:
        (tmp_path / "changed" / good.programs[0].file).write_bytes(b"no model" * 100)
        return good

    with Bundle.open(change_manifest(real, tmp_path, corrupt)) as bundle, pytest.raises(BundleError) as caught:
        open_engine(bundle)
    assert str(caught.value).endswith("convert the bundle again, or get it again from its publisher")
    assert "\n" not in str(caught.value)


def test_another_name_in_the_manifest_than_in_the_model(real: Path, tmp_path: Path) -> None:
    def rename(good: Manifest) -> Manifest:
        first, second = good.programs
        if good.target == "onnx":
            return replace(good, programs=(replace(first, outputs=(replace(first.outputs[0], name="z"),)), second))
        return replace(good, programs=(replace(first, entry="other"), second))

    changed = change_manifest(real, tmp_path, rename)
    with Bundle.open(changed) as bundle, pytest.raises(BundleError, match="convert the bundle again"):
        open_engine(bundle)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, None, 5000])
def test_threads(tiny: Path, threads: object) -> None:
    with Bundle.open(tiny) as bundle, pytest.raises(InputError, match="threads: expected 1 to 1024, found"):
        open_engine(bundle, threads)  # type: ignore[arg-type]


def test_every_target_has_an_engine_and_a_way_to_install_it() -> None:
    import json
    from importlib import resources

    schema = json.loads(resources.files("edgeformer_runtime").joinpath("manifest.schema.json").read_text())
    assert set(schema["properties"]["target"]["enum"]) == set(ENGINES) == set(engines.INSTALL)


def test_missing_package(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "edgeformer_runtime.engines.onnx", raising=False)
    with Bundle.open(tiny) as bundle, pytest.raises(EngineError) as caught:
        open_engine(bundle)
    assert str(caught.value) == (
        "a bundle for onnx needs the package onnxruntime: pip install 'edgeformer-runtime[onnx]'"
    )


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML is there")
def test_core_ml_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeformer_runtime.model_files.check_model_files", lambda _: {})  # there is no model in it
    package = tmp_path / "apple" / "model.mlpackage"
    package.mkdir(parents=True)
    (package / "Manifest.json").write_text("{}")
    unsealed = manifest("coreml", model="model.mlpackage")
    seal(tmp_path / "apple", replace(unsealed, preprocessing=replace(unsealed.preprocessing, tokenizer=None)))
    with pytest.raises(EngineError, match=r"macOS and iOS only, this is linux: `edgeformer verify`"):
        load(tmp_path / "apple")
