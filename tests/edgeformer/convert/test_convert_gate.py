"""What `convert` does with its gates: accuracy before and after, refusals with a way on, refused bundles kept."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeformer.cli import app
from edgeformer.convert import convert as conversion
from edgeformer.convert.convert import ConvertOptions, convert
from edgeformer.convert.result import converted_table
from edgeformer.convert.target import EIGHT_BITS, PRECISIONS, Allowance
from edgeformer.evaluate.evaluate import evaluate
from edgeformer_runtime import load
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.errors import BundleError, InputError
from tests.checkpoint_factory import save_mobilebert
from tests.edgeformer.compress import tiny
from tests.edgeformer.convert.collapsing import save_collapsing

pytestmark = pytest.mark.slow
NOTHING = Allowance(lost=-1, divergence=0, cosine=1, drop=-1, backstop=EIGHT_BITS.backstop)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_classifier(tmp_path_factory.mktemp("source") / "tiny", num_hidden_layers=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred and eight labelled texts."""
    file = tmp_path_factory.mktemp("data") / "data.csv"
    with file.open("w", newline="") as table:
        rows = csv.writer(table)
        rows.writerow(["text", "label"])
        for number in range(9):
            rows.writerows((f"{text} {number}", label) for label, texts in tiny.SENTENCES.items() for text in texts)
    return file


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """No int8 is good enough, and nothing that is refused is timed."""
    int8 = replace(PRECISIONS["dynamic-int8"], allowance=NOTHING)
    monkeypatch.setattr(conversion, "PRECISIONS", {**PRECISIONS, "dynamic-int8": int8})
    monkeypatch.setattr(conversion, "median_latencies_ms", lambda *_: pytest.fail("it was timed"))


def options(source: Path, out: Path, **changes: object) -> ConvertOptions:
    settings: dict[str, object] = {
        "source": str(source), "out": out, "targets": ("onnx",), "precisions": ("dynamic-int8",), "seq_lens": (16,),
        "name": "tiny",
    }  # fmt: skip
    return ConvertOptions(**(settings | changes))  # type: ignore[arg-type]


def test_labelled_data_tell_accuracy_before_and_after(source: Path, data: Path, tmp_path: Path) -> None:
    (row,) = convert(options(source, tmp_path, evaluation=str(data)))
    assert row.ok and row.agreement is not None and row.agreement.metric is not None
    metric = row.agreement.metric
    assert (metric.n, row.agreement.n) == (108, 108)
    with Bundle.open(row.path) as bundle:
        found = evaluate(bundle, str(data), source=str(source))
    assert (found.to_json()["source_value"], found.to_json()["value"]) == (metric.before, metric.after)
    assert json.loads((row.path / "report.json").read_text())["agreement"]["metric"] == metric.to_json()
    table = converted_table([row])
    cells = {str(column.header): list(column.cells) for column in table.columns}
    assert cells["accuracy"] == [f"{metric.before:.1%} → {metric.after:.1%} of 108"]
    assert cells["same answer"] == [f"{row.agreement.top1:.1%} of 108"]


def test_labels_of_the_calibration_tell_accuracy_too(source: Path, data: Path, tmp_path: Path) -> None:
    (row,) = convert(options(source, tmp_path, calibration=data))
    assert row.agreement is not None and row.agreement.metric is not None and row.agreement.metric.n == 108
    texts = tmp_path / "texts.txt"
    texts.write_text("turn the lights off\nwhat is the weather like\n")
    (row,) = convert(options(source, tmp_path, calibration=texts))
    assert row.agreement is not None and row.agreement.metric is None and row.agreement.n > 100


def test_a_refused_bundle_is_kept_under_a_mark(source: Path, tmp_path: Path, strict: None) -> None:  # noqa: ARG001
    (row,) = convert(options(source, tmp_path, keep_refused=True, zipped=True))
    assert (row.ok, row.kept, row.latency_ms) == (False, True, None)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.onnx.dynamic-int8.refused"]
    document = row.to_json()
    assert document["path"] is None and document["refused_path"] == str(row.path)
    (problem,) = row.problems
    assert problem.startswith("answers: ")
    assert row.advice is not None and "--precision fp16" in row.advice and "--calibration" in row.advice
    assert document["advice"] == row.advice
    assert json.loads((row.path / "refused.json").read_text())["problems"] == [problem]
    assert json.loads((row.path / "report.json").read_text())["problems"] == [problem]
    for opening in (Bundle.open, load):
        with pytest.raises(BundleError, match="refused this bundle"):
            opening(row.path)
    runner = CliRunner()
    assert runner.invoke(app, ["verify", str(row.path), "--layers", "--source", str(source)]).exit_code == 0
    assert runner.invoke(app, ["inspect", str(row.path)]).exit_code == 0
    assert runner.invoke(app, ["report", str(row.path), "--json"]).exit_code == 0
    assert isinstance(runner.invoke(app, ["run", str(row.path), "hello"]).exception, BundleError)


def test_a_refused_bundle_is_not_kept_unasked(source: Path, tmp_path: Path, strict: None) -> None:  # noqa: ARG001
    command = ["convert", str(source), "--target", "onnx", "--precision", "dynamic-int8", "--seq-len", "16"]
    ended = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "dist")])
    assert ended.exit_code == 1 and not (tmp_path / "dist").exists()
    said = " ".join(ended.output.split())
    assert "the bundle was not delivered" in said and "--keep-refused" in said


def test_an_older_delivered_bundle_stays_beside_a_refused_one(
    source: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (row,) = convert(options(source, tmp_path))
    assert row.ok
    request.getfixturevalue("strict")
    convert(options(source, tmp_path, keep_refused=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "tiny.onnx.dynamic-int8",
        "tiny.onnx.dynamic-int8.refused",
    ]
    Bundle.open(row.path).close()


def test_a_delivery_removes_what_an_earlier_run_kept_as_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = replace(PRECISIONS["dynamic-int8"], allowance=NOTHING)
    with monkeypatch.context() as patched:
        patched.setattr(conversion, "PRECISIONS", {**PRECISIONS, "dynamic-int8": strict})
        (refused,) = convert(options(source, tmp_path, keep_refused=True))
    assert refused.advice is not None and "`eval` explain what was kept" in refused.advice
    cells = {str(column.header): list(column.cells) for column in converted_table([refused]).columns}
    assert cells["latency"] == ["not measured"]
    said: list[str] = []
    (row,) = convert(options(source, tmp_path), lambda line, *_: said.append(line))
    assert row.ok and [path.name for path in tmp_path.iterdir()] == ["tiny.onnx.dynamic-int8"]
    note = f"note: {refused.path} was refused by the gates of an earlier conversion, and is removed"
    assert [line for line in said if "refused" in line] == [note]


@pytest.mark.parametrize(
    ("content", "message"),
    [("text,label\na,unheard of\n", "labels that the bundle does not know"), (None, "no data at")],
)
def test_labelled_data_are_checked_before_anything_is_lowered(
    source: Path, tmp_path: Path, content: str | None, message: str
) -> None:
    file = tmp_path / "data.csv"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=message):
        convert(options(source, tmp_path / "dist", evaluation=str(file)))
    assert not (tmp_path / "dist").exists()


def test_what_classifies_nothing_has_no_accuracy(tmp_path: Path, data: Path) -> None:
    embedder = tiny.save_bert(tmp_path / "embedder", classifier=False)
    with pytest.raises(InputError, match="--eval is for classifiers, and this does text-embedding"):
        convert(options(embedder, tmp_path / "dist", evaluation=str(data)))


def test_a_bundle_is_no_place_for_bundles(source: Path, tmp_path: Path) -> None:
    (row,) = convert(options(source, tmp_path, precisions=("fp32",)))
    with pytest.raises(InputError, match=r"lies in the bundle tiny\.onnx\.fp32, which it would corrupt"):
        convert(options(source, row.path / "more"))
    Bundle.open(row.path).close()


def test_a_checkpoint_without_a_tokenizer_is_judged_on_drawn_ids(tmp_path: Path) -> None:
    source = save_mobilebert(tmp_path / "source", with_tokenizer=False, num_hidden_layers=1)
    (row,) = convert(options(source, tmp_path / "dist"))
    assert row.ok and row.agreement is not None and row.agreement.n == 96 + 3


def test_a_model_that_int8_ruins_is_refused(tmp_path: Path) -> None:
    save_collapsing("clinc150-mobilebert", tmp_path / "model")
    (row,) = convert(options(tmp_path / "model", tmp_path / "dist", seq_lens=(32,)))
    assert not row.ok and row.latency_ms is None
    assert any(problem.startswith("parity: ") for problem in row.problems)
    assert any(problem.startswith("answers: ") for problem in row.problems)
