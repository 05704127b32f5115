"""Every task's record is complete, and one of another author needs one file."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundle import complete, manifest

from edgeformer_runtime import load
from edgeformer_runtime.bundle import strict_json
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import Manifest, TensorSpec, parse
from edgeformer_runtime.cli.run import RunOptions
from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.pipelines import Pipeline
from edgeformer_runtime.registry import load_attribute
from edgeformer_runtime.tasks.task import TASKS, AnswerKind, InputKind, Task

pytest.importorskip("fastapi")

TOY = "tests.edgeformer.tasks.toy_task:TASK"
ENTRY_POINTS = f"[edgeformer_runtime.tasks]\ntext-rating = {TOY}\n"


@pytest.mark.parametrize("name", TASKS)
def test_a_record_is_complete(name: str) -> None:
    task = TASKS[name]
    assert isinstance(task, Task) and task.name == name
    assert issubclass(load_attribute(task.pipeline), Pipeline)
    for lazy in (task.serve, task.takes.run, task.takes.frame, task.gives.workload):
        assert callable(load_attribute(lazy))
    found = load_attribute(task.gives.result)
    for result in found.KINDS.values() if hasattr(found, "KINDS") else (found,):
        assert {"truncated", "statistics", "to_json", "to_frame", "from_frame"} <= {
            *dir(result), *(field.name for field in dataclasses.fields(result))
        }  # fmt: skip
    assert {"play", "comparisons"} <= set(dir(load_attribute(task.gives.replay)))
    assert task.gives.options is None or dataclasses.is_dataclass(load_attribute(task.gives.options))
    assert set(task.takes.options) <= {*RunOptions().given(), "-"}
    assert task.takes.answer_s > task.takes.patience_s > 0
    assert all(form == tuple(sorted(form)) for form in task.takes.stored_forms)
    assert task.takes.stored_file in (None, *(key for form in task.takes.stored_forms for key in form))
    for part in (task.takes, task.gives):
        (kind,) = (field.default for field in dataclasses.fields(part.record) if field.name == "kind")
        assert kind == part.kind


def test_the_schema_has_the_tasks_and_kinds_of_the_registry() -> None:
    properties = strict_json.load_schema("manifest.schema.json")["properties"]
    ours = [TASKS[name] for name in TASKS.entries]
    assert properties["task"]["enum"] == [task.name for task in ours]
    kinds: list[tuple[str, list[InputKind | AnswerKind]]] = [
        ("preprocessing", [task.takes for task in ours]),
        ("postprocessing", [task.gives for task in ours]),
    ]
    for key, parts in kinds:
        assert properties[key]["properties"]["kind"]["enum"] == list(dict.fromkeys(part.kind for part in parts))
        assert all(part.schema is None for part in parts)


def test_records_import_no_library_but_numpy() -> None:
    code = (
        "import sys; from edgeformer_runtime.tasks.task import TASKS; list(TASKS.values()); "
        "print([name for name in ('safetensors', 'tokenizers', 'PIL', 'fastapi', 'typer') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# The toy: a bundle whose model counts tokens.


def toy_manifest() -> Manifest:
    from tests.edgeformer.tasks.toy_task import Score

    text = manifest(model="model_{}.onnx")
    programs = tuple(
        dataclasses.replace(program, outputs=(TensorSpec("output", "float32", (1, 1)),)) for program in text.programs
    )
    return dataclasses.replace(
        text,
        name="toy",
        task="text-rating",
        programs=programs,
        postprocessing=Score(scale=0.5),
        operators={"Cast": 2, "ReduceSum": 2},
    )


def make_toy(folder: Path) -> Path:
    """For ONNX Runtime; its output is the number of tokens."""
    from onnx import TensorProto, helper, numpy_helper, save

    folder.mkdir()
    for program in toy_manifest().programs:
        inputs = [helper.make_tensor_value_info(each.name, TensorProto.INT32, each.shape) for each in program.inputs]
        nodes = [
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["mask", "last"], ["output"], keepdims=1),
        ]
        output = helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 1])
        last = numpy_helper.from_array(np.array([1], np.int64), "last")
        graph = helper.make_graph(nodes, "toy", inputs, [output], [last])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        save(model, str(folder / program.file))
    return folder


class Counter:
    """The reference: the number of tokens."""

    name = "numpy"
    executed_by = "numpy reference"
    not_covered: str | None = None

    def run(self, program: str, inputs: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        return {"output": inputs["attention_mask"].sum(axis=1, keepdims=True).astype(np.float32)}

    def close(self) -> None:
        pass


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place on the path where a package of another author is installed, which has the toy's entry point."""
    site = tmp_path / "site"
    info = site / "toy-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(site))
    return site


@pytest.fixture
def toy(installed: Path, tmp_path: Path) -> Path:  # noqa: ARG001
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    return complete(make_toy(tmp_path / "toy"), toy_manifest(), engine=Counter())


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command line in this process: exit code, stdout, stderr."""
    from edgeformer_runtime.cli import app
    from edgeformer_runtime.cli.console import run_app

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            run_app(app.app, [str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return call


def test_another_authors_task_answers(toy: Path, command: Callable[..., tuple[int, str, str]]) -> None:
    # "[CLS] turn the lights off ! [SEP]": seven tokens, half a point each.
    with load(toy) as pipeline:
        assert pipeline("turn the lights off!").score == 3.5
        assert [result.score for result in pipeline(["hello", ("hello", "hello")])] == [1.5, 2.5]
    assert command("run", toy, "turn the lights off!", "hello", "--json") == (
        0,
        json.dumps([{"input": "turn the lights off!", "score": 3.5}, {"input": "hello", "score": 1.5}], indent=2)
        + "\n",
        "",
    )
    code, out, err = command("run", toy, "hello " * 40)
    assert (code, err) == (0, "note: input 0 was too long for the bundle and lost its end\n")
    assert "8.00" in out
    code, out, _ = command("inspect", toy)
    assert code == 0 and "a score, times 0.5" in out and "text-rating" in out
    code, _, err = command("run", toy, "hello", "--language", "en")
    assert code == 2
    assert err == "error: toy takes texts: expected them without options for images or audio, found --language\n"


def test_another_authors_task_answers_in_a_helper_process(toy: Path) -> None:
    with load(toy, isolated=True) as pipeline:
        assert pipeline("hello").score == 1.5
        with pytest.raises(InputError, match="text-rating takes no audio"):
            pipeline.begin(b"")  # type: ignore[attr-defined]


def test_another_authors_task_is_verified(toy: Path, command: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = command("verify", toy, "--json")
    assert (code, err) == (0, "")
    assert [stage["name"] for stage in json.loads(out)["stages"]] == ["preprocess", "seq_8", "seq_16", "answer"]
    code, out, _ = command("verify", toy, "--isolated", "--json")
    assert code == 0 and json.loads(out)["ok"]


def test_what_diverges_in_another_authors_task_is_found(toy: Path) -> None:
    from edgeformer_runtime.verify.verify import verify

    class Off(Counter):
        def run(self, program: str, inputs: dict[str, Any]) -> dict[str, Any]:
            return {"output": super().run(program, inputs)["output"] + 1}

    with Bundle.open(toy) as bundle:
        found = verify(bundle, Off())
    assert found.first_diverging == "seq_8"
    assert [stage.ok for stage in found.stages] == [True, False, False, False]


def test_another_authors_task_is_measured(toy: Path) -> None:
    from edgeformer_runtime.bench.workload import workload

    with Bundle.open(toy) as bundle:
        chosen = workload(bundle)
        assert chosen.program == "seq_16"
        assert chosen.bind(bundle, Counter())() == {"output": np.array([[16.0]], np.float32)}


def test_another_authors_task_is_served(toy: Path) -> None:
    from starlette.testclient import TestClient

    from edgeformer_runtime.serve.app import make_app
    from edgeformer_runtime.serve.options import FallbackOptions, ServeOptions
    from edgeformer_runtime.serve.service import open_service

    with TestClient(make_app(open_service(toy, ServeOptions())), base_url="http://127.0.0.1") as client:
        answer = client.post("/v1/answer", json={"text": "hello"})
        assert answer.status_code == 200
        assert (answer.json()["score"], answer.json()["answered_by"]) == (1.5, "device")
        several = client.post("/v1/answer", json={"inputs": [{"text": "hello"}, {"text": "", "pair": "hello"}]})
        assert [each["score"] for each in several.json()["answers"]] == [1.5, 2.0]
        assert client.get("/v1/bundle").json()["task"] == "text-rating"
        assert client.post("/v1/answer", json={"words": "hello"}).status_code == 422
    with pytest.raises(InputError, match="fallback: scores have no confidence that could be too low"):
        open_service(toy, ServeOptions(fallback=FallbackOptions("http://127.0.0.1:1")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": 0}, "postprocessing.scale: exclusiveMinimum is 0, found 0"),
        ({"width": 3}, "postprocessing: unknown key 'width': expected only kind, scale"),
        (
            {"kind": "rating"},
            "postprocessing.kind: expected one of classification, embedding, score, fills, spans, entities,",
        ),
    ],
)
def test_another_authors_record_is_read_as_strictly(toy: Path, change: dict[str, Any], message: str) -> None:
    document = json.loads((toy / "manifest.json").read_bytes())
    document["postprocessing"] |= change
    with pytest.raises(BundleError, match=message):
        parse(json.dumps(document))


def test_a_record_of_another_task_is_refused(toy: Path) -> None:
    document = json.loads((toy / "manifest.json").read_bytes())
    with pytest.raises(BundleError, match=r"postprocessing.kind: expected 'classification' for text-classification"):
        parse(
            json.dumps(
                document
                | {
                    "task": "text-classification",
                    "postprocessing": {"kind": "embedding", "dim": 1, "normalized": False},
                }
            )
        )


def test_without_its_package_the_task_is_unknown(toy: Path, installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(installed)])
    with pytest.raises(BundleError, match=r"postprocessing\.kind: expected one of classification, .*, found 'stars'"):
        Bundle.open(toy)
