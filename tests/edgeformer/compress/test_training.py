"""The course of a training: who gets which rows, and the learning rate."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn

from edgeformer.compress.recipe import Training
from edgeformer.compress.training import Run, _parameter_groups, _Plan
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.interface import silent


def run(processes: int = 1, index: int = 0, seed: int = 0) -> Run:
    accelerator = SimpleNamespace(num_processes=processes, process_index=index, is_main_process=index == 0)
    return Run(cast(Any, accelerator), silent, seed, Path(), 60.0)


LENGTHS = torch.arange(23) % 7 + 3


def test_processes_share_each_batch() -> None:
    training = Training(epochs=2, batch_size=5)
    whole = _Plan(LENGTHS, training, run(), "1-finetune")
    parts = [_Plan(LENGTHS, training, run(2, index), "1-finetune") for index in (0, 1)]
    assert whole.updates == 10
    for update in range(whole.updates):
        rows = whole.rows(update).tolist()
        assert [part.rows(update).tolist() for part in parts] == [rows[0::2], rows[1::2]]
    first = sorted(row for update in range(5) for row in whole.rows(update).tolist())
    assert first == list(range(23))  # an epoch sees each example once
    assert [plan.ends_epoch(4) for plan in (whole, *parts)] == [True] * 3


def test_the_order_depends_on_seed_step_and_epoch_alone() -> None:
    training = Training(epochs=3, batch_size=5)
    there = _Plan(LENGTHS, training, run(), "1-finetune")
    rows = [there.rows(update).tolist() for update in range(there.updates)]
    back = _Plan(LENGTHS, training, run(), "1-finetune")
    assert [back.rows(update).tolist() for update in (12, 3, 7)] == [rows[12], rows[3], rows[7]]
    assert rows[:5] != rows[5:10]
    other = _Plan(LENGTHS, training, run(seed=1), "1-finetune")
    assert [other.rows(update).tolist() for update in range(5)] != rows[:5]


def test_the_learning_rate_rises_and_falls() -> None:
    def course(schedule: str) -> list[float]:
        plan = _Plan(torch.ones(40), Training(epochs=1, batch_size=1, schedule=schedule, warmup=0.25), run(), "x")
        return [plan.factor(update) for update in range(plan.updates)]

    for schedule in ("linear", "cosine", "constant"):
        assert course(schedule)[:10] == pytest.approx([(update + 1) / 10 for update in range(10)])
    assert course("linear")[10:] == pytest.approx([1 - update / 30 for update in range(30)])
    assert course("cosine")[25] == pytest.approx(0.5 * (1 + math.cos(math.pi / 2)))
    assert course("constant")[10:] == [1.0] * 30


def test_norms_and_biases_do_not_decay() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    module.register_parameter("attention_biases", nn.Parameter(torch.zeros(2, 2)))
    groups = _parameter_groups(module, Training(learning_rate=0.1, weight_decay=0.5))
    assert [(len(group["params"]), group["weight_decay"]) for group in groups] == [(1, 0.5), (4, 0.0)]


def test_fewer_examples_than_processes_are_refused() -> None:
    with pytest.raises(InputError, match="1 examples are too few for 2 processes"):
        _Plan(torch.ones(1), Training(), run(2), "x")
