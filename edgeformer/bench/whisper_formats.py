"""One Whisper in the formats of its peers, made once and kept: every contender computes with the same weights."""

from __future__ import annotations

import importlib.metadata
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import Checkpoint, load_module
from edgeformer.models.whisper.model import WhisperConfig
from edgeformer_runtime.bundle.specs import SpeechTokens
from edgeformer_runtime.decoding.tokenizer import SpeechTokenizer
from edgeformer_runtime.delivery import put, work_folder
from edgeformer_runtime.preprocess.log_mel import mel_filter_bank

CT2_FILES = ("tokenizer.json", "preprocessor_config.json")
CT2_WEIGHTS = "model.bin"
WEIGHTS = ("model*.safetensors", CT2_WEIGHTS)


class PeerModels:
    """A checkpoint's conversions, in a folder that is named after its weights."""

    def __init__(self, checkpoint: Checkpoint, cache: Path) -> None:
        """`cache`: where conversions of all checkpoints lie."""
        self._checkpoint = checkpoint
        self._folder = cache / checkpoint.source.weights_sha256[:16]

    def public(self) -> Path:
        """A folder in the Hugging Face format: the checkpoint's own, or one made of it."""
        if self._is_ctranslate2:
            return self._made(f"public-{_version('transformers')}", self._write_public)
        return self._checkpoint.folder

    def ctranslate2(self, precision: str) -> Path:
        """A folder for faster-whisper, as CTranslate2's own converter makes it; int8 or float32.

        One that the checkpoint came in stays as it is: CTranslate2 converts its weights when it loads them.
        """
        if self._is_ctranslate2:
            return self._checkpoint.folder

        def write(folder: Path) -> None:
            from ctranslate2.converters import TransformersConverter

            files = [name for name in CT2_FILES if (self.public() / name).is_file()]
            TransformersConverter(str(self.public()), copy_files=files).convert(
                str(folder), quantization=None if precision == "float32" else precision, force=True
            )

        return self._made(f"ctranslate2-{_version('ctranslate2')}-{precision}", write)

    def ggml(self, precision: str) -> Path:
        """A file for whisper.cpp; fp16 or q8_0."""

        def write(folder: Path) -> None:
            module, _ = load_module(self._checkpoint, KERNELS["fused"])
            state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
            write_ggml(folder / "model.bin", self._checkpoint.config, state, self._vocabulary(), precision)

        return self._made(f"ggml-{precision}", write) / "model.bin"

    @property
    def _is_ctranslate2(self) -> bool:
        return any(file.name == CT2_WEIGHTS for file in self._checkpoint.weight_files)

    def _vocabulary(self) -> list[bytes]:
        """The bytes of the text tokens."""
        text, speech = self._checkpoint.tokenizer_json, self._checkpoint.speech
        assert text is not None and speech is not None
        tokenizer = SpeechTokenizer(text, speech.tokens.end)
        return [tokenizer.bytes_of(token) for token in range(speech.tokens.end)]

    def _write_public(self, folder: Path) -> None:
        """What transformers needs: weights, sizes, the tokens that steer it, the features of audio, the tokenizer."""
        import torch
        import transformers

        config, speech = self._checkpoint.config, self._checkpoint.speech
        assert speech is not None and self._checkpoint.tokenizer_json is not None
        sizes = asdict(config)
        del sizes["alignment_heads"]
        tokens = speech.tokens
        ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokens.end)
        model = transformers.WhisperForConditionalGeneration(
            transformers.WhisperConfig(**sizes, **ends, decoder_start_token_id=tokens.start)
        )
        module, _ = load_module(self._checkpoint, KERNELS["fused"])
        with torch.no_grad():
            model.model.load_state_dict(module.state_dict())
        model.generation_config = transformers.GenerationConfig(
            **ends,
            decoder_start_token_id=tokens.start,
            max_length=config.max_target_positions,
            suppress_tokens=list(speech.suppress),
            begin_suppress_tokens=list(speech.suppress_at_start),
            no_timestamps_token_id=tokens.no_timestamps,
            is_multilingual=bool(tokens.languages),
            **(_multilingual(tokens) if tokens.languages else {}),
        )
        model.save_pretrained(folder)
        transformers.WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(folder)
        (folder / "tokenizer.json").write_text(self._checkpoint.tokenizer_json, encoding="utf-8")

    def _made(self, name: str, write: Callable[[Path], None]) -> Path:
        """The folder of one conversion, which appears when it is complete."""
        folder = self._folder / name
        if not folder.is_dir():
            with work_folder(self._folder, create=True) as work:
                (work / name).mkdir()
                write(work / name)
                put(work / name, folder)
        return folder


def _multilingual(tokens: SpeechTokens) -> dict[str, dict[str, int | None]]:
    """Where transformers finds languages, it also looks for one, so an English model must not name any."""
    return {
        "lang_to_id": {f"<|{language}|>": token for language, token in tokens.languages.items()},
        "task_to_id": {"transcribe": tokens.transcribe, "translate": tokens.translate},
    }


def _version(package: str) -> str:
    return importlib.metadata.version(package)


def size_bytes(model: Path) -> int:
    """Of a file, or of the weight files in a folder."""
    if model.is_file():
        return model.stat().st_size
    files = (file for pattern in WEIGHTS for file in model.glob(pattern))
    return sum(file.stat().st_size for file in files)


# Writes a Whisper in whisper.cpp's model format, so that its peer runs on the very weights that are measured.
#
# The format is what whisper.cpp's `whisper_model_load` reads: a header of int32, the mel filters, the vocabulary as
# bytes, and tensors one after the other, all little-endian. Tensor names are those of OpenAI's own code.


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
