"""`convert` from a public-format checkpoint to sealed, verified bundles."""

from __future__ import annotations

import filecmp
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from edgeformer.attention import KERNELS
from edgeformer.checkpoints import weights
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer.convert import bundle_writer
from edgeformer.convert.convert import ConvertOptions, convert
from edgeformer.convert.layer_plan import LayerPlan, quantizable_layers
from edgeformer.convert.result import Converted
from edgeformer.tasks.text import gate_texts
from edgeformer_runtime import load
from edgeformer_runtime.bundle import bundle as runtime_bundle
from edgeformer_runtime.bundle import vectors
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.engines import open_engine
from edgeformer_runtime.errors import InputError
from tests.checkpoint_factory import save_mobilebert

pytestmark = pytest.mark.slow
SEQ_LENS = (16, 32)
RUNS_HERE = ("litert", "onnx", "executorch")
PRECISIONS = ("fp32", "dynamic-int8")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # With layer norms, as the zoo's: they leave XNNPACK several pieces in ExecuTorch.
    # One layer, as each more is lowered sixteen times here; `test_verify_layers` has three.
    folder = tmp_path_factory.mktemp("source") / "tiny"
    return save_mobilebert(folder, normalization_type="layer_norm", num_hidden_layers=1)


@pytest.fixture(scope="module")
def work() -> Counter[tuple[str, str]]:
    """How often the conversion did what it should do once, with the file that it did it to."""
    return Counter()


@pytest.fixture(scope="module")
def converted(
    checkpoint: Path, work: Counter[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], Converted]:
    out = tmp_path_factory.mktemp("dist")
    with pytest.MonkeyPatch.context() as patch:

        def count(owner: object, name: str, file_of: Callable[..., object]) -> None:
            original = getattr(owner, name)

            def counted(*arguments: object) -> object:
                work[name, str(file_of(*arguments))] += 1
                return original(*arguments)

            patch.setattr(owner, name, counted)

        count(weights, "load_weights", lambda files: files[0].name)
        count(bundle_writer, "_sha256", lambda path: path.as_posix().partition("/new/")[2])
        count(runtime_bundle, "_compare_hash", lambda name, entry, _: f"{name} {entry.sha256}")
        count(vectors, "_read", lambda bundle: bundle.folder.name)
        rows = convert(
            ConvertOptions(
                source=str(checkpoint),
                out=out,
                targets=("litert", "coreml", "executorch", "onnx"),
                precisions=PRECISIONS,
                seq_lens=SEQ_LENS,
                zipped=True,
            )
        )
    assert not list(out.glob(".edgeformer-*")), "the staging folder must go"
    return {(row.target, row.precision): row for row in rows}


def test_every_target_and_precision_passes_its_gates(converted: dict[tuple[str, str], Converted]) -> None:
    assert set(converted) == {(t, p) for t in ("litert", "coreml", "executorch", "onnx") for p in PRECISIONS}
    for row in converted.values():
        assert row.ok, row.problems
        assert [stage.name for stage in row.verification.stages] == ["preprocess", "seq_16", "seq_32", "answer"]


def test_nothing_is_read_hashed_or_parsed_twice(
    converted: dict[tuple[str, str], Converted], work: Counter[tuple[str, str]]
) -> None:
    assert {file: times for (name, file), times in work.items() if name == "load_weights"} == {"model.safetensors": 1}
    bundles = {row.path.name: row.path for row in converted.values()}
    files = {
        f"{name}/{path.relative_to(folder).as_posix()}"
        for name, folder in bundles.items()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    assert {file: times for (name, file), times in work.items() if name == "_sha256"} == dict.fromkeys(files, 1)
    # Bundles share files, which have one name and hash.
    assert sum(times for (name, _), times in work.items() if name == "_compare_hash") == len(files)
    assert {file: times for (name, file), times in work.items() if name == "_read"} == dict.fromkeys(bundles, 1)


@pytest.mark.parametrize("target", RUNS_HERE)
def test_fp32_bundles_equal_transformers(
    target: str, converted: dict[tuple[str, str], Converted], checkpoint: Path
) -> None:
    model = transformers.MobileBertForSequenceClassification.from_pretrained(checkpoint).eval()
    generator = np.random.default_rng(0)
    with Bundle.open(converted[target, "fp32"].path) as bundle:
        engine = open_engine(bundle, threads=1)
        for seq_len in SEQ_LENS:
            mask = (np.arange(seq_len) < seq_len - 5).astype(np.int32)[None]
            inputs = {
                # Padding is padding: MobileBERT's convolution sees what follows the last token, and ONNX cuts it off.
                "input_ids": generator.integers(0, 100, (1, seq_len), dtype=np.int32) * mask,
                "attention_mask": mask,
                "token_type_ids": np.zeros((1, seq_len), np.int32),
            }
            with torch.inference_mode():
                expected = model(**{name: torch.from_numpy(array).long() for name, array in inputs.items()}).logits
            np.testing.assert_allclose(engine.run(f"seq_{seq_len}", inputs)["logits"], expected.numpy(), atol=1e-4)
        engine.close()


def test_core_ml_is_executed_by_the_reference_interpreter(converted: dict[tuple[str, str], Converted]) -> None:
    assert "mil-reference" in converted["coreml", "fp32"].verification.executed_by


def test_the_smallest_bucket_that_fits_is_used(converted: dict[tuple[str, str], Converted]) -> None:
    pipeline = load(converted["litert", "fp32"].path)
    assert pipeline.prepare("turn the lights off").program == "seq_16"
    assert pipeline.prepare("turn the lights off " * 6).program == "seq_32"
    assert pipeline("turn the lights off " * 60).truncated


def test_the_zip_is_the_same_bundle(converted: dict[tuple[str, str], Converted]) -> None:
    path = converted["litert", "dynamic-int8"].path
    folder, archive = load(path), load(path.with_name(path.name + ".zip"))
    assert folder("what is the weather").scores == archive("what is the weather").scores


def test_the_report_has_no_times(converted: dict[tuple[str, str], Converted]) -> None:
    report = json.loads((converted["litert", "fp32"].path / "report.json").read_text())
    assert set(report) == {"verification", "agreement", "partitions", "problems"}


def test_the_report_of_a_mixed_bundle_has_the_format_of_each_layer(checkpoint: Path, tmp_path: Path) -> None:
    plan = LayerPlan({"classifier": "fp32"}, default="int8")
    plan.write(tmp_path / "plan.json")
    options = ConvertOptions(
        str(checkpoint),
        tmp_path / "out",
        targets=("onnx",),
        precisions=("mixed",),
        seq_lens=(16,),
        plan=tmp_path / "plan.json",
    )
    (row,) = convert(options)
    assert row.ok, row.problems
    module, _ = load_module(open_checkpoint(str(checkpoint)), KERNELS["dense"])
    layers = json.loads((row.path / "report.json").read_text())["layers"]
    assert layers == {name: "fp32" if name == "classifier" else "int8" for name in quantizable_layers(module)}


def test_the_report_says_how_often_the_answer_is_the_checkpoints(
    converted: dict[tuple[str, str], Converted],
) -> None:
    for row in converted.values():
        report = json.loads((row.path / "report.json").read_text())
        found = report["agreement"]
        assert found == row.to_json()["agreement"]
        recorded = json.loads((row.path / "vectors" / "cases.json").read_text())["cases"]
        assert found["n"] == len(recorded) + len(gate_texts(SEQ_LENS)) > 100
        # Untrained logits are close to one another.
        assert found["cosine"] > 0.99 and found["broken"] == 0 and found["metric"] is None
        assert found["top1"] == 1.0 if row.precision == "fp32" else found["top1"] >= 0.5


def test_a_second_conversion_gives_the_same_bytes(
    converted: dict[tuple[str, str], Converted], checkpoint: Path, tmp_path: Path
) -> None:
    again = convert(
        ConvertOptions(str(checkpoint), tmp_path, targets=("litert", "onnx"), precisions=PRECISIONS, seq_lens=SEQ_LENS)
    )
    for row in again:
        first = converted[row.target, row.precision].path
        names = [p.relative_to(first).as_posix() for p in first.rglob("*") if p.is_file()]
        match, mismatch, errors = filecmp.cmpfiles(first, row.path, names, shallow=False)
        assert (mismatch, errors) == ([], []) and len(match) == len(names)


def test_a_checkpoint_without_tokenizer_takes_token_ids(tmp_path: Path) -> None:
    source = save_mobilebert(tmp_path / "source", with_tokenizer=False, num_hidden_layers=1)
    (row,) = convert(ConvertOptions(str(source), tmp_path / "dist", ("onnx",), seq_lens=(16,)))
    pipeline = load(row.path)
    assert len(pipeline([5, 6, 7]).labels) == 3
    with pytest.raises(InputError, match="token ids"):
        pipeline("turn the lights off")


def test_an_existing_bundle_is_replaced_and_anything_else_is_not(checkpoint: Path, tmp_path: Path) -> None:
    options = ConvertOptions(str(checkpoint), tmp_path / "dist", ("onnx",), seq_lens=(16,), name="tiny")
    first, second = convert(options), convert(options)
    assert first[0].path == second[0].path
    other = tmp_path / "dist" / "tiny.onnx.fp16"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="is not a bundle"):
        convert(replace(options, precisions=("fp16",)))
    assert [p.name for p in other.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": ("tpu",)}, "unknown target 'tpu': expected one of litert"),
        ({"precisions": ("int3",)}, r"unknown precision 'int3': did you mean .*\? expected one of fp32"),
        ({"attention": "flash"}, "unknown attention kernel 'flash': expected one of"),
        ({"task": "poetry"}, "unknown task 'poetry': expected one of"),
        ({"name": "../evil"}, "expected a name of letters"),
        ({"seq_lens": (0,)}, "at least 2"),
        ({"seq_lens": (4096,)}, "4096"),
        ({"source": "/nonexistent/folder"}, "/nonexistent/folder"),
        ({"out": Path("/proc/nowhere")}, "cannot write into /proc/nowhere"),
    ],
)
def test_bad_options_are_refused_in_one_line_and_leave_nothing(
    change: dict[str, object], message: str, checkpoint: Path, tmp_path: Path
) -> None:
    settings: dict[str, object] = {"source": str(checkpoint), "out": tmp_path / "a" / "b", "seq_lens": (16,)} | change
    with pytest.raises(InputError, match=message) as raised:
        convert(ConvertOptions(**settings))  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    def interrupt(step: str, *_: int) -> None:
        if "verifying" in step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(ConvertOptions(str(checkpoint), tmp_path / "out", ("onnx",), seq_lens=(16,)), interrupt)
    assert not list(tmp_path.iterdir())
