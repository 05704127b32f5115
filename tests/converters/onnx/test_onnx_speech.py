"""Whisper in ONNX: every step says what torch says, through the decoder whose caches are numpy arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from checkpoint_factory import save_whisper
from jfk_speech import greedy, jfk_mel, jfk_tokens
from lowered_bundle import check_files
from small_speech import Speech, differences, lower_to_all, open_speech, script

from edgeformer.checkpoints.source_index import TorchEngine
from edgeformer.convert.target import PRECISIONS, Lowered
from edgeformer_converters.onnx.converter import WEIGHTS_FILE, OnnxConverter
from edgeformer_runtime.bundle.specs import HOST_STATE

pytestmark = pytest.mark.slow
POSITIONS = (50, 100)
COMMA_AND_STOP = (11, 13)
"""What int8 may hear otherwise: the words are the baseline's."""


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Speech:
    folder = save_whisper(tmp_path_factory.mktemp("whisper"), max_source_positions=300, encoder_layers=1)
    return open_speech(folder, "onnx", POSITIONS, HOST_STATE)


@pytest.fixture(scope="module")
def lowered(speech: Speech, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Lowered]:
    """Both buckets at every precision."""
    return lower_to_all(OnnxConverter(), speech.programs, tmp_path_factory.mktemp("lowered"))


def test_the_runtime_takes_every_file(lowered: dict[str, Lowered], speech: Speech) -> None:
    for each in lowered.values():
        check_files("onnx", speech.programs, each)


def engine_of(speech: Speech, lowered: Lowered) -> Any:
    from edgeformer_runtime.engines.onnx import OnnxEngine

    return OnnxEngine(speech.bundle(lowered), 1)


# fp32 differs by the order of additions, fp16 by one rounding of each weight. The hypotheses lie in scattered rows.
@pytest.mark.parametrize(
    ("precision", "tolerance", "cosine"),
    [("fp32", 1e-4, 0.999999), ("fp16", 1e-2, 0.99999), ("dynamic-int8", 1.5e-1, 0.995)],
)
def test_every_step_answers_as_torch_does(
    lowered: dict[str, Lowered], speech: Speech, precision: str, tolerance: float, cosine: float
) -> None:
    engine = engine_of(speech, lowered[precision])
    reference = TorchEngine(speech.programs)
    for number, bucket in enumerate(speech.spec.buckets):
        recordings = Speech(speech.programs[3 * number : 3 * number + 3], speech.interface)
        found = script(engine.open_decoder(bucket, speech.spec), recordings)
        largest, lowest = differences(found, script(reference.open_decoder(bucket, speech.spec), recordings))
        assert largest < tolerance
        assert lowest > cosine
    engine.close()


def test_sessions_open_when_they_are_needed(lowered: dict[str, Lowered], speech: Speech) -> None:
    engine = engine_of(speech, lowered["fp32"])
    assert not engine._sessions
    bucket = speech.spec.buckets[1]
    engine.open_decoder(bucket, speech.spec).encode(Speech(speech.programs[3:], speech.interface).audio(0))
    assert list(engine._sessions) == [f"{bucket.encode}.onnx"]
    engine.close()


def test_everything_is_stored_once(lowered: dict[str, Lowered], speech: Speech) -> None:
    """The model's parameters, and what a bucket alone has: its silent tail. 20 kB of operators a program."""
    tensors = {
        id(tensor): tensor.nbytes
        for program in speech.programs
        for tensor in (*program.module.parameters(), *program.module.buffers())
    }
    size = sum((lowered["fp32"].folder / file).stat().st_size for file in lowered["fp32"].files)
    assert size < sum(tensors.values()) + len(speech.programs) * 30_000


def test_tables_and_weights_are_int8(lowered: dict[str, Lowered]) -> None:
    """But for the first convolution's, nothing large is left in float: the rest is the tails."""
    assert lowered["dynamic-int8"].operators["MatMulInteger"] > 0
    weights = (lowered["dynamic-int8"].folder / WEIGHTS_FILE).stat().st_size
    assert weights < 0.75 * (lowered["fp32"].folder / WEIGHTS_FILE).stat().st_size


def test_the_real_model_transcribes_as_the_baseline_does(assets: Path, tmp_path: Path) -> None:
    """fp32 and int8; where int8 rounds is the kernel's choice, which decides between a comma and a full stop."""
    speech = open_speech(assets / "whisper-tiny.en", "onnx", (600,), HOST_STATE)
    (tmp_path / "fp32").mkdir()
    (tmp_path / "int8").mkdir()
    fp32 = OnnxConverter().lower_fp32(speech.programs, tmp_path / "fp32")
    int8 = OnnxConverter().lower_precision(speech.programs, fp32, PRECISIONS["dynamic-int8"], tmp_path / "int8")
    for lowered, ignored in ((fp32, ()), (int8, COMMA_AND_STOP)):
        engine = engine_of(speech, lowered)
        decoder = engine.open_decoder(speech.spec.buckets[0], speech.spec)
        found, expected = greedy(decoder, speech, jfk_mel(assets)), jfk_tokens(assets)
        assert [token for token in found if token not in ignored] == [t for t in expected if t not in ignored]
        engine.close()
