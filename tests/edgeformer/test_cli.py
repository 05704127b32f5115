"""The commands as a user runs them: exit codes, JSON on stdout, one line on stderr."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkpoint_factory import save_mobilebert
from tests.edgeformer.command_server import CommandServer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def edgeformer() -> Iterator[CommandServer]:
    """The command in forks of one process, but for the conversion, which is a process as a user starts it."""
    server = CommandServer("edgeformer.convert.convert")
    yield server
    server.close()


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    save_mobilebert(folder / "tiny", num_hidden_layers=1)
    command = [
        Path(sys.executable).with_name("edgeformer"), "convert", folder / "tiny", "--target", "litert",
        "--target", "onnx", "--precision", "fp32", "--precision", "dynamic-int8", "--seq-len", "16,32",
        "--out", folder / "dist", "--json",
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)
    assert [(row["target"], row["precision"], row["ok"]) for row in rows] == [
        ("litert", "fp32", True),
        ("litert", "dynamic-int8", True),
        ("onnx", "fp32", True),
        ("onnx", "dynamic-int8", True),
    ]
    return folder / "dist"


def test_run_json(edgeformer: CommandServer, dist: Path) -> None:
    result = edgeformer("run", dist / "tiny.litert.dynamic-int8", "turn the lights off", "call me", "--json")
    assert result.returncode == 0, result.stderr
    answers = json.loads(result.stdout)
    assert [answer["input"] for answer in answers] == ["turn the lights off", "call me"]
    for answer in answers:
        assert sorted(answer["labels"]) == ["LABEL_0", "LABEL_1", "LABEL_2"]
        assert answer["scores"] == sorted(answer["scores"], reverse=True)
        assert sum(answer["scores"]) == pytest.approx(1, abs=1e-5)


def test_verify_json(edgeformer: CommandServer, dist: Path) -> None:
    result = edgeformer("verify", dist / "tiny.onnx.fp32", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["ok"] and "onnxruntime" in found["executed_by"]
    for stage in found["stages"]:
        assert set(stage) == {"name", "max_abs", "cosine", "tolerance", "ok"}
        assert stage["max_abs"] <= stage["tolerance"]


def test_inspect_json(edgeformer: CommandServer, dist: Path) -> None:
    result = edgeformer("inspect", dist / "tiny.litert.fp32", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["manifest"]["family"] == "mobilebert"


def test_bench_json_against_peers(edgeformer: CommandServer, dist: Path) -> None:
    result = edgeformer(
        "bench", dist / "tiny.litert.fp32", dist / "tiny.litert.dynamic-int8",
        "--against", "onnxruntime,openvino,torch", "--json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    (report,) = json.loads(result.stdout)["reports"]
    rows = report["rows"]
    assert {(row["engine"], row["precision"]) for row in rows} >= {
        ("litert", "fp32"),
        ("litert", "dynamic-int8"),
        ("onnxruntime", "fp32"),
        ("onnxruntime", "dynamic-int8"),
        ("openvino", "fp32"),
        ("torch", "fp32"),
    }
    for row in rows:
        assert row["latency_ms"]["median"] <= row["latency_ms"]["p90"]
        assert row["peak_rss_mb"] > 10 and row["size_bytes"] > 0
    assert rows[0]["ratio_to_first"] == 1


def test_a_corrupted_bundle_is_refused_in_one_line(edgeformer: CommandServer, tmp_path: Path) -> None:
    archive = tmp_path / "bundle.zip"
    archive.write_bytes(b"PK\x03\x04 not really")
    for command in ("run", "verify", "inspect"):
        result = edgeformer(command, archive, *(["hello"] if command == "run" else []))
        assert (result.returncode, result.stdout) == (2, "")
        assert len(result.stderr.strip().splitlines()) == 1 and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("convert", "SOURCE", "--target", "tpu", "--out", "dist"),
        ("convert", "SOURCE", "--precision", "int3", "--out", "dist"),
        ("convert", "EMPTY", "--out", "dist"),
        ("convert", "no/such-model-anywhere", "--out", "dist"),
        ("convert", "SOURCE", "--seq-len", "long", "--out", "dist"),
        ("convert", "SOURCE", "--out", "/proc/nowhere"),
        ("convert", "SOURCE"),
        ("bench", "EMPTY"),
        ("frobnicate",),
    ],
)
def test_bad_arguments_exit_with_2_and_one_line(
    edgeformer: CommandServer, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    save_mobilebert(tmp_path / "tiny")
    places = {"SOURCE": str(tmp_path / "tiny"), "EMPTY": str(tmp_path / "empty")}
    result = edgeformer(*(places.get(argument, argument) for argument in arguments), cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "tiny"]


def test_a_missing_tensor_is_named(edgeformer: CommandServer, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = save_mobilebert(tmp_path / "tiny") / "model.safetensors"
    tensors = load_file(weights)
    del tensors["classifier.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    result = edgeformer("convert", tmp_path / "tiny", "--out", tmp_path / "dist")
    assert result.returncode == 2
    assert "classifier.weight" in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "dist").exists()
