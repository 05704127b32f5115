"""Whisper as ExecuTorch methods that keep its state, through ExecuTorch's own runtimes, against torch."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_factory import save_whisper
from executorch_runtimes import both_runtimes
from lowered_bundle import check_files
from small_speech import Speech, baseline, differences, mask_of, open_speech, reference_decoder, script
from torch import Tensor, nn

from edgeformer.convert.target import PRECISIONS, Lowered
from edgeformer_converters.executorch.converter import ExecuTorchConverter
from edgeformer_converters.executorch.rewrites import (
    changed_buffers,
    memory_plans,
    normalize_in_delegate,
    slice_instead_of_select,
    write_rows_by_index,
)
from edgeformer_runtime.engines.decoder import DecoderOutput
from edgeformer_runtime.engines.executorch import ExecuTorchEngine, Runtime
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.pipelines.speech import Transcriber

pytestmark = [pytest.mark.executorch, pytest.mark.slow]
POSITIONS = (100,)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_whisper(tmp_path_factory.mktemp("whisper"), encoder_layers=1)


@pytest.fixture(scope="module")
def speech(folder: Path) -> Speech:
    return open_speech(folder, "executorch", POSITIONS)


@pytest.fixture(scope="module")
def expected(folder: Path, speech: Speech) -> list[DecoderOutput]:
    return script(reference_decoder(folder, POSITIONS), speech)


def lower(speech: Speech, precision: str, folder: Path) -> Lowered:
    return ExecuTorchConverter().lower_precision(
        speech.programs, Lowered(folder, (), {}, {}, None), PRECISIONS[precision], folder
    )


@pytest.fixture(scope="module")
def fp32(speech: Speech, tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    return lower(speech, "fp32", tmp_path_factory.mktemp("fp32"))


@pytest.fixture(scope="module")
def engine(fp32: Lowered, speech: Speech, executorch: Runtime) -> ExecuTorchEngine:
    return ExecuTorchEngine(speech.bundle(fp32), 1, executorch)


def test_every_step_answers_as_torch_does(
    engine: ExecuTorchEngine, speech: Speech, expected: list[DecoderOutput]
) -> None:
    decoder = engine.open_decoder(speech.bucket, speech.spec)
    largest, lowest = differences(script(decoder, speech), expected)
    assert largest < 1e-4
    assert lowest > 0.999999


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one layer each, as lowering takes a minute for each more."""
    return save_whisper(tmp_path_factory.mktemp("distilled"), encoder_layers=1, decoder_layers=1)


# fp16 rounds every result (relative 2^-11); int8 rounds weights per channel and activations per row.
@pytest.mark.parametrize(("precision", "tolerance", "cosine"), [("fp16", 1e-2, 0.9999), ("dynamic-int8", 6e-2, 0.999)])
def test_other_precisions_are_close(
    distilled: Path, tmp_path: Path, executorch_shim: Path, precision: str, tolerance: float, cosine: float
) -> None:
    speech = open_speech(distilled, "executorch", POSITIONS)
    expected = script(reference_decoder(distilled, POSITIONS), speech)
    lowered = lower(speech, precision, tmp_path)
    check_files("executorch", speech.programs, lowered)
    answers = []
    for runtime in both_runtimes(executorch_shim).values():
        engine = ExecuTorchEngine(speech.bundle(lowered), 1, runtime)
        answers.append(script(engine.open_decoder(speech.bucket, speech.spec), speech))
        largest, lowest = differences(answers[-1], expected)
        assert largest < tolerance
        assert lowest > cosine
    assert differences(*answers)[0] < 1e-6
    assert lowered.partitions == 1


def test_the_runtime_takes_the_file(fp32: Lowered, speech: Speech) -> None:
    check_files("executorch", speech.programs, fp32)


def test_programs_are_few_pieces_and_write_rows_in_place(fp32: Lowered) -> None:
    assert fp32.operators["XnnpackBackend"] == 4  # encode 1, decode 1, prefill 2
    assert fp32.operators["aten::index_put_."] == 2 * 4
    for outside in ("aten::where.self_out", "aten::copy_.", "aten::native_layer_norm.out"):
        assert outside not in fp32.operators


def test_each_decoder_has_a_state_of_its_own(engine: ExecuTorchEngine, speech: Speech) -> None:
    one, other = (engine.open_decoder(speech.bucket, speech.spec) for _ in range(2))
    for decoder in (one, other):
        decoder.encode(speech.audio(0))
    one.step(5, 0, 0, mask_of(one, []))
    alone = one.step(6, 1, 1, mask_of(one, [0])).logits
    one.step(5, 0, 0, mask_of(one, []))
    other.step(9, 0, 0, mask_of(other, []))
    np.testing.assert_array_equal(one.step(6, 1, 1, mask_of(one, [0])).logits, alone)


def test_misuse_of_a_decoder_is_refused(engine: ExecuTorchEngine, speech: Speech) -> None:
    decoder = engine.open_decoder(speech.bucket, speech.spec)
    mask = mask_of(decoder, [])
    with pytest.raises(EngineError, match="has encoded nothing yet: call encode first"):
        decoder.step(5, 0, 0, mask)
    with pytest.raises(InputError, match=r"encode_100: mel: expected float32 \(1, 80, 200\)"):
        decoder.encode(speech.audio(0)[:, :, :10])
    decoder.encode(speech.audio(0))
    with pytest.raises(InputError, match="expected 1 of the cache's slots"):
        decoder.step(5, 0, decoder.rows, mask)
    with pytest.raises(InputError, match="mask: expected float32"):
        decoder.step(5, 0, 0, mask[1:])
    decoder.close()
    decoder.close()
    with pytest.raises(EngineError, match="decoder is closed"):
        decoder.step(5, 0, 0, mask)


def test_no_decoder_works_after_its_engine(fp32: Lowered, speech: Speech, executorch: Runtime) -> None:
    engine = ExecuTorchEngine(speech.bundle(fp32), 1, executorch)
    decoder = engine.open_decoder(speech.bucket, speech.spec)
    decoder.encode(speech.audio(0))
    engine.close()
    with pytest.raises(EngineError, match="the executorch engine is closed"):
        decoder.step(5, 0, 0, mask_of(decoder, []))


def test_rewrites_change_no_answer_and_no_state(speech: Speech) -> None:
    generator = torch.Generator().manual_seed(0)
    for program in speech.programs:
        module = torch.export.export(program.module, program.example_inputs()).module()
        for rewrite in (write_rows_by_index, slice_instead_of_select, normalize_in_delegate):
            rewrite(module)
        rows = speech.bucket.rows
        inputs = {spec.name: torch.randn(spec.shape, generator=generator) for spec in program.inputs}
        count = speech.spec.prefill_tokens
        integers = {
            "token": [5], "position": [3], "row": [rows - 1], "wanted": [1, 3], "tokens": list(range(count)),
            "positions": list(range(count)), "rows": [5, 9, 100, 0, *[rows] * (count - 4)],
        }  # fmt: skip
        inputs |= {name: torch.tensor(value).int() for name, value in integers.items() if name in inputs}
        before = {name: buffer.clone() for name, buffer in program.module.named_buffers()}
        results = []
        for each in (program.module, module):
            for name, buffer in program.module.named_buffers():
                buffer.copy_(before[name])
            with torch.no_grad():
                outputs = each(*inputs.values())
            state = [buffer.clone() for name, buffer in each.named_buffers() if "self_" in name]
            results.append([*outputs, *state])
        for found, wanted in zip(*reversed(results), strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


class Selecting(nn.Module):
    """A selection that is none of rows by number: it has to stay as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.zeros(4))

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """(4,) to (4,)."""
        kept = self.get_buffer("kept")
        kept.copy_(torch.where(x > 0, x, kept))
        return (kept + 1,)


def test_other_selections_stay() -> None:
    x = torch.tensor([1.0, -1.0, 2.0, -2.0])
    module = torch.export.export(Selecting(), (x,)).module()
    write_rows_by_index(module)
    assert module(x)[0].tolist() == [2, 1, 3, 1]
    assert module.get_buffer("kept").tolist() == [1, 0, 2, 0]


def test_programs_of_a_bucket_plan_one_state_and_buckets_do_not_add_up(folder: Path) -> None:
    speech = open_speech(folder, "executorch", (50, 100))
    exported = {
        program.name: torch.export.export(program.module, program.example_inputs()) for program in speech.programs
    }
    plans = memory_plans(speech.programs, exported)
    assert changed_buffers(exported["encode_50"]) == ()
    assert len(changed_buffers(exported["decode_50"])) == 2 * speech.spec.layers
    for bucket in (50, 100):
        assert plans[f"prefill_{bucket}"] is plans[f"decode_{bucket}"]
        assert plans[f"encode_{bucket}"] is not plans[f"decode_{bucket}"]
    assert plans["decode_50"] is not plans["decode_100"]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def test_tiny_english_hears_what_torch_hears(assets: Path, tmp_path: Path, executorch_shim: Path) -> None:
    # One precision, the farthest from torch: lowering takes minutes.
    speech = open_speech(assets / "whisper-tiny.en", "executorch", (600,))
    bundle = speech.bundle(lower(speech, "dynamic-int8", tmp_path))
    for runtime in both_runtimes(executorch_shim).values():
        text = Transcriber(bundle, ExecuTorchEngine(bundle, 1, runtime)).run(assets / "speech" / "jfk.wav").text
        # Where int8 rounds is the kernel's choice, and so the CPU's: it decides between a comma and a full stop here.
        assert words(text) == words(baseline(assets, "jfk.wav"))
