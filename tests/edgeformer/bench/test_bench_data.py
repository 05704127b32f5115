"""`bench --data`: all contenders answer the same texts, whole, in the same order."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeformer.bench.command import BenchOptions, Request, bench
from edgeformer.bench.data import peers_over
from edgeformer.checkpoints.checkpoint import open_checkpoint
from edgeformer_runtime.bench.contender import Sweep
from edgeformer_runtime.bench.worker import Worker
from edgeformer_runtime.bench.workload import INPUTS_PER_TURN, EachInput
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.registry import load_attribute
from tests.checkpoint_factory import save_mobilebert
from tests.runtime.tiny_bundle import make_onnx

SEEN: list[int] = []


def counting(threads: int) -> EachInput:  # noqa: ARG001
    """A factory: what it was asked is in `SEEN`. An answer takes its time, as a warm-up lasts so long."""

    def answer(number: int) -> None:
        SEEN.append(number)
        time.sleep(0.005)

    return EachInput(answer, list(range(25)))


def test_a_turn_goes_on_where_the_last_one_ended_whatever_the_warm_up_took() -> None:
    SEEN.clear()
    worker = Worker()
    worker.load(f"{__name__}:counting", {}, threads=1)
    del SEEN[:]
    for turn in range(3):
        assert len(worker.turn()["wall_ms"]) == INPUTS_PER_TURN
        first = turn * INPUTS_PER_TURN
        expected = [number % 25 for number in range(first, first + INPUTS_PER_TURN)]
        # The first is answered twice, as its data has to come back into the caches.
        assert [expected[0], *expected] == SEEN
        del SEEN[:]


def options(data: Path, **changes: Any) -> BenchOptions:
    request = Request((Path("x"),), changes.pop("sweep", Sweep()), 6)
    return BenchOptions(request, data=str(data), **changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sweep": Sweep(programs=("seq_8",))}, "no --program or --batch"),
        ({"sweep": Sweep(batches=(4,))}, "no --program or --batch"),
        ({"on": ("ssh://pi@pi",)}, "expected --on local"),
    ],
)
def test_what_data_does_not_go_with(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason):
        options(tmp_path / "texts.csv", **changes)


def test_a_column_is_of_data() -> None:
    with pytest.raises(InputError, match="--column names the texts of --data"):
        BenchOptions(Request((Path("x"),), Sweep(), 6), column="said")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle."""
    return make_onnx(tmp_path_factory.mktemp("bundles") / "tiny.onnx.fp32")


def test_peers_that_pad_are_refused(tiny: Path, tmp_path: Path) -> None:
    with Bundle.open(tiny) as bundle, pytest.raises(InputError, match="pad nothing, expected onnxruntime, torch"):
        peers_over(("ncnn",), bundle, None, tmp_path, tmp_path)  # type: ignore[arg-type]


def test_bundles_answer_the_file(tiny: Path, tmp_path: Path) -> None:
    data = tmp_path / "texts.jsonl"
    data.write_text("".join(json.dumps({"said": f"hello {'world ' * number}"}) + "\n" for number in range(9)))
    request = Request((tiny,), Sweep(), 2)
    (report,) = bench(BenchOptions(request, data=str(data), column="said"), lambda _: None)
    (row,) = report.rows
    assert row.latency_ms.median > 0 and row.program is None
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    with pytest.raises(InputError, match="no texts in"):
        bench(BenchOptions(request, data=str(empty)), lambda _: None)


@pytest.mark.slow
def test_peers_answer_each_text_at_its_own_length(tiny: Path, tmp_path: Path) -> None:
    """Two engines, one model: their outputs agree on every text."""
    inputs = tmp_path / "inputs.json"
    inputs.write_text(json.dumps(["turn the lights off", "what is the time", ""]))
    checkpoint = open_checkpoint(str(save_mobilebert(tmp_path / "source")))
    with Bundle.open(tiny) as bundle:
        found = peers_over(("onnxruntime", "torch"), bundle, checkpoint, inputs, tmp_path)
    assert [(each.name, each.precision) for each in found] == [
        ("onnxruntime", "fp32"),
        ("onnxruntime", "dynamic-int8"),
        ("torch", "fp32"),
    ]
    runs = [load_attribute(each.factory)(**each.arguments, threads=1) for each in found]
    for _ in range(3):
        fp32, int8, torch = (np.asarray(run()[0]) for run in runs)
        assert np.abs(fp32 - torch).max() < 1e-5 < np.abs(int8 - torch).max() < 0.1
