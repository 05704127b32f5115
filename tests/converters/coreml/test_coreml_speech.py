"""Whisper as Core ML functions with states, executed by the MIL reference, against torch."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_factory import save_whisper
from lowered_bundle import check_files
from small_speech import Speech, baseline, differences, mask_of, open_speech, reference_decoder, script

from edgeformer.convert.target import PRECISIONS, Lowered
from edgeformer_converters.coreml.converter import PACKAGE, CoreMLConverter
from edgeformer_converters.mil.interpreter import MilInterpreter, MilReferenceEngine
from edgeformer_converters.mil.program import read_program
from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.engines.coreml import CoreMLEngine
from edgeformer_runtime.engines.decoder import DecoderOutput
from edgeformer_runtime.errors import EngineError
from edgeformer_runtime.pipelines.speech import Transcriber

pytestmark = [pytest.mark.coreml, pytest.mark.slow]
POSITIONS = (100,)
REAL_MODEL = pytest.importorskip("coremltools").models.MLModel


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_whisper(tmp_path_factory.mktemp("whisper"), encoder_layers=1)


@pytest.fixture(scope="module")
def speech(folder: Path) -> Speech:
    return open_speech(folder, "coreml", POSITIONS)


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one layer each, as lowering takes seconds for each more, and compressed weights are looked at one by one."""
    return save_whisper(tmp_path_factory.mktemp("distilled"), encoder_layers=1, decoder_layers=1)


def lower(speech: Speech, precision: str, folder: Path) -> Lowered:
    unused = Lowered(folder, (), {}, {}, None)
    return CoreMLConverter().lower_precision(speech.programs, unused, PRECISIONS[precision], folder)


@pytest.fixture(scope="module")
def lowered(speech: Speech, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Lowered]:
    return {name: lower(speech, name, tmp_path_factory.mktemp(name)) for name in ("fp32", "fp16")}


@pytest.fixture(scope="module")
def expected(folder: Path, speech: Speech) -> list[DecoderOutput]:
    return script(reference_decoder(folder, POSITIONS), speech)


# States are float16 at every precision, which is all that fp32 differs by.
@pytest.mark.parametrize(("precision", "tolerance", "cosine"), [("fp32", 1e-3, 0.999999), ("fp16", 1e-2, 0.99999)])
def test_every_step_answers_as_torch_does(
    lowered: dict[str, Lowered],
    speech: Speech,
    expected: list[DecoderOutput],
    precision: str,
    tolerance: float,
    cosine: float,
) -> None:
    check_files("coreml", speech.programs, lowered[precision])
    decoder = MilReferenceEngine(speech.bundle(lowered[precision])).open_decoder(speech.bucket, speech.spec)
    largest, lowest = differences(script(decoder, speech), expected)
    assert largest < tolerance
    assert lowest > cosine


# All kinds but mixed, which `test_mixed` tries, and palette4, a smaller palette6.
@pytest.mark.parametrize(
    ("precision", "tolerance", "cosine"),
    [("dynamic-int8", 6e-2, 0.999), ("palette6", 2e-1, 0.99), ("int4", 8e-1, 0.9)],
)
def test_compressed_weights_are_close(
    distilled: Path, precision: str, tolerance: float, cosine: float, tmp_path: Path
) -> None:
    speech = open_speech(distilled, "coreml", POSITIONS)
    compressed = lower(speech, precision, tmp_path)
    check_files("coreml", speech.programs, compressed)
    decoder = MilReferenceEngine(speech.bundle(compressed)).open_decoder(speech.bucket, speech.spec)
    largest, lowest = differences(script(decoder, speech), script(reference_decoder(distilled, POSITIONS), speech))
    assert largest < tolerance
    assert lowest > cosine


def test_what_states_do_not_touch_is_exact_at_fp32(
    lowered: dict[str, Lowered], speech: Speech, expected: list[DecoderOutput]
) -> None:
    decoder = MilReferenceEngine(speech.bundle(lowered["fp32"])).open_decoder(speech.bucket, speech.spec)
    prefill = script(decoder, speech)[:2]
    assert differences(prefill, expected[:2])[0] < 1e-5


def test_prefill_and_decode_share_their_states(lowered: dict[str, Lowered], speech: Speech) -> None:
    functions = read_program(lowered["fp16"].folder / PACKAGE)
    states = {name: functions[name].states for name in (speech.bucket.prefill, speech.bucket.decode)}
    assert len(set(states.values())) == 1
    assert {variable.dtype for variable in states[speech.bucket.decode]} == {"FLOAT16"}
    assert len(states[speech.bucket.decode]) == 2 * speech.spec.layers
    assert functions[speech.bucket.encode].states == ()


def test_functions_share_their_weights(lowered: dict[str, Lowered], speech: Speech) -> None:
    tensors = {id(each): each for program in speech.programs for each in program.module.parameters()}
    weights = sum(each.nbytes for each in tensors.values())
    stored = (lowered["fp32"].folder / PACKAGE / "Data/com.apple.CoreML/weights/weight.bin").stat().st_size
    buffers = sum(each.nbytes for each in speech.programs[0].module.buffers())
    assert stored < 1.1 * (weights + buffers)


def test_two_decoders_of_a_bucket_have_states_of_their_own(lowered: dict[str, Lowered], speech: Speech) -> None:
    engine = MilReferenceEngine(speech.bundle(lowered["fp16"]))
    one, other = (engine.open_decoder(speech.bucket, speech.spec) for _ in range(2))
    for decoder in (one, other):
        decoder.encode(speech.audio(0))
    one.step(5, 0, 0, mask_of(one, []))
    alone = one.step(6, 1, 1, mask_of(one, [0])).logits
    one.step(5, 0, 0, mask_of(one, []))
    other.step(9, 0, 0, mask_of(other, []))
    np.testing.assert_array_equal(one.step(6, 1, 1, mask_of(one, [0])).logits, alone)


def test_a_run_without_a_decoder_forgets(lowered: dict[str, Lowered], speech: Speech) -> None:
    engine = MilReferenceEngine(speech.bundle(lowered["fp16"]))
    cross = engine.run(speech.bucket.encode, {"mel": speech.audio(0)})

    def step(token: int, row: int, seen: list[int]) -> np.ndarray:
        mask = np.full(speech.bucket.rows, -1000, np.float32)
        mask[seen] = 0
        steering = {"token": [token], "position": [3], "row": [row]}
        inputs = {name: np.array(value, np.int32) for name, value in steering.items()} | {"mask": mask} | cross
        return engine.run(speech.bucket.decode, inputs)["logits"]

    first = step(6, 1, [0])
    step(5, 0, [])
    np.testing.assert_array_equal(step(6, 1, [0]), first)


def test_a_state_of_another_shape_is_refused(lowered: dict[str, Lowered], speech: Speech) -> None:
    function = read_program(lowered["fp16"].folder / PACKAGE)[speech.bucket.decode]
    program = next(each for each in speech.programs if each.name == speech.bucket.decode)
    inputs = {each.name: np.ones(each.shape, each.dtype) for each in program.inputs}
    with pytest.raises(EngineError, match=r"state caches_self_k_0 has shape \(2, 32, 128\), found \(1, 2, 3\)"):
        MilInterpreter(function).run(inputs, {"caches_self_k_0": torch.zeros(1, 2, 3)})


class StandInModel:
    """coremltools' MLModel with the MIL reference in place of Core ML: what the engine asks of it is what is tested."""

    def __init__(self, path: str, compute_units: object, function_name: str | None) -> None:  # noqa: ARG002
        self._model = REAL_MODEL(path, skip_model_load=True)
        self._interpreter = MilInterpreter(read_program(Path(path))[function_name or "main"])

    def get_spec(self) -> Any:
        return self._model.get_spec()

    def make_state(self) -> dict[str, torch.Tensor]:
        return {}

    def predict(self, inputs: dict[str, Any], state: dict[str, torch.Tensor] | None = None) -> dict[str, Any]:
        assert (state is not None) == bool(self._interpreter.function.states)  # Core ML refuses anything else
        return self._interpreter.run(inputs, state)


def test_the_engine_of_core_ml_gives_each_decoder_a_state(
    lowered: dict[str, Lowered], speech: Speech, expected: list[DecoderOutput], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = SimpleNamespace(
        __version__="0",
        models=SimpleNamespace(MLModel=StandInModel),
        ComputeUnit=SimpleNamespace(CPU_AND_NE=None),
    )
    bundle = speech.bundle(lowered["fp16"])
    with monkeypatch.context() as patch:
        patch.setattr("sys.platform", "darwin")
        patch.setitem(sys.modules, "coremltools", stand_in)
        engine = CoreMLEngine(bundle, 1)
    one, other = (engine.open_decoder(speech.bucket, speech.spec) for _ in range(2))
    other.encode(speech.audio(3))
    other.step(9, 0, 0, mask_of(other, []))
    largest, lowest = differences(script(one, speech), expected)
    assert largest < 1e-2
    assert lowest > 0.99999
    cross = engine.run(speech.bucket.encode, {"mel": speech.audio(0)})
    steering = {name: np.zeros(1, np.int32) for name in ("token", "position", "row")}
    assert engine.run(speech.bucket.decode, steering | {"mask": mask_of(one, [])} | cross)["logits"].any()


def test_tiny_english_hears_what_torch_hears(assets: Path, tmp_path: Path) -> None:
    speech = open_speech(assets / "whisper-tiny.en", "coreml", (600,))
    unused = Lowered(tmp_path, (), {}, {}, None)
    bundle = speech.bundle(CoreMLConverter().lower_precision(speech.programs, unused, PRECISIONS["fp16"], tmp_path))
    plain = TranscribeOptions(timestamps=False)  # as the baseline
    text = Transcriber(bundle, MilReferenceEngine(bundle)).run(assets / "speech" / "jfk.wav", plain).text
    assert text.strip() == baseline(assets, "jfk.wav")
