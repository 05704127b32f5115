"""ONNX Runtime over a file with a symbolic length: no padding is computed, and no answer is another."""

from __future__ import annotations

import shutil
from pathlib import Path

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
