"""Whisper in LiteRT: every step says what torch says, weights are stored once, and the caches are used in place."""

from __future__ import annotations

import io
from contextlib import closing, suppress
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pytest
from checkpoint_factory import save_whisper
from jfk_speech import greedy, jfk_mel, jfk_tokens
from lowered_bundle import check_files
from small_speech import Speech, differences, lower_to_all, mask_of, open_speech, script

from edgeformer.checkpoints.source_index import TorchEngine
from edgeformer.convert.target import PRECISIONS, Lowered
from edgeformer_converters.litert.converter import MODEL_FILE, LiteRTConverter
from edgeformer_converters.litert.graph import LiteRTGraph
from edgeformer_runtime.bundle.specs import HOST_STATE
from edgeformer_runtime.engines.decoder import DecoderOutput, SpeechDecoder
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.model_files import Broken, mapped
from edgeformer_runtime.model_files.litert_file import check_litert
from edgeformer_runtime.model_files.litert_float16 import widen

pytestmark = [pytest.mark.litert, pytest.mark.slow]
POSITIONS = (50, 200, 250)
"""Programs of the first are made of the others': they have as many slots as the second, and fewer positions."""


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Speech:
    folder = save_whisper(tmp_path_factory.mktemp("whisper"), max_source_positions=400, encoder_layers=1)
    return open_speech(folder, "litert", POSITIONS, HOST_STATE)


@pytest.fixture(scope="module")
def lowered(speech: Speech, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Lowered]:
    """All buckets at every precision."""
    return lower_to_all(LiteRTConverter(), speech.programs, tmp_path_factory.mktemp("lowered"))


def test_the_runtime_takes_every_file(lowered: dict[str, Lowered], speech: Speech) -> None:
    for each in lowered.values():
        check_files("litert", speech.programs, each)


def engine_of(speech: Speech, lowered: Lowered, weights: str = "int8") -> Any:
    from edgeformer_runtime.engines.litert import LiteRTEngine

    bundle = speech.bundle(lowered)
    bundle.manifest.recipe.weights = weights
    return LiteRTEngine(bundle, 1)


def of_bucket(speech: Speech, number: int) -> Speech:
    """The same, as the scripts of calls take it, with the recordings of one bucket."""
    return Speech(speech.programs[3 * number : 3 * number + 3], speech.interface)


def expected(speech: Speech, number: int) -> list[DecoderOutput]:
    decoder = TorchEngine(speech.programs).open_decoder(speech.spec.buckets[number], speech.spec)
    return script(decoder, of_bucket(speech, number))


class Lasting:
    """A decoder whose results outlive the next call, as `script` needs them."""

    def __init__(self, decoder: SpeechDecoder) -> None:
        self.encode, self.rows, self.prefill_tokens = decoder.encode, decoder.rows, decoder.prefill_tokens
        self.close, self._decoder = decoder.close, decoder

    def step(self, *given: Any) -> DecoderOutput:
        return deepcopy(self._decoder.step(*given))

    def prefill(self, *given: Any) -> tuple[DecoderOutput, DecoderOutput]:
        return deepcopy(self._decoder.prefill(*given))


# fp32 differs by the order of additions, fp16 by one rounding of each weight. The hypotheses lie in scattered rows.
@pytest.mark.parametrize(
    ("precision", "tolerance", "cosine"),
    [("fp32", 1e-4, 0.999999), ("fp16", 1e-2, 0.99999), ("dynamic-int8", 1e-1, 0.998)],
)
def test_every_step_answers_as_torch_does(
    lowered: dict[str, Lowered], speech: Speech, precision: str, tolerance: float, cosine: float
) -> None:
    engine = engine_of(speech, lowered[precision])
    for number, bucket in enumerate(speech.spec.buckets):
        decoder = Lasting(engine.open_decoder(bucket, speech.spec))
        largest, lowest = differences(script(decoder, of_bucket(speech, number)), expected(speech, number))
        assert largest < tolerance
        assert lowest > cosine
        decoder.close()
    engine.close()


def test_float16_weights_are_widened_once_for_all_programs(
    lowered: dict[str, Lowered], speech: Speech, tmp_path: Path
) -> None:
    """The same numbers, so the same answers; only small constants are still widened by each program."""
    source = lowered["fp16"].folder / MODEL_FILE
    programs = list(speech.bundle(lowered["fp16"]).manifest.programs)
    with (tmp_path / MODEL_FILE).open("wb+") as file:
        assert widen(mapped(source), programs, file)
    left = LiteRTGraph(tmp_path / MODEL_FILE).count_operators().get("DEQUANTIZE", 0)
    assert left < lowered["fp16"].operators["DEQUANTIZE"] / 2
    assert not widen(mapped(tmp_path / MODEL_FILE), programs, io.BytesIO())
    answers = []
    for weights in ("int8", "float16"):  # of the first nothing is widened
        with closing(engine_of(speech, lowered["fp16"], weights)) as engine:
            decoder = Lasting(engine.open_decoder(speech.spec.buckets[0], speech.spec))
            answers.append(script(decoder, of_bucket(speech, 0)))
            decoder.close()
    assert differences(*answers)[0] == 0


def test_what_is_laid_over_something_else_is_not_widened(lowered: dict[str, Lowered], speech: Speech) -> None:
    """Whatever a file that passed the checks has in its tables, what is written passes them, too."""
    data = (lowered["fp16"].folder / MODEL_FILE).read_bytes()
    programs = list(speech.bundle(lowered["fp16"]).manifest.programs)
    random = np.random.default_rng(0)
    outcomes = set[bool]()
    for _ in range(30):
        mutated = bytearray(data)
        for place in random.integers(0, 100_000, 3):
            mutated[place] = random.integers(256)
        with suppress(Broken):
            check_litert(memoryview(mutated), programs)
            with TemporaryFile() as file:
                outcomes.add(widen(memoryview(mutated), programs, file))
    assert True in outcomes


def test_run_gives_what_a_decoder_gives(lowered: dict[str, Lowered], speech: Speech) -> None:
    engine = engine_of(speech, lowered["fp32"])
    bucket, mel = speech.spec.buckets[0], speech.audio(3)
    decoder = engine.open_decoder(bucket, speech.spec)
    decoder.encode(mel)
    mask = mask_of(decoder, [])
    found = decoder.step(5, 0, 0, mask)
    cross = engine.run(bucket.encode, {"mel": mel})
    inputs = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in speech.programs[2].inputs}
    inputs |= cross | {"token": np.array([5], np.int32), "mask": mask}
    np.testing.assert_array_equal(engine.run(bucket.decode, inputs)["logits"], found.logits)
    engine.close()


def test_decoders_do_not_disturb_one_another(lowered: dict[str, Lowered], speech: Speech) -> None:
    engine = engine_of(speech, lowered["fp32"])
    alone, other = (engine.open_decoder(bucket, speech.spec) for bucket in speech.spec.buckets[:2])
    same = engine.open_decoder(speech.spec.buckets[0], speech.spec)
    results = []
    for disturbed in (False, True):
        alone.encode(speech.audio(0))
        alone.prefill([5, 6, 7], 0, 0, mask_of(alone, []), (0, 2))
        if disturbed:
            for decoder, audio in ((other, of_bucket(speech, 1).audio(1)), (same, speech.audio(2))):
                decoder.encode(audio)
                decoder.prefill([9, 8], 0, 0, mask_of(decoder, []), (0, 1))
        results.append(alone.step(8, 3, 3, mask_of(alone, [0, 1, 2])).logits.copy())
    np.testing.assert_array_equal(*results)
    engine.close()


def test_refuses(lowered: dict[str, Lowered], speech: Speech) -> None:
    engine = engine_of(speech, lowered["fp32"])
    decoder = engine.open_decoder(speech.spec.buckets[0], speech.spec)
    mask = mask_of(decoder, [])
    with pytest.raises(EngineError, match="encoded nothing yet"):
        decoder.step(1, 0, 0, mask)
    with pytest.raises(InputError, match=r"mel: expected float32 \(1, 80, 100\), found float32 \(1, 80, 99\)"):
        decoder.encode(speech.audio(0)[:, :, 1:])
    decoder.encode(speech.audio(0))
    with pytest.raises(InputError, match="mask: expected float32"):
        decoder.step(1, 0, 0, mask[1:])
    with pytest.raises(InputError, match="of the cache's slots"):
        decoder.step(1, 0, decoder.rows, mask)
    with pytest.raises(InputError, match="expected 1 to 8 tokens, found 9"):
        decoder.prefill([1] * 9, 0, 0, mask, (0, 0))
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        decoder.step(1, 0, 0, mask)
    with pytest.raises(EngineError, match="engine is closed"):
        engine.open_decoder(speech.spec.buckets[0], speech.spec)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "dynamic-int8"])
def test_one_partition_a_signature(lowered: dict[str, Lowered], speech: Speech, precision: str) -> None:
    assert lowered[precision].partitions == len(speech.programs)


def test_everything_is_stored_once(lowered: dict[str, Lowered], speech: Speech) -> None:
    """The model's parameters, and what a bucket alone has: its silent tail. 21 kB of operators a signature."""
    tensors = {
        id(tensor): tensor.nbytes
        for program in speech.programs
        for tensor in (*program.module.parameters(), *program.module.buffers())
    }
    size = (lowered["fp32"].folder / MODEL_FILE).stat().st_size
    assert size < sum(tensors.values()) + len(speech.programs) * 25_000


def test_int8_is_in_tables_and_weights_and_not_in_attention(lowered: dict[str, Lowered]) -> None:
    graph = LiteRTGraph(lowered["dynamic-int8"].folder / MODEL_FILE)
    float32, int8 = graph.schema.TensorType.FLOAT32, graph.schema.TensorType.INT8
    found: dict[str, set[int]] = {}
    for subgraph in graph.model.subgraphs:
        for operator in subgraph.operators:
            if len(operator.inputs) > 1:
                found.setdefault(graph.name(operator), set()).add(subgraph.tensors[operator.inputs[1]].type)
    assert found["EMBEDDING_LOOKUP"] == found["FULLY_CONNECTED"] == {int8}
    assert found["BATCH_MATMUL"] == {float32}


@pytest.fixture(scope="module")
def tiny_en(assets: Path) -> Speech:
    return open_speech(assets / "whisper-tiny.en", "litert", (600,), HOST_STATE)


def test_the_real_model_transcribes_as_the_baseline_does(tiny_en: Speech, assets: Path, tmp_path: Path) -> None:
    """fp32 and int8; and the weights of one take what the checkpoint's parameters take, a little more."""
    (tmp_path / "fp32").mkdir()
    (tmp_path / "int8").mkdir()
    fp32 = LiteRTConverter().lower_fp32(tiny_en.programs, tmp_path / "fp32")
    int8 = LiteRTConverter().lower_precision(tiny_en.programs, fp32, PRECISIONS["dynamic-int8"], tmp_path / "int8")
    for lowered, megabytes in ((fp32, 156), (int8, 44)):
        assert lowered.partitions == 3
        assert (lowered.folder / MODEL_FILE).stat().st_size < megabytes * 1e6
        engine = engine_of(tiny_en, lowered)
        with closing(engine.open_decoder(tiny_en.spec.buckets[0], tiny_en.spec)) as decoder:
            assert greedy(decoder, tiny_en, jfk_mel(assets)) == jfk_tokens(assets)
        engine.close()
