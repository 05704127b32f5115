"""Whisper's programs against the whole model: steps, prefill, caches on either side, and silence as a stand-in."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_factory import save_whisper
from safetensors.torch import load_file
from torch import Tensor

from edgeformer.attention import KERNELS
from edgeformer.attention.kernels import MASK_VALUE
from edgeformer.models.config import read_object
from edgeformer.models.family import Program, ProgramOptions
from edgeformer.models.whisper.family import FAMILY
from edgeformer.models.whisper.model import Whisper, WhisperConfig, silence_of, tail_bias, tail_positions
from edgeformer.models.whisper.programs import transcription_layout
from edgeformer_runtime.bundle.specs import bucket_layout
from edgeformer_runtime.errors import InputError

TOKENS = [291, 292, 295, 5, 77, 130, 204, 9, 260, 31, 88]
WINDOW = 300
"""Positions of the model's window: a fifth of the public models', for speed."""
MEL = torch.randn(1, 80, 2 * WINDOW, generator=torch.Generator().manual_seed(1)) * 0.5


def load(folder: Path) -> tuple[Whisper, WhisperConfig]:
    config = FAMILY.parse_config(read_object(folder / "config.json"))
    module = FAMILY.build(config, "speech-recognition", 0, KERNELS["dense"])
    module.load_state_dict(FAMILY.rename(load_file(folder / "model.safetensors")))
    assert isinstance(module, Whisper)
    return module, config


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Whisper, WhisperConfig]:
    return load(save_whisper(tmp_path_factory.mktemp("whisper"), max_source_positions=WINDOW))


@dataclass
class Host:
    """A bucket's programs with the caches kept here, as a host keeps them, or left to the programs."""

    programs: dict[str, Program]
    rows: int

    def __init__(self, programs: tuple[Program, ...], mel: Tensor) -> None:
        self.programs = {program.name.split("_")[0]: program for program in programs}
        decode = self.programs["decode"]
        shapes = {spec.name: spec.shape for spec in decode.inputs}
        self.rows = shapes["mask"][0]
        self.cross = self._run("encode", [mel])
        self.caches = {name: torch.zeros(shape) for name, shape in shapes.items() if name.startswith("self_")}
        self.in_program = "row" in shapes

    def _run(self, name: str, inputs: list[Tensor]) -> dict[str, Tensor]:
        program = self.programs[name]
        with torch.no_grad():
            outputs = program.module(*inputs)
        assert [tuple(output.shape) for output in outputs] == [spec.shape for spec in program.outputs]
        assert [tuple(tensor.shape) for tensor in inputs] == [spec.shape for spec in program.inputs]
        return dict(zip((spec.name for spec in program.outputs), outputs, strict=True))

    def mask(self, seen: list[int]) -> Tensor:
        mask = torch.full((self.rows,), MASK_VALUE)
        mask[seen] = 0
        return mask

    def feed(self, name: str, tokens: list[int], position: int, rows: list[int], seen: list[int], wanted: Any) -> Any:
        """Tokens at position and on, into rows; (logits, alignment)."""
        count = len(tokens)
        steering = [torch.tensor(tokens), torch.arange(position, position + count)]
        if self.in_program:
            steering.append(torch.tensor(rows))
        inputs = [tensor.int() for tensor in steering] + [self.mask(seen), *self.caches.values(), *self.cross.values()]
        outputs = self._run(name, inputs + ([torch.tensor(wanted, dtype=torch.int32)] if wanted else []))
        for name_in, cache in self.caches.items():
            new = outputs[name_in.replace("self_", "new_")]
            size = cache.numel() // self.rows
            for number, row in enumerate(rows):
                if row >= self.rows:
                    continue
                heads = self.heads
                if "_k_" in name_in:
                    target, source = cache.view(size, self.rows), new.view(size, count)
                    target[:, row] = source[:, number]
                else:
                    target3 = cache.view(heads, self.rows, size // heads)
                    target3[:, row] = new.view(heads, count, size // heads)[:, number]
        return outputs["logits"], outputs["alignment"]

    heads = 2

    def step(self, token: int, position: int, row: int, seen: list[int]) -> Any:
        return self.feed("decode", [token], position, [row], seen, None)


def make_programs(model: tuple[Whisper, WhisperConfig], **options: Any) -> tuple[Program, ...]:
    return FAMILY.programs(*model, ProgramOptions(**options))


def full_logits(module: Whisper, tokens: list[int], mel: Tensor = MEL) -> Tensor:
    with torch.no_grad():
        return module(mel, torch.tensor([tokens]))[0]


@pytest.mark.parametrize("products", ["matmul", "elementwise"])
@pytest.mark.parametrize("state", ["host", "program"])
def test_steps_and_prefill_equal_the_whole_decoder(
    model: tuple[Whisper, WhisperConfig], state: str, products: str
) -> None:
    options = {"window": "full", "decoder_state": state, "prefill_tokens": 4, "token_matmul": products}
    host = Host(make_programs(model, **options), MEL)
    expected = full_logits(model[0], TOKENS)
    alignments = []
    for position, token in enumerate(TOKENS):
        logits, alignment = host.step(token, position, position, list(range(position)))
        alignments.append(alignment)
        torch.testing.assert_close(logits, expected[position], rtol=0, atol=1e-4)
        torch.testing.assert_close(alignment.sum(dim=1), torch.ones(2), rtol=0, atol=1e-5)
    again = Host(make_programs(model, **options), MEL)
    again.step(TOKENS[0], 0, 0, [])
    logits, _ = again.feed("prefill", TOKENS[1:5], 1, [1, 2, 3, 4], [0], [0, 3])
    torch.testing.assert_close(logits, expected[[1, 4]], rtol=0, atol=1e-4)
    logits, alignment = again.feed("prefill", TOKENS[5:9], 5, [5, 6, 7, 8], [0, 1, 2, 3, 4], [2, 1])
    torch.testing.assert_close(logits, expected[[7, 6]], rtol=0, atol=1e-4)
    torch.testing.assert_close(alignment, alignments[6], rtol=0, atol=1e-5)
    logits, _ = again.step(TOKENS[9], 9, 9, list(range(9)))
    torch.testing.assert_close(logits, expected[9], rtol=0, atol=1e-4)


@pytest.mark.parametrize("state", ["host", "program"])
def test_scattered_rows_equal_rows_in_order(model: tuple[Whisper, WhisperConfig], state: str) -> None:
    host = Host(make_programs(model, audio_positions=(100,), decoder_state=state), MEL[..., :200])
    plain = [host.step(token, i, i, list(range(i)))[0] for i, token in enumerate(TOKENS)]
    rows = [77, 3, 120, 0, 64, 8, 127, 30, 31, 90, 5]
    scattered = Host(make_programs(model, audio_positions=(100,), decoder_state=state), MEL[..., :200])
    for row in range(scattered.rows):
        scattered.step(7, 3, row, [])  # rows of other hypotheses
    for i, token in enumerate(TOKENS):
        logits, _ = scattered.step(token, i, rows[i], rows[:i])
        torch.testing.assert_close(logits, plain[i], rtol=0, atol=1e-5)


@pytest.mark.parametrize("state", ["host", "program"])
def test_padding_of_a_prefill_disturbs_nobody(model: tuple[Whisper, WhisperConfig], state: str) -> None:
    options: dict[str, Any] = {"audio_positions": (100,), "decoder_state": state}
    host = Host(make_programs(model, **options, prefill_tokens=8), MEL[..., :200])
    plain = [host.step(token, i, i, list(range(i))) for i, token in enumerate(TOKENS)]
    padded = Host(make_programs(model, **options, prefill_tokens=8), MEL[..., :200])
    padding = [0] * 5
    # Rows beyond the cache, as at its end, are written nowhere.
    logits, alignment = padded.feed("prefill", TOKENS[:3] + padding, 0, [0, 1, 2, 3, 4, 5, 128, 129], [], [0, 2])
    torch.testing.assert_close(logits, torch.stack([plain[0][0], plain[2][0]]), rtol=0, atol=1e-5)
    torch.testing.assert_close(alignment, plain[2][1], rtol=0, atol=1e-6)
    for i in range(3, len(TOKENS)):
        logits, _ = padded.step(TOKENS[i], i, i, list(range(i)))
        torch.testing.assert_close(logits, plain[i][0], rtol=0, atol=1e-5)


def test_caches_in_the_program_equal_caches_of_the_host(model: tuple[Whisper, WhisperConfig]) -> None:
    programs = make_programs(model, audio_positions=(100,), decoder_state="program", prefill_tokens=4)
    inside = Host(programs, MEL[..., :200])
    outside = Host(make_programs(model, audio_positions=(100,), prefill_tokens=4), MEL[..., :200])
    for host in (inside, outside):
        host.feed("prefill", TOKENS[:4], 0, [9, 2, 5, 7], [], [0, 3])
        host.step(TOKENS[4], 4, 1, [9, 2, 5, 7])
    _, prefill, decode = programs
    for name, cache in outside.caches.items():
        kept = decode.module.get_buffer(f"caches.{name}")
        assert kept is prefill.module.get_buffer(f"caches.{name}")
        torch.testing.assert_close(kept.reshape(-1), cache, rtol=0, atol=1e-5)


def test_silence_behind_silence_is_the_whole_window(model: tuple[Whisper, WhisperConfig]) -> None:
    """With nothing but silence, positions and stand-ins are what the whole window has there."""
    module, config = model
    silence = silence_of(module)
    mel = torch.full((1, 80, 480), -0.6)
    encode, *_ = make_programs(model, audio_positions=(240,))
    with torch.no_grad():
        keys = encode.module(mel)[0].reshape(2, 32, WINDOW)
        expected = module.decoder.blocks[0].encoder_attn.project(silence.states)[0][0].transpose(1, 2)
    # The last position's convolution sees the cut, and all others through it, a little (keys are of the order of 1).
    torch.testing.assert_close(keys[:, :, :230], expected[:, :, :230], rtol=0, atol=1e-2)
    torch.testing.assert_close(keys[:, :, 240:], expected[:, :, 240:])
    assert config.max_source_positions == WINDOW


@pytest.mark.parametrize(("positions", "window"), [(125, 1500), (600, 1500), (1435, 1500), (1436, 1500), (1500, 1500)])
def test_the_tail_covers_what_is_missing(positions: int, window: int) -> None:
    tail = tail_positions(positions, window)
    assert len(tail) == min(64, window - positions)
    assert sum(count for _, count in tail) == window - positions
    places = [place for place, _ in tail]
    assert places == sorted(set(places))
    assert not places or (positions <= places[0] and places[-1] < window)
    assert all(count == 1 for _, count in tail[:32])
    bias = tail_bias(positions, window)
    assert bias.shape == (positions + len(tail),)
    assert bias[:positions].abs().max() == 0
    assert math.isclose(bias[positions:].exp().sum().item(), window - positions, rel_tol=1e-5, abs_tol=1e-6)


def test_a_weighted_key_stands_for_equal_keys() -> None:
    """The log of the count, by its definition: one key of weight n against n equal ones."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 5, 4, generator=generator) for _ in range(3))
    repeated = [0, 1, 2, 3, 4, 4, 4, 4, 4, 4, 4]
    expected = KERNELS["dense"](q, k[:, :, repeated], v[:, :, repeated], None, 0.5)
    bias = torch.tensor([0.0, 0, 0, 0, math.log(7)])[None, None, None]
    torch.testing.assert_close(KERNELS["dense"](q, k, v, bias, 0.5), expected)


def test_programs_share_parameters_and_are_contiguous(model: tuple[Whisper, WhisperConfig]) -> None:
    programs = make_programs(model, audio_positions=(100, 250))
    assert [program.name for program in programs] == [
        f"{kind}_{positions}" for positions in (100, 250) for kind in ("encode", "prefill", "decode")
    ]
    of_model = {id(parameter) for parameter in model[0].parameters()}
    for program in programs:
        assert {id(parameter) for parameter in program.module.parameters()} <= of_model
        floats = [*program.module.parameters(), *program.module.buffers()]
        assert all(tensor.is_contiguous() for tensor in floats)
        assert all(tensor.dtype == torch.float32 for tensor in floats)
    used = {id(parameter) for program in programs for parameter in program.module.parameters()}
    assert used == of_model


@pytest.mark.slow
@pytest.mark.parametrize("state", ["host", "program"])
def test_programs_export(model: tuple[Whisper, WhisperConfig], state: str) -> None:
    for program in make_programs(model, audio_positions=(100,), decoder_state=state):
        inputs = tuple(
            torch.full(spec.shape, MASK_VALUE) if spec.name == "mask" else example  # whatever the caches hold
            for spec, example in zip(program.inputs, program.example_inputs(), strict=True)
        )
        exported = torch.export.export(program.module, inputs).run_decompositions({})
        written = set(exported.graph_signature.buffers_to_mutate.values())
        kept = {f"caches.self_{part}_{layer}" for part in "kv" for layer in range(2)}
        assert written == (kept if state == "program" and not program.name.startswith("encode") else set())
        # A parameter without a use would still take its place in the file.
        used = {node.name for node in exported.graph.nodes if node.users}
        assert set(exported.graph_signature.inputs_to_parameters) <= used
        with torch.no_grad():
            expected = program.module(*inputs)
            for found, reference in zip(exported.module()(*inputs), expected, strict=True):
                torch.testing.assert_close(found, reference, rtol=0, atol=1e-5)


def test_the_layout_is_the_programs(model: tuple[Whisper, WhisperConfig]) -> None:
    layout = transcription_layout(WhisperConfig(), ProgramOptions())
    assert [bucket.positions for bucket in layout.buckets] == list(range(125, 1501, 125))
    assert [bucket.tail for bucket in layout.buckets] == [64] * 11 + [0]
    assert [bucket.rows for bucket in layout.buckets[:3]] == [128, 160, 192]
    assert layout.buckets[-1].rows == 448
    assert all(bucket.rows % 32 == 0 for bucket in layout.buckets)
    options = ProgramOptions(audio_positions=(250, 100, 250), prefill_tokens=3, decoder_state="program")
    layout = transcription_layout(model[1], options)
    programs = FAMILY.programs(*model, options)
    entries = [entry for bucket in layout.buckets for entry in bucket_layout(layout, bucket, 80)]
    assert [(entry.name, entry.inputs, entry.outputs) for entry in entries] == [
        (program.name, program.inputs, program.outputs) for program in programs
    ]


def test_the_whole_window_is_one_bucket(model: tuple[Whisper, WhisperConfig]) -> None:
    layout = transcription_layout(model[1], ProgramOptions(audio_positions=(100, 200), window="full"))
    assert [(bucket.positions, bucket.tail) for bucket in layout.buckets] == [(WINDOW, 0)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"audio_positions": (100, 301)}, "at most this model's 300, found 301"),
        ({"audio_positions": (0,)}, "at least 1"),
        ({"audio_positions": ()}, "at least 1"),
        ({"prefill_tokens": 128, "audio_positions": (100,)}, "fewer than the 128 slots"),
        ({"prefill_tokens": 1}, "at least 2 tokens"),
        ({"window": "half"}, "expected one of tail, full"),
        ({"decoder_state": "nobody"}, "expected one of host, program"),
        ({"token_matmul": "guesses"}, "expected one of matmul, elementwise"),
    ],
)
def test_refuses_impossible_options(
    model: tuple[Whisper, WhisperConfig], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make_programs(model, **options)


def test_alignment_heads_in_the_order_of_layers(model: tuple[Whisper, WhisperConfig]) -> None:
    module, config = model
    every = replace(config, alignment_heads=((1, 1), (0, 1), (0, 0), (1, 0)))
    assert every.alignment_heads == ((0, 0), (0, 1), (1, 0), (1, 1))
    host = Host(FAMILY.programs(module, every, ProgramOptions(window="full")), MEL)
    _, weights = host.step(TOKENS[0], 0, 0, [])
    with torch.no_grad():
        states = module.encoder(MEL)
        layer = module.decoder.blocks[0]
        x = module.decoder.embed(torch.tensor([TOKENS[0]]), torch.tensor([0]))[None]
        hidden = layer.self_attn_layer_norm(x)
        x = x + layer.self_attn(hidden, *layer.self_attn.project(hidden), None)
        attention = layer.encoder_attn
        keys, _ = attention.project(states)
        queries = attention.q_proj(layer.encoder_attn_layer_norm(x)).reshape(1, 2, 32)
        scores = torch.einsum("nhd,hsd->hns", queries, keys[0])[:, 0] * attention.scale
    torch.testing.assert_close(weights[:2], scores.softmax(dim=-1), rtol=0, atol=1e-6)
