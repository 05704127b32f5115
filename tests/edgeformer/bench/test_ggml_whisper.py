"""The writer of whisper.cpp's format, read back as `whisper_model_load` reads it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch

from edgeformer.attention import KERNELS
from edgeformer.bench.whisper_formats import Q8_BLOCK, PeerModels, quantize_q8_0, write_ggml
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from tests.checkpoint_factory import save_whisper


@dataclass
class GgmlFile:
    header: tuple[int, ...]
    filters: np.ndarray
    vocabulary: list[bytes]
    tensors: dict[str, tuple[int, np.ndarray]]
    """By name, the type's id and the values as float32."""


def ints(file: BinaryIO, count: int) -> tuple[int, ...]:
    return struct.unpack(f"<{count}i", file.read(4 * count))


def read_ggml(path: Path) -> GgmlFile:
    with path.open("rb") as file:
        assert struct.unpack("<I", file.read(4)) == (0x67676D6C,)
        header = ints(file, 11)
        shape = ints(file, 2)
        filters = np.frombuffer(file.read(4 * shape[0] * shape[1]), "<f4").reshape(shape)
        vocabulary = [file.read(*ints(file, 1)) for _ in range(*ints(file, 1))]
        tensors = {}
        while start := file.read(12):
            rank, length, kind = struct.unpack("<3i", start)
            sizes = ints(file, rank)[::-1]
            name = file.read(length).decode()
            tensors[name] = kind, read_values(file, kind, sizes)
    return GgmlFile(header, filters, vocabulary, tensors)


def read_values(file: BinaryIO, kind: int, shape: tuple[int, ...]) -> np.ndarray:
    count = int(np.prod(shape))
    if kind == 8:
        return dequantize(file.read(count // Q8_BLOCK * (2 + Q8_BLOCK))).reshape(shape)
    dtype = np.dtype({0: "<f4", 1: "<f2"}[kind])
    return np.frombuffer(file.read(count * dtype.itemsize), dtype).astype(np.float32).reshape(shape)


def dequantize(packed: bytes) -> np.ndarray:
    blocks = np.frombuffer(packed, dtype=[("scale", "<f2"), ("values", "i1", Q8_BLOCK)])
    return (blocks["scale"].astype(np.float32)[:, None] * blocks["values"]).ravel()


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_whisper(tmp_path_factory.mktemp("ggml") / "tiny", decoder_layers=1)


@pytest.mark.parametrize("precision", ["fp16", "q8_0"])
def test_a_file_holds_the_model(whisper: Path, tmp_path: Path, precision: str) -> None:
    checkpoint = open_checkpoint(str(whisper))
    config = checkpoint.config
    found = read_ggml(PeerModels(checkpoint, tmp_path).ggml(precision))
    assert found.header == (
        config.vocab_size, 1500, config.d_model, 2, 2, 448, config.d_model, 2, 1, 80,
        {"fp16": 1, "q8_0": 2007}[precision],
    )  # fmt: skip
    assert found.filters.shape == (80, 201)
    assert len(found.vocabulary) == checkpoint.speech.tokens.end
    assert b" " in found.vocabulary and all(bytes([value]) in found.vocabulary for value in range(256))
    # As many as whisper.cpp counts: 10 outside the layers, 15 in a layer of the encoder, 24 in one of the decoder.
    assert len(found.tensors) == 10 + 1 + 15 * 2 + 24 * 1

    module, _ = load_module(checkpoint, KERNELS["dense"])
    state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    assert {kind for kind, _ in found.tensors.values()} == ({0, 1} if precision == "fp16" else {0, 1, 8})
    for ours, theirs, step in (
        ("encoder.conv1.weight", "encoder.conv1.weight", 2**-11),
        ("encoder.layers.1.self_attn.k_proj.weight", "encoder.blocks.1.attn.key.weight", 1 / 127),
        ("decoder.layers.0.encoder_attn_layer_norm.bias", "decoder.blocks.0.cross_attn_ln.bias", 0.0),
        ("decoder.layers.0.fc2.weight", "decoder.blocks.0.mlp.2.weight", 1 / 127),
        ("decoder.embed_positions.weight", "decoder.positional_embedding", 0.0),
        ("encoder.layer_norm.weight", "encoder.ln_post.weight", 0.0),
    ):
        np.testing.assert_allclose(
            found.tensors[theirs][1].squeeze(), state[ours], rtol=0, atol=step * np.abs(state[ours]).max()
        )


def test_blocks_of_8_bits_round_to_the_nearest_step() -> None:
    weights = torch.randn(4, 96, generator=torch.Generator().manual_seed(0)).numpy()
    weights[2, 32:64] = 0
    restored = dequantize(quantize_q8_0(weights)).reshape(4, 3, Q8_BLOCK)
    steps = np.abs(weights.reshape(4, 3, Q8_BLOCK)).max(axis=2, keepdims=True) / 127
    # Half a step of rounding, and the scale's own rounding to 11 bits on up to 127 steps.
    assert np.all(np.abs(restored - weights.reshape(4, 3, Q8_BLOCK)) <= steps * (0.5 + 127 * 2**-11))
    assert not restored[2, 1].any()


def test_writing_needs_no_order_of_tensors(whisper: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(whisper))
    module, _ = load_module(checkpoint, KERNELS["dense"])
    state = {name: tensor.numpy() for name, tensor in reversed(list(module.state_dict().items()))}
    write_ggml(tmp_path / "model.bin", checkpoint.config, state, [b"a"], "fp16")
    assert read_ggml(tmp_path / "model.bin").vocabulary == [b"a"]
