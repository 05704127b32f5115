"""The record of every task is complete, and another author's task takes one new file."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from edgeformer.checkpoints.checkpoint import open_checkpoint
from edgeformer.compress.budget.sensitivity import Probe
from edgeformer.compress.model import open_model
from edgeformer.compress.recipe import shipped_recipes
from edgeformer.convert.convert import convert
from edgeformer.convert.options import ConvertOptions
from edgeformer.convert.target import Backstop
from edgeformer.doctor.diagnosis import CHECKS, diagnose
from edgeformer.doctor.examiner import DoctorOptions
from edgeformer.evaluate.evaluate import answers_of, evaluate
from edgeformer.models.architecture import AUTO_CLASSES
from edgeformer.models.family import FAMILIES
from edgeformer.tasks.task import TASKS, check_task, task_metrics
from edgeformer_runtime import load
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.registry import load_attribute
from edgeformer_runtime.tasks.task import TASKS as RUNTIME_TASKS
from edgeformer_runtime.verify.verify import verify
from tests.checkpoint_factory import save_mobilebert, tokenizer

TOY = "tests.edgeformer.tasks.toy_task"
"""What entry points of another author's package would name."""
STARS = {"0": "1", "1": "2", "2": "5"}


@pytest.mark.parametrize("name", TASKS)
def test_a_record_is_complete(name: str) -> None:
    task = TASKS[name]
    assert task.name == name
    assert RUNTIME_TASKS[name].takes.kind == task.takes
    assert task.noun and all(alias.isalnum() and alias == alias.lower() for alias in task.aliases)
    assert task.built_as in AUTO_CLASSES or any(task.built_as in family.tasks for family in FAMILIES.values())
    assert (task.gate_inputs is None) == (task.agreement is None)
    assert task.score_backstop is None or task.score_backstop in Backstop.__dataclass_fields__
    assert bool(task.heads) == bool(task.headless)
    entries = [task.evaluation, task.peers.contenders, *task.checks.values(), task.scores, task.agreement]
    if task.metric is not None:
        assert task_metrics()[task.metric.name] == task.metric
        entries += [task.metric.answers, task.metric.interval, task.metric.same]
    if task.training is not None:
        assert task.metric is not None and set(task.training.recipes) <= set(shipped_recipes())
        assert issubclass(load_attribute(task.training.probe), Probe)
        entries += [task.training.read, task.training.student]
    assert all(callable(load_attribute(entry)) for entry in entries if entry is not None)
    assert {check for check, own in CHECKS.items() if own is None} >= set(task.checks)


def test_the_core_and_the_runtime_have_the_same_tasks() -> None:
    assert [*TASKS] == [*RUNTIME_TASKS]


def test_records_import_no_torch() -> None:
    code = (
        "import sys; from edgeformer.tasks.task import TASKS; list(TASKS.values()); "
        "import edgeformer.evaluate.evaluate; print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize("alias", [alias for task in TASKS.values() for alias in task.aliases])
def test_an_alias_is_answered_with_its_tasks(alias: str) -> None:
    meant = " or ".join(name for name, task in TASKS.items() if alias in task.aliases)
    with pytest.raises(InputError, match=f"did you mean {meant}"):
        check_task(alias)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a package with the toy's entry points were installed."""
    entries = {"edgeformer.tasks": f"{TOY}:SCORING", "edgeformer_runtime.tasks": f"{TOY}:TASK"}

    def found(**asked: str) -> EntryPoints:
        group = asked.get("group")
        return EntryPoints([EntryPoint("text-rating", entries[group], group)]) if group in entries else real(**asked)

    real = importlib.metadata.entry_points
    monkeypatch.setattr(importlib.metadata, "entry_points", found)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A classifier of stars."""
    folder = save_mobilebert(tmp_path / "checkpoint", num_hidden_layers=1)
    raw = json.loads((folder / "config.json").read_text())
    raw |= {"id2label": STARS, "label2id": {label: int(number) for number, label in STARS.items()}}
    (folder / "config.json").write_text(json.dumps(raw))
    return folder


def expected(source: Path, text: str) -> float:
    """As transformers has it."""
    model: Any = AutoModelForSequenceClassification.from_pretrained(source)
    ids = torch.tensor([tokenizer().encode(text).ids])
    with torch.no_grad():
        probabilities = model(ids, attention_mask=torch.ones_like(ids)).logits.softmax(-1)[0]
    return float(probabilities @ torch.tensor([float(label) for label in STARS.values()]))


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_another_authors_task_is_one_file(source: Path, tmp_path: Path) -> None:
    options = ConvertOptions(str(source), tmp_path / "out", ("onnx",), ("fp32", "dynamic-int8"), (16,), "text-rating")
    rows = convert(options)
    assert [row.problems for row in rows] == [(), ()]
    # Its gates judged both on the built-in texts, besides the recorded ones.
    assert all(row.agreement is not None and row.agreement.n > 100 for row in rows)
    exact = rows[0].path
    right = {text: expected(source, text) for text in ("turn the lights off", "what is the weather like")}
    with load(exact) as pipeline:
        assert {text: pipeline(text).score for text in right} == pytest.approx(right, abs=1e-4)
    data = tmp_path / "stars.csv"
    data.write_text("text,label\n" + "".join(f"{text},{score + 0.5}\n" for text, score in right.items()))
    with Bundle.open(exact) as bundle:
        assert bundle.manifest.task == "text-rating"
        assert verify(bundle).ok
        found = evaluate(bundle, data, source)
        assert found.to_json() == {"metric": "mean_error", "value": pytest.approx(0.5, abs=1e-4), "n": 2}
        assert (found.model, [table.row_count for table in found.tables()]) == ("checkpoint.onnx.fp32", [1])
        with pytest.raises(InputError, match="checkpoint does text-rating, which has no metric"):
            answers_of(bundle, str(data))
    assert diagnose(exact, DoctorOptions()).ok


@pytest.mark.usefixtures("installed")
def test_another_authors_task_is_refused_where_it_has_no_part(source: Path) -> None:
    assert [*TASKS][-1] == "text-rating"
    with pytest.raises(InputError, match="unknown task 'stars': did you mean text-rating"):
        check_task("stars")
    assert open_checkpoint(str(source)).task == "text-classification"
    with pytest.raises(InputError, match="unknown task for tinyvit 'text-rating': expected one of image-classific"):
        open_checkpoint("cifar10-tinyvit", task="text-rating")
    with pytest.raises(InputError, match="a text scorer: expected a classifier or a speech recogniser"):
        open_model(str(source), "text-rating")
    with pytest.raises(InputError, match="--eval is for classifiers, and this does text-rating"):
        convert(ConvertOptions(str(source), source / "out", ("onnx",), task="text-rating", evaluation=str(source)))
