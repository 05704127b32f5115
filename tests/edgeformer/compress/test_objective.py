"""What a student is trained for, against the formulas."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from edgeformer.compress.corpus import NO_LABEL, Batch, make_corpus, read_data
from edgeformer.compress.model import Model, open_model, uniform
from edgeformer.compress.objective import Counts, Objective, answer, counts_of
from edgeformer.compress.recipe import Finetune, Loss, Recipe
from edgeformer_runtime.errors import InputError
from tests.edgeformer.compress import tiny

RECIPE = Recipe("test", (Finetune(),), seq_len=16)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_texts(tmp_path_factory.mktemp("data") / "texts.json")


@pytest.fixture
def student(tmp_path: Path) -> Model:
    return open_model(str(tiny.save_classifier(tmp_path / "student")))


@pytest.fixture
def teacher(tmp_path: Path) -> Model:
    return open_model(str(tiny.save_bert(tmp_path / "teacher", num_hidden_layers=4)))


def batch_of(student: Model, teacher: Model | None, texts: Path, rows: int = 5) -> Batch:
    data, _ = read_data(str(texts), student.checkpoint)
    corpus = make_corpus(data, student.checkpoint, None if teacher is None else teacher.checkpoint, RECIPE)
    return corpus.batch(torch.arange(rows), torch.Generator())


def loss_of(objective: Objective, batch: Batch) -> torch.Tensor:
    objective.build_bridges(batch.student, batch.teacher)
    counts = Counts(*counts_of(batch.targets).unbind())
    loss: torch.Tensor = objective(batch.student, batch.teacher, batch.targets, None, counts)
    return loss


def test_labels_are_a_mean_over_those_that_are_known(student: Model, texts: Path) -> None:
    batch = batch_of(student, None, texts)
    batch.targets[2] = NO_LABEL
    found = loss_of(Objective(student.module, None, Loss(label_smoothing=0.1)), batch)
    logits = answer(student.module, batch.student)
    known = [0, 1, 3, 4]
    expected = F.cross_entropy(logits[known], batch.targets[known], label_smoothing=0.1)
    torch.testing.assert_close(found, expected)


def test_logits_are_the_divergence_at_a_temperature(student: Model, teacher: Model, texts: Path) -> None:
    """Hinton et al. 2015: T^2 sum p_teacher (log p_teacher - log p_student), both at temperature T."""
    batch = batch_of(student, teacher, texts)
    loss = Loss(labels=0.0, logits=0.5, temperature=3.0)
    found = loss_of(Objective(student.module, teacher.module, loss), batch)
    p_teacher = (answer(teacher.module, batch.teacher) / 3).softmax(dim=1)
    p_student = (answer(student.module, batch.student) / 3).softmax(dim=1)
    expected = 0.5 * 9 * (p_teacher * (p_teacher / p_student).log()).sum(dim=1).mean()
    torch.testing.assert_close(found, expected)


def test_hidden_states_and_attention_of_a_twin_cost_nothing(tmp_path: Path, texts: Path) -> None:
    folder = tiny.save_bert(tmp_path / "bert")
    twin, other = open_model(str(folder)), open_model(str(folder))
    batch = batch_of(twin, other, texts)
    loss = Loss(labels=0.0, hidden=1.0, attention=1.0)
    assert loss_of(Objective(twin.module, other.module, loss), batch).item() == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        twin.module.get_parameter("bert.encoder.layer.1.attention.self.query.weight").mul_(-3.0)
    assert loss_of(Objective(twin.module, other.module, loss), batch).item() > 1e-3


def test_padding_takes_no_part_in_hidden_states(tmp_path: Path, texts: Path) -> None:
    model, other = (open_model(str(tiny.save_bert(tmp_path / name, hidden_act=name))) for name in ("gelu", "relu"))
    batch = batch_of(model, other, texts, rows=2)
    objective = Objective(model.module, other.module, Loss(labels=0.0, hidden=1.0))
    found = float(loss_of(objective, batch))
    alone = [
        float(loss_of(Objective(model.module, other.module, Loss(labels=0.0, hidden=1.0)), _row(batch, row)))
        for row in (0, 1)
    ]
    assert found == pytest.approx(sum(alone) / 2, rel=1e-4)


def _row(batch: Batch, row: int) -> Batch:
    """One sentence without its padding."""
    length = int(batch.student[1][row].sum())
    student, teacher = (tuple(each[row : row + 1, :length] for each in side) for side in (batch.student, batch.teacher))
    return Batch(batch.rows[row : row + 1], student, teacher, batch.targets[row : row + 1])


def test_other_widths_are_bridged_and_other_heads_averaged(student: Model, teacher: Model, texts: Path) -> None:
    batch = batch_of(student, teacher, texts)
    objective = Objective(student.module, teacher.module, Loss(labels=0.0, hidden=1.0, attention=1.0))
    loss = loss_of(objective, batch)
    assert [tuple(bridge.weight.shape) for bridge in objective.bridges] == [(32, 64)] * 2  # type: ignore[arg-type]
    torch.autograd.backward(loss)
    grads = {name for name, parameter in student.module.named_parameters() if parameter.grad is not None}
    assert "mobilebert.encoder.layer.1.attention.self.query.weight" in grads
    assert all(parameter.grad is None for parameter in teacher.module.parameters())


def test_layers_are_spread_evenly() -> None:
    assert uniform(3, 6) == [1, 3, 5]
    assert uniform(2, 3) == [1, 2]
    assert uniform(4, 2) == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            Loss(hidden=1.0, layer_map=((0, 9),)),
            r"no pair \[0, 9\]: the student has 2 layers and the teacher 4",
        ),
        (Loss(logits=1.0), "name one with --teacher"),
    ],
)
def test_what_cannot_be_taught(student: Model, teacher: Model, loss: Loss, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Objective(student.module, teacher.module if loss.hidden else None, loss)
