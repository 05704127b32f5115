"""ONNX Runtime over a file with a symbolic length: no padding is computed, and no answer is another."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_bundle import SEQ_LENS

from edgeformer_runtime import load
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.engines import open_engine
from edgeformer_runtime.verify.verify import verify

onnx_engine = pytest.importorskip("edgeformer_runtime.engines.onnx")
TEXTS = ("hello", "", "hello world", " ".join(["hello"] * 40))


def test_answers_are_those_of_static_files(tiny_onnx: Path, tiny_onnx_any_length: Path) -> None:
    with load(tiny_onnx) as static, load(tiny_onnx_any_length) as symbolic:
        for text in TEXTS:
            expected, found = static(text), symbolic(text)
            assert found.labels == expected.labels
            assert found.scores == pytest.approx(expected.scores, abs=1e-6)
            assert found.truncated == expected.truncated


def test_its_vectors_hold(tiny_onnx_any_length: Path) -> None:
    assert verify(Bundle.open(tiny_onnx_any_length)).ok


def test_one_session_runs_only_the_tokens_that_are_there(tiny_onnx_any_length: Path) -> None:
    bundle = Bundle.open(tiny_onnx_any_length)
    engine = open_engine(bundle)
    (file,) = {program.file for program in bundle.manifest.programs}
    assert list(engine._sessions) == [file]
    lengths = []

    class Watched:
        """The session, with the lengths that it is asked."""

        def run(self, names: list[str], inputs: dict[str, np.ndarray]) -> object:
            lengths.append({values.shape for values in inputs.values()})
            return session.run(names, inputs)

    session, engine._sessions[file] = engine._sessions[file], Watched()
    program = bundle.manifest.programs[-1]
    for tokens in (0, 1, 2, 3, SEQ_LENS[-1]):
        mask = np.zeros((1, SEQ_LENS[-1]), np.int32)
        mask[:, :tokens] = 1
        engine.run(program.name, {"input_ids": np.ones_like(mask), "attention_mask": mask})
    # A text that hides everything is run as it comes.
    assert lengths == [{(1, length)} for length in (SEQ_LENS[-1], 2, 2, 3, SEQ_LENS[-1])]


def test_a_hole_in_the_mask_is_no_padding() -> None:
    mask = np.array([[1, 0, 1, 0, 0]], np.int32)
    kept = onnx_engine.without_padding({"input_ids": mask + 5, "attention_mask": mask})
    assert {name: values.tolist() for name, values in kept.items()} == {
        "input_ids": [[6, 5, 6]],
        "attention_mask": [[1, 0, 1]],
    }


def test_a_file_whose_length_nobody_bounds_is_refused(tiny_onnx_any_length: Path, tmp_path: Path) -> None:
    """Its inputs would be compared with a manifest that says something else."""
    onnx = pytest.importorskip("onnx")
    from tiny_bundle import seal

    from edgeformer_runtime.bundle.manifest import MANIFEST_NAME, parse
    from edgeformer_runtime.errors import BundleError

    folder = Path(shutil.copytree(tiny_onnx_any_length, tmp_path / "other"))
    manifest = parse((folder / MANIFEST_NAME).read_bytes())
    file = folder / manifest.programs[0].file
    model = onnx.load(file)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "S"
    file.unlink()
    file.write_bytes(model.SerializeToString())
    seal(folder, manifest)
    with pytest.raises(BundleError, match="the manifest declares others"):
        load(folder)


def two_files(folder: Path, dtype: type[np.generic]) -> np.ndarray:
    """y = x + w, twice: `long.onnx` and `short.onnx` have the same w in `weights.bin`, by the names of one each."""
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper
    from onnx.external_data_helper import set_external_data

    weights = np.arange(2048).reshape(2, 1024).astype(dtype)
    folder.mkdir()
    (folder / "weights.bin").write_bytes(bytes(4096) + weights.tobytes())
    for name in ("long", "short"):
        stored = numpy_helper.from_array(weights, f"w_of_{name}")
        set_external_data(stored, "weights.bin", offset=4096, length=weights.nbytes)
        stored.ClearField("raw_data")
        small = numpy_helper.from_array(np.ones(2, np.int64), "small")
        code = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        graph = helper.make_graph(
            [helper.make_node("Add", ["x", f"w_of_{name}"], ["y"])],
            name,
            [helper.make_tensor_value_info("x", code, [2, 1024])],
            [helper.make_tensor_value_info("y", code, [2, 1024])],
            [stored, small],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
        assert onnx.load(folder / f"{name}.onnx").graph.initializer[0].raw_data == weights.tobytes()
    return weights


def stepwise(folder: Path, weights: str) -> Any:
    """What keeps the sessions of a model of many files, over the two."""
    programs = [SimpleNamespace(file=f"{name}.onnx") for name in ("long", "short")]
    manifest = SimpleNamespace(programs=programs, recipe=SimpleNamespace(weights=weights))
    bundle = SimpleNamespace(path=lambda name: folder / name, manifest=manifest)
    return onnx_engine._Stepwise(bundle, onnx_engine.onnxruntime.SessionOptions)


def test_sessions_of_many_files_share_float_weights(tmp_path: Path) -> None:
    expected = two_files(tmp_path / "model", np.float32)
    kept = stepwise(tmp_path / "model", "float32")
    sessions: dict[str, Any] = {}
    for file in ("long.onnx", "short.onnx"):
        kept.make_room(file, sessions)
        options = kept.options(file)
        sessions[file] = onnx_engine.onnxruntime.InferenceSession(
            str(tmp_path / "model" / file), options, providers=["CPUExecutionProvider"]
        )
    x = np.full((2, 1024), 0.5, np.float32)
    for session in sessions.values():
        np.testing.assert_array_equal(session.run(None, {"x": x})[0], expected + 0.5)
    (value,) = kept._values.values()
    np.testing.assert_array_equal(value.numpy(), expected)
    (other,) = kept._weights["short.onnx"]
    assert (other.name, other.dtype, other.shape, other.file) == ("w_of_short", "float32", (2, 1024), "weights.bin")
    assert (other.offset, other.length) == (4096, expected.nbytes)


def test_sessions_with_copies_of_their_own_are_closed_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three stay whatever they take; of the others those that were used last, as far as there is room."""
    two_files(tmp_path / "model", np.int8)
    kept = stepwise(tmp_path / "model", "int8")
    monkeypatch.setattr(onnx_engine._Stepwise, "_own_bytes", lambda _, __: 10)
    kept._weights = {file: [] for file in "abcdef"}
    sessions: dict[str, Any] = {}

    def use(files: str) -> str:
        for file in files:
            kept.make_room(file, sessions)
            sessions.setdefault(file, object())
        return "".join(sessions)

    monkeypatch.setattr(onnx_engine, "_KEPT_BYTES", 40)
    assert use("abcd") == "abcd"
    assert use("ae") == "cdae"
    monkeypatch.setattr(onnx_engine, "_KEPT_BYTES", 5)
    assert use("f") == "aef"
