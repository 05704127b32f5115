"""Writes CTranslate2 models as its own converter does, from a public Whisper: fused projections, aliases, quantized."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

TYPES = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)
SETTINGS = {
    "decoder/activation": 3,
    "decoder/alibi": 0,
    "decoder/pre_norm": 1,
    "decoder/scale_embeddings": 0,
    "decoder/start_from_zero_embedding": 0,
    "decoder/alignment_heads": 1,
    "decoder/alignment_layer": -1,
}


def write_model(
    path: Path,
    variables: dict[str, Tensor],
    aliases: dict[str, str],
    *,
    version: int = 6,
    specification: str = "WhisperSpec",
    revision: int = 3,
) -> None:
    """The binary format, byte for byte as `ctranslate2.specs.model_spec` serializes it."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value.encode()) + 1) + value.encode() + b"\0"

    parts = [struct.pack("<I", version), text(specification), struct.pack("<II", revision, len(variables))]
    for name, tensor in variables.items():
        data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        shape = struct.pack(f"<B{tensor.dim()}I", tensor.dim(), *tensor.shape)
        parts += [text(name), shape, struct.pack("<BI", TYPES.index(tensor.dtype), len(data)), data]
    parts.append(struct.pack("<I", len(aliases)))
    parts += [text(alias) + text(name) for alias, name in aliases.items()]
    path.write_bytes(b"".join(parts))


def quantized(name: str, weight: Tensor, kind: str) -> dict[str, Tensor]:
    """A weight of a linear layer, convolution or embedding as CTranslate2 stores it."""
    if kind == "float16":
        return {name: weight.half()}
    if kind == "int16":
        scale = 2**10 / weight.abs().max()
        return {name: (weight * scale).round().to(torch.int16), f"{name}_scale": scale}
    rows = weight.reshape(weight.shape[0], -1)
    scale = 127 / rows.abs().amax(dim=1)
    return {name: (rows * scale[:, None]).round().to(torch.int8).reshape(weight.shape), f"{name}_scale": scale}


def variables_of(state: dict[str, Tensor], heads: int, kind: str) -> dict[str, Tensor]:
    """A public state dict as CTranslate2's variables."""
    made: dict[str, Tensor] = {"encoder/num_heads": torch.tensor(heads, dtype=torch.int16)}
    made["decoder/num_heads"] = made["encoder/num_heads"]
    made |= {name: torch.tensor(value, dtype=torch.int8) for name, value in SETTINGS.items()}

    def linear(target: str, *modules: str) -> None:
        weights = [state[f"{module}.weight"] for module in modules]
        zeros = torch.zeros(weights[0].shape[0])  # the keys' projection has no bias of its own
        made.update(quantized(f"{target}/weight", torch.cat(weights), kind))
        made[f"{target}/bias"] = torch.cat([state.get(f"{module}.bias", zeros) for module in modules])

    def norm(target: str, module: str) -> None:
        made[f"{target}/gamma"], made[f"{target}/beta"] = state[f"{module}.weight"], state[f"{module}.bias"]

    for half in ("encoder", "decoder"):
        norm(f"{half}/layer_norm", f"model.{half}.layer_norm")
        made[f"{half}/position_encodings/encodings"] = state[f"model.{half}.embed_positions.weight"]
        for layer in range(sum(name.startswith(f"model.{half}.layers") and "fc1.bias" in name for name in state)):
            to, source = f"{half}/layer_{layer}", f"model.{half}.layers.{layer}"
            norm(f"{to}/self_attention/layer_norm", f"{source}.self_attn_layer_norm")
            linear(f"{to}/self_attention/linear_0", *(f"{source}.self_attn.{part}_proj" for part in "qkv"))
            linear(f"{to}/self_attention/linear_1", f"{source}.self_attn.out_proj")
            norm(f"{to}/ffn/layer_norm", f"{source}.final_layer_norm")
            linear(f"{to}/ffn/linear_0", f"{source}.fc1")
            linear(f"{to}/ffn/linear_1", f"{source}.fc2")
            if half == "decoder":
                norm(f"{to}/attention/layer_norm", f"{source}.encoder_attn_layer_norm")
                linear(f"{to}/attention/linear_0", f"{source}.encoder_attn.q_proj")
                linear(f"{to}/attention/linear_1", *(f"{source}.encoder_attn.{part}_proj" for part in "kv"))
                linear(f"{to}/attention/linear_2", f"{source}.encoder_attn.out_proj")
    for number in (1, 2):
        linear(f"encoder/conv{number}", f"model.encoder.conv{number}")
    return made | quantized("decoder/embeddings/weight", state["model.decoder.embed_tokens.weight"], kind)


def save_ctranslate2(source: Path, folder: Path, *, kind: str = "float16") -> Path:
    """A saved public Whisper as a CTranslate2 folder with its tokenizer, as faster-whisper's are published."""
    folder.mkdir(parents=True, exist_ok=True)
    state = load_file(source / "model.safetensors")
    config = json.loads((source / "config.json").read_text())
    generation = json.loads((source / "generation_config.json").read_text())
    variables = variables_of(state, config["decoder_attention_heads"], kind)
    aliases = {"decoder/projection/weight": "decoder/embeddings/weight"}
    if "decoder/embeddings/weight_scale" in variables:
        aliases["decoder/projection/weight_scale"] = "decoder/embeddings/weight_scale"
    write_model(folder / "model.bin", variables, aliases)
    settings = {
        "alignment_heads": generation["alignment_heads"],
        "lang_ids": sorted(generation.get("lang_to_id", {}).values()),
        "suppress_ids": generation["suppress_tokens"],
        "suppress_ids_begin": generation["begin_suppress_tokens"],
    }
    (folder / "config.json").write_text(json.dumps(settings))
    for name in ("tokenizer.json", "preprocessor_config.json"):
        shutil.copy(source / name, folder / name)
    return folder
