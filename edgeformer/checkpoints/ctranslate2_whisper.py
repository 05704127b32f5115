"""A Whisper in CTranslate2's format as a public checkpoint: its config and its tensors under their public names.

CTranslate2 keeps the projections of queries, keys and values in one layer, those of the sound's keys and values in
another, and gives the keys' projection a bias, which is zero and which no softmax would notice if it were not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from edgeformer.checkpoints.ctranslate2 import Contents, read_contents, read_variables
from edgeformer_runtime.errors import InputError

WEIGHT_FILE = "model.bin"
SPECIFICATION, REVISION = "WhisperSpec", 3

_SCALARS: dict[str, int | None] = {
    "encoder/num_heads": None,
    "decoder/num_heads": None,
    "decoder/alignment_heads": None,
    "decoder/alignment_layer": None,
    "decoder/alibi_use_positive_positions": None,  # without a meaning where there is no alibi
    "decoder/scale_alibi": None,
    "decoder/activation": 3,  # GELU
    "decoder/pre_norm": 1,
    "decoder/alibi": 0,
    "decoder/scale_embeddings": 0,
    "decoder/start_from_zero_embedding": 0,
}
"""What describes the model beside its tensors, and the only value that a Whisper has; None: any."""

_NAMES = (
    (r"^(encoder|decoder)/", r"model.\1/"),
    (r"/position_encodings/encodings$", ".embed_positions.weight"),
    (r"/embeddings/weight$", ".embed_tokens.weight"),
    (r"^model\.decoder/projection/weight$", "proj_out.weight"),
    (r"/layer_(\d+)/", r".layers.\1/"),
    (r"/self_attention/layer_norm/", ".self_attn_layer_norm/"),
    (r"/attention/layer_norm/", ".encoder_attn_layer_norm/"),
    (r"/ffn/layer_norm/", ".final_layer_norm/"),
    (r"/layer_norm/", ".layer_norm/"),
    (r"/self_attention/linear_0/", ".self_attn.qkv/"),
    (r"/self_attention/linear_1/", ".self_attn.out_proj/"),
    (r"/attention/linear_0/", ".encoder_attn.q_proj/"),
    (r"/attention/linear_1/", ".encoder_attn.kv/"),
    (r"/attention/linear_2/", ".encoder_attn.out_proj/"),
    (r"/ffn/linear_0/", ".fc1/"),
    (r"/ffn/linear_1/", ".fc2/"),
    (r"/gamma$", ".weight"),
    (r"/beta$", ".bias"),
    (r"/", "."),
)
"""(regular expression, replacement), one after the other."""

_FUSED = {
    "qkv": ("q_proj", "k_proj", "v_proj"),
    "kv": ("k_proj", "v_proj"),
}

_CONFIG_NAMES = {
    "alignment_heads": "alignment_heads",
    "suppress_ids": "suppress_tokens",
    "suppress_ids_begin": "begin_suppress_tokens",
}
"""CTranslate2's name of a setting, and the public one."""


def describe(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The public config.json that a CTranslate2 folder stands for.

    Args:
        folder: with model.bin.
        settings: its own config.json, which knows nothing of sizes.

    Raises:
        InputError: the file is spoiled or holds another model.
    """
    contents = _contents(folder / WEIGHT_FILE)
    variables = contents.variables
    scalars = _scalars(folder / WEIGHT_FILE, contents)

    def size(name: str, dimension: int) -> int:
        if name not in variables or len(variables[name].shape) <= dimension:
            raise InputError(f"{WEIGHT_FILE} holds no {name}: expected a {SPECIFICATION}")
        return variables[name].shape[dimension]

    def layers(half: str) -> int:
        numbers = [re.match(rf"{half}/layer_(\d+)/", name) for name in variables]
        return 1 + max((int(number.group(1)) for number in numbers if number), default=-1)

    return {
        "model_type": "whisper",
        "vocab_size": size("decoder/embeddings/weight", 0),
        "num_mel_bins": size("encoder/conv1/weight", 1),
        "d_model": size("decoder/embeddings/weight", 1),
        "encoder_layers": layers("encoder"),
        "decoder_layers": layers("decoder"),
        "encoder_attention_heads": scalars["encoder/num_heads"],
        "decoder_attention_heads": scalars["decoder/num_heads"],
        "encoder_ffn_dim": size("encoder/layer_0/ffn/linear_0/weight", 0),
        "decoder_ffn_dim": size("decoder/layer_0/ffn/linear_0/weight", 0),
        "max_source_positions": size("encoder/position_encodings/encodings", 0),
        "max_target_positions": size("decoder/position_encodings/encodings", 0),
        **{public: settings[name] for name, public in _CONFIG_NAMES.items() if settings.get(name) is not None},
    }


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a model.bin by their public names; quantized ones as float32.

    Raises:
        InputError: the file is spoiled or holds another model.
    """
    contents = _contents(path)
    _scalars(path, contents)
    state: dict[str, Tensor] = {}
    for name, tensor in read_variables(path, contents).items():
        if tensor.dim() > 0:
            state |= _split(_public_name(name), tensor)
    return state


def _contents(path: Path) -> Contents:
    contents = read_contents(path)
    if (contents.specification, contents.revision) != (SPECIFICATION, REVISION):
        raise InputError(
            f"{path.name} holds a {contents.specification} of revision {contents.revision}: "
            f"expected a {SPECIFICATION} of revision {REVISION}"
        )
    return contents


def _scalars(path: Path, contents: Contents) -> dict[str, int]:
    """The values that describe the model; InputError where one means a model that is no Whisper of ours."""
    names = {
        name for name, variable in contents.variables.items() if not variable.shape and not name.endswith("_scale")
    }
    unknown = sorted(names - _SCALARS.keys())
    if unknown:
        raise InputError(f"{path.name}: unknown settings {', '.join(unknown)}: expected a plain {SPECIFICATION}")
    scalars = {name: int(tensor.item()) for name, tensor in read_variables(path, _only(contents, names)).items()}
    for name, expected in _SCALARS.items():
        found = scalars.get(name)
        if found is None and expected is None and name.endswith("num_heads"):
            raise InputError(f"{path.name} holds no {name}: expected a {SPECIFICATION}")
        if expected is not None and found not in (None, expected):
            raise InputError(f"{path.name}: {name} must be {expected}, found {found}")
    return scalars


def _only(contents: Contents, names: set[str]) -> Contents:
    variables = {name: variable for name, variable in contents.variables.items() if name in names}
    return Contents(contents.specification, contents.revision, variables, {})


def _public_name(name: str) -> str:
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _split(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A fused projection as its parts, without the keys' bias; any other tensor as it is."""
    module, _, kind = name.rpartition(".")
    parent, _, fused = module.rpartition(".")
    parts = _FUSED.get(fused)
    if parts is None:
        return {name: tensor}
    if tensor.shape[0] % len(parts):
        raise InputError(f"{name}: expected the rows of {len(parts)} projections, found {tensor.shape[0]}")
    chunks = zip(parts, tensor.chunk(len(parts)), strict=True)
    return {f"{parent}.{part}.{kind}": chunk for part, chunk in chunks if (part, kind) != ("k_proj", "bias")}
