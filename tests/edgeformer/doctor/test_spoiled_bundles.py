"""Bundles that break on devices, and valid ones: doctor names the cause, and nothing where there is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgeformer.doctor.diagnosis import Diagnosis, diagnose
from edgeformer.doctor.examiner import DoctorOptions, Finding, Severity, examiner_for
from edgeformer_converters.litert.graph import LiteRTGraph
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.errors import BundleError, InputError
from tests.edgeformer.doctor.conftest import HUGE_MASK, TARGETS, edit_manifest

pytestmark = pytest.mark.slow
MODEL_FILES = {"litert": "model.tflite", "executorch": "model.pte", "onnx": "model.onnx"}


def examine(path: Path, **options: Any) -> Diagnosis:
    return diagnose(path, DoctorOptions(**options))


def worst(diagnosis: Diagnosis) -> list[Finding]:
    return [each for each in diagnosis.findings if each.severity in (Severity.ERROR, Severity.WARNING)]


@pytest.mark.parametrize("target", TARGETS)
def test_an_intact_bundle_has_no_error_and_no_warning(target: str, bundles: dict[str, Path]) -> None:
    diagnosis = examine(bundles[target])
    assert diagnosis.ok
    assert worst(diagnosis) == []
    assert {support.supported for support in diagnosis.operators} == {True}
    with Bundle.open(bundles[target]) as bundle:
        listed = bundle.manifest.operators
    counts: dict[str, int] = {}
    for support in diagnosis.operators:
        counts[support.operator.name] = counts.get(support.operator.name, 0) + support.operator.count
    assert counts == listed
    (program,) = diagnosis.programs
    # Embeddings (16 positions of 3 x 32 numbers), and less than all intermediate values together.
    assert 16 * 96 * 4 <= program.activation_bytes < 1_000_000
    json.dumps(diagnosis.to_json(), allow_nan=False)


@pytest.mark.parametrize("target", TARGETS)
def test_a_huge_mask_is_named(target: str, masked: dict[str, Path]) -> None:
    (finding,) = [each for each in worst(examine(masked[target])) if each.check == "mask"]
    assert finding.severity is Severity.WARNING  # at fp32
    assert f"{HUGE_MASK:g}" in finding.what
    assert "65504" in finding.why


@pytest.mark.parametrize("target", TARGETS)
def test_a_huge_mask_is_an_error_at_other_precisions(
    target: str, masked: dict[str, Path], corrupted: Callable[..., Path]
) -> None:
    path = corrupted(masked[target], lambda folder: edit_manifest(folder, lambda each: each.update(precision="fp16")))
    diagnosis = examine(path)
    assert not diagnosis.ok
    assert "mask" in [each.check for each in diagnosis.findings if each.severity is Severity.ERROR]


@pytest.mark.parametrize("target", TARGETS)
def test_a_changed_byte_is_an_error_and_no_crash(target: str, bundles: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundles[target], folder)
    path = max((each for each in folder.rglob("*") if each.is_file()), key=lambda each: each.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    (finding,) = examine(folder).findings
    assert (finding.check, finding.severity) == ("integrity", Severity.ERROR)
    assert path.name in finding.what and "SHA-256" in finding.what


def test_what_is_no_bundle_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no manifest\.json"):
        examine(tmp_path)
    with pytest.raises(BundleError, match="no bundle at"):
        examine(tmp_path / "nowhere")
    with pytest.raises(InputError, match="--min-ios"):
        DoctorOptions(min_ios="new")


def corrupt_whole(path: Path) -> None:
    path.write_bytes(b"x" * 4000)


def test_a_model_file_that_is_none(bundles: dict[str, Path], corrupted: Callable[..., Path]) -> None:
    for target, name in MODEL_FILES.items():
        path = corrupted(bundles[target], lambda folder, name=name: corrupt_whole(folder / name))
        (finding,) = examine(path).findings
        assert (finding.check, finding.severity) == ("structure", Severity.ERROR)
        assert name in finding.what


def test_exchanged_labels_are_named(bundles: dict[str, Path], corrupted: Callable[..., Path]) -> None:
    def exchange(manifest: dict[str, Any]) -> None:
        labels = manifest["postprocessing"]["labels"]
        labels[0], labels[2] = labels[2], labels[0]

    path = corrupted(bundles["onnx"], lambda folder: edit_manifest(folder, exchange))
    (finding,) = [each for each in examine(path).findings if each.check == "labels"]
    assert finding.severity is Severity.ERROR
    assert finding.what == "the scores are right, but the labels 'greeting' and 'lights' are exchanged"


def drop_onnx(folder: Path) -> None:
    model = onnx.load(folder / MODEL_FILES["onnx"])
    (dropped,) = [node for node in model.graph.node if node.op_type == "Tanh"][:1] or [model.graph.node[-2]]
    model.graph.node.remove(dropped)
    (folder / MODEL_FILES["onnx"]).write_bytes(model.SerializeToString())


def drop_litert(folder: Path) -> None:
    graph = LiteRTGraph(folder / MODEL_FILES["litert"])
    operators = graph.model.subgraphs[0].operators
    del operators[next(index for index, each in enumerate(operators) if graph.name(each) == "SOFTMAX")]
    (folder / MODEL_FILES["litert"]).write_bytes(graph.to_bytes())


def drop_coreml(folder: Path) -> None:
    from coremltools.proto import Model_pb2

    path = folder / "model.mlpackage/Data/com.apple.CoreML/model.mlmodel"
    model = Model_pb2.Model.FromString(path.read_bytes())
    (function,) = model.mlProgram.functions.values()
    operations = function.block_specializations[function.opset].operations
    operations.remove(next(each for each in operations if each.type == "layer_norm"))
    path.write_bytes(model.SerializeToString())


def drop_executorch(folder: Path) -> None:
    from executorch.exir._serialize._program import deserialize_pte_binary, serialize_pte_binary

    path = folder / MODEL_FILES["executorch"]
    file = deserialize_pte_binary(path.read_bytes())
    plan = file.program.execution_plan[0]
    instructions = plan.chains[0].instructions
    instructions.remove(
        next(
            each
            for each in instructions
            if plan.operators[getattr(each.instr_args, "op_index", 0)].name == "aten::native_layer_norm"
            and hasattr(each.instr_args, "op_index")
        )
    )
    path.write_bytes(bytes(serialize_pte_binary(file, extract_delegate_segments=True)))


@pytest.mark.parametrize(
    ("target", "drop", "operator"),
    [
        ("onnx", drop_onnx, "Tanh"),
        ("litert", drop_litert, "SOFTMAX"),
        ("coreml", drop_coreml, "layer_norm"),
        ("executorch", drop_executorch, "aten::native_layer_norm.out"),
    ],
)
def test_a_dropped_operator_is_named(
    target: str,
    drop: Callable[[Path], None],
    operator: str,
    bundles: dict[str, Path],
    corrupted: Callable[..., Path],
) -> None:
    findings = [each for each in examine(corrupted(bundles[target], drop)).findings if each.severity is Severity.ERROR]
    assert {each.check for each in findings} == {"structure"}
    texts = [each.what for each in findings]
    assert any(f"lists {operator} " in text for text in texts), texts
    # In a .pte the place that the dropped operator would have written to was another value's before.
    if target != "executorch":
        assert any("which no operator before it makes" in text for text in texts), texts


def corrupt_largest(name: str) -> Callable[[Path], None]:
    """Put NaN at the start of a model file's largest constant."""

    def corrupt(folder: Path) -> None:
        with Bundle.open(folder) as bundle:
            view = examiner_for(bundle.manifest.target).read(bundle)
            place = max(view.placements, key=lambda each: each.size_bytes)
        content = bytearray((folder / name).read_bytes())
        content[place.offset : place.offset + 4] = np.array(np.nan, np.float32).tobytes()
        (folder / name).write_bytes(content)

    return corrupt


@pytest.mark.parametrize("target", ["litert", "executorch"])
def test_a_weight_that_is_not_a_number_is_named(
    target: str, bundles: dict[str, Path], corrupted: Callable[..., Path]
) -> None:
    diagnosis = examine(corrupted(bundles[target], corrupt_largest(MODEL_FILES[target])))
    assert "weights" in [each.check for each in diagnosis.findings if each.severity is Severity.ERROR]


def test_activations_beyond_float16_are_named(bundles: dict[str, Path], corrupted: Callable[..., Path]) -> None:
    def enlarge(folder: Path) -> None:
        model = onnx.load(folder / MODEL_FILES["onnx"])
        (scale,) = [
            each
            for each in model.graph.initializer
            if each.name == next(node for node in model.graph.node if node.op_type == "LayerNormalization").input[1]
        ]
        scale.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(scale) * np.float32(1e6), scale.name))
        (folder / MODEL_FILES["onnx"]).write_bytes(model.SerializeToString())

    diagnosis = examine(corrupted(bundles["onnx"], enlarge))
    (finding,) = [each for each in diagnosis.findings if each.check == "float16"]
    assert finding.severity is Severity.WARNING  # ONNX Runtime computes in float32 on a CPU
    assert "seq_16" in finding.what and "65504" in finding.why
    largest = diagnosis.programs[0].largest
    assert largest is not None and largest > 65504


def test_activations_beyond_float16_are_an_error_where_it_is_computed_in(
    bundles: dict[str, Path], corrupted: Callable[..., Path]
) -> None:
    def enlarge(folder: Path) -> None:
        edit_manifest(folder, lambda each: each.update(precision="fp16"))
        with Bundle.open(bundles["coreml"]) as bundle:
            placements = examiner_for("coreml").read(bundle).placements
        place = next(each for each in placements if "layernorm_weight" in each.what)
        path = folder / place.file
        content = bytearray(path.read_bytes())
        start = place.offset + 64  # behind what the blob says of itself
        scales = np.frombuffer(content, np.float32, 64, start)
        assert scales.min() > 0.5 and scales.max() < 2
        content[start : start + 256] = (scales * np.float32(1e6)).tobytes()
        path.write_bytes(content)

    diagnosis = examine(corrupted(bundles["coreml"], enlarge))
    (finding,) = [each for each in diagnosis.findings if each.check == "float16"]
    assert finding.severity is Severity.ERROR
    assert "layer_norm" in finding.what or "add" in finding.what
    assert "65504" in finding.why


def test_systems_that_do_not_run_it(bundles: dict[str, Path]) -> None:
    found = [each for each in examine(bundles["coreml"], min_ios="17.0").findings if each.severity is Severity.ERROR]
    assert {each.check for each in found} == {"systems", "operators"}
    assert any("iOS 18.0" in each.what and "17.0" in each.what for each in found)
    assert examine(bundles["coreml"], min_ios="18").ok
    (android,) = worst(examine(bundles["coreml"], min_android_api=26))
    assert "does not run on Android" in android.what
    assert examine(bundles["litert"], min_android_api=26, min_ios="17").ok
    assert not examine(bundles["litert"], min_android_api=21).ok


def test_runtimes_that_lack_operators(bundles: dict[str, Path]) -> None:
    (old,) = worst(examine(bundles["onnx"], runtime="1.16.3"))
    assert (old.check, old.severity) == ("operators", Severity.ERROR)
    assert "since ONNX Runtime 1.17" in old.what
    assert examine(bundles["litert"], runtime="tflite-2.14.0").ok
    assert not examine(bundles["litert"], runtime="tflite-1.13.0").ok
    (other,) = worst(examine(bundles["executorch"], runtime="1.0.0"))
    assert (other.check, other.severity) == ("operators", Severity.WARNING)
    assert "not known" in other.what
    with pytest.raises(InputError, match="--runtime"):
        examine(bundles["onnx"], runtime="latest")


def test_a_tokenizer_that_differs_is_named(bundles: dict[str, Path], corrupted: Callable[..., Path]) -> None:
    def keep_capitals(folder: Path) -> None:
        path = folder / "tokenizer.json"
        text = path.read_text()
        # The reference is built from the settings: so what is corrupted is what it does not read.
        assert '"max_input_chars_per_word":100' in text
        path.write_text(text.replace('"max_input_chars_per_word":100', '"max_input_chars_per_word":5'))

    diagnosis = examine(corrupted(bundles["onnx"], keep_capitals))
    (finding,) = [each for each in diagnosis.findings if each.check == "tokenizer" and each.severity is Severity.ERROR]
    assert "line" in finding.what and "the reference says" in finding.what
