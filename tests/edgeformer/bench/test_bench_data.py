"""`bench --data`: all contenders answer the same texts or clips, whole, in the same order."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edgeformer.bench.command import BenchOptions, Request, bench
from edgeformer.bench.data import peers_over, save_clips
from edgeformer.checkpoints.checkpoint import open_checkpoint
from edgeformer_runtime.bench.contender import Sweep
from edgeformer_runtime.bench.worker import Worker
from edgeformer_runtime.bench.workload import INPUTS_PER_TURN, EachInput, read_inputs
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
    with (
        Bundle.open(tiny) as bundle,
        pytest.raises(InputError, match="on texts, expected onnxruntime, torch"),
    ):
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
    checkpoint = open_checkpoint(str(save_mobilebert(tmp_path / "source", num_hidden_layers=1)))
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


# Clips.


def save_tones(folder: Path) -> Path:
    """Three clips of .4, .8 and 1.2 s at 8 kHz, one of them in a folder of its own, and a file that is none."""
    (folder / "more").mkdir(parents=True)
    for number in range(3):
        place = folder / ("more" if number == 2 else "") / f"{number}.wav"
        soundfile.write(place, np.sin(np.arange(3200 * (number + 1)) / 5).astype(np.float32), 8000)
    (folder / "notes.txt").write_text("none")
    return folder


def test_clips_are_read_at_the_rate_of_the_model(whisper_bundle: Path, tmp_path: Path) -> None:
    with Bundle.open(whisper_bundle) as bundle:
        save_clips(bundle, save_tones(tmp_path / "clips"), None, 2, tmp_path / "inputs")
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError, match="no clips in"):
            save_clips(bundle, tmp_path / "empty", None, 2, tmp_path / "others")
        with pytest.raises(InputError, match="a folder of audio files"):
            save_clips(bundle, tmp_path / "clips" / "0.wav", None, 2, tmp_path / "others")
    assert [len(each) for each in read_inputs(str(tmp_path / "inputs"))] == [6400, 12800, 19200]


@pytest.mark.slow
def test_speech_bundles_and_peers_transcribe_the_folder(whisper: Path, whisper_bundle: Path, tmp_path: Path) -> None:
    clips = save_tones(tmp_path / "clips")
    request = Request((whisper_bundle,), Sweep(), 1)
    (report,) = bench(BenchOptions(request, data=str(clips), against=("torch",), source=str(whisper)), lambda _: None)
    assert [row.engine for row in report.rows] == [report.rows[0].engine, "torch"]
    assert all(row.latency_ms.median > 0 for row in report.rows)


def test_peers_that_transcribe_nothing_are_refused(whisper_bundle: Path, tmp_path: Path) -> None:
    clips = save_tones(tmp_path / "clips")
    with pytest.raises(InputError, match="on clips, expected faster-whisper"):
        bench(BenchOptions(Request((whisper_bundle,), Sweep(), 1), data=str(clips), against=("ncnn",)), lambda _: None)


def test_images_have_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "runtime"))
    from tests.runtime.tiny_image_bundle import make_image_without_model

    bundle = make_image_without_model(tmp_path / "image")
    with pytest.raises(InputError, match="takes texts or clips, and the task is image-classification"):
        bench(BenchOptions(Request((bundle,), Sweep(), 1), data=str(tmp_path)), lambda _: None)
