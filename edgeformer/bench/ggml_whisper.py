"""Writes a Whisper in whisper.cpp's model format, so that its peer runs on the very weights that are measured.

The format is what whisper.cpp's `whisper_model_load` reads: a header of int32, the mel filters, the vocabulary as
bytes, and tensors one after the other, all little-endian. Tensor names are those of OpenAI's own code.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgeformer.models.whisper.config import WhisperConfig
from edgeformer_runtime.preprocess.log_mel import mel_filter_bank

Floats = NDArray[np.float32]

MAGIC = 0x67676D6C
N_FFT, SAMPLE_RATE = 400, 16000

# What a file calls its kind of weights ("ftype", with the version of the quantized formats), and the id of its tensors.
_QUANTIZED_VERSION = 2000
FILE_TYPES = {"fp16": 1, "q8_0": _QUANTIZED_VERSION + 7}
TENSOR_TYPES = {"fp32": 0, "fp16": 1, "q8_0": 8}
Q8_BLOCK = 32

# Never in 16 or 8 bits, as in whisper.cpp's own converter: the sum of positions and embeddings is sensitive.
_ALWAYS_FP32 = ("encoder.positional_embedding", "decoder.positional_embedding")

# From public names to OpenAI's, in order: the encoder's and the decoder's last norm differ from the layers' norms.
_NAMES = (
    (r"^encoder\.layer_norm\.", "encoder.ln_post."),
    (r"^decoder\.layer_norm\.", "decoder.ln."),
    (r"embed_positions\.weight$", "positional_embedding"),
    (r"embed_tokens\.", "token_embedding."),
    (r"\.layers\.", ".blocks."),
    (r"self_attn_layer_norm", "attn_ln"),
    (r"encoder_attn_layer_norm", "cross_attn_ln"),
    (r"final_layer_norm", "mlp_ln"),
    (r"self_attn\.", "attn."),
    (r"encoder_attn\.", "cross_attn."),
    (r"\.q_proj\.", ".query."),
    (r"\.k_proj\.", ".key."),
    (r"\.v_proj\.", ".value."),
    (r"\.out_proj\.", ".out."),
    (r"\.fc1\.", ".mlp.0."),
    (r"\.fc2\.", ".mlp.2."),
)


def write_ggml(
    file: Path, config: WhisperConfig, state: Mapping[str, Floats], vocabulary: Sequence[bytes], precision: str
) -> None:
    """Write a model file for whisper.cpp.

    Args:
        file: where to; an existing file is replaced.
        config: the model's sizes.
        state: float32 weights under public names without their prefix `model.`, the tied output layer left out.
        vocabulary: the bytes of the text tokens by id, the special ones left out: whisper.cpp knows theirs.
        precision: "fp16", or "q8_0": matrices as blocks of 32 int8 with a scale in float16.
    """
    with file.open("wb") as out:
        _write_header(out, config, vocabulary, precision)
        for name, weights in state.items():
            _write_tensor(out, openai_name(name), weights, precision)


def openai_name(name: str) -> str:
    """OpenAI's name of a tensor, for the public one: `decoder.layers.0.fc1.bias` to `decoder.blocks.0.mlp.0.bias`."""
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def quantize_q8_0(weights: Floats) -> bytes:
    """Blocks of 32 values of a row: the scale in float16, largest magnitude / 127, then the int8 values.

    Args:
        weights: float32, the last axis a multiple of 32.
    """
    blocks = weights.reshape(-1, Q8_BLOCK)
    scales = np.abs(blocks).max(axis=1, keepdims=True) / 127
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales > 0)
    packed = np.empty(len(blocks), dtype=[("scale", "<f2"), ("values", "i1", Q8_BLOCK)])
    packed["scale"] = scales[:, 0]
    packed["values"] = np.rint(blocks * inverse)
    return packed.tobytes()


def _write_header(out: BinaryIO, config: WhisperConfig, vocabulary: Sequence[bytes], precision: str) -> None:
    sizes = (
        config.vocab_size,
        config.max_source_positions,
        config.d_model,
        config.encoder_attention_heads,
        config.encoder_layers,
        config.max_target_positions,
        config.d_model,
        config.decoder_attention_heads,
        config.decoder_layers,
        config.num_mel_bins,
        FILE_TYPES[precision],
    )
    filters = mel_filter_bank(config.num_mel_bins, N_FFT, SAMPLE_RATE)
    out.write(_int32(MAGIC, *sizes, *filters.shape))
    out.write(filters.astype("<f4").tobytes())
    out.write(_int32(len(vocabulary)))
    for token in vocabulary:
        out.write(_int32(len(token)) + token)


def _write_tensor(out: BinaryIO, name: str, weights: Floats, precision: str) -> None:
    """One tensor: rank, length of its name and type, its shape from the last axis to the first, name and data."""
    kind = "fp32"
    if weights.ndim >= 2 and name not in _ALWAYS_FP32:
        kind = precision if weights.ndim == 2 else "fp16"  # convolutions have no blocks
    if re.fullmatch(r"encoder\.conv\d\.bias", name):
        weights = weights[:, None]  # added to (C, T)
    encoded = name.encode()
    out.write(_int32(weights.ndim, len(encoded), TENSOR_TYPES[kind], *reversed(weights.shape)))
    out.write(encoded)
    if kind == "q8_0":
        out.write(quantize_q8_0(weights))
    else:
        out.write(weights.astype("<f2" if kind == "fp16" else "<f4").tobytes())


def _int32(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)
