"""The weight files of a public checkpoint: safetensors or pickles, whole or in shards, or CTranslate2's."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from edgeformer.checkpoints import ctranslate2_whisper
from edgeformer.checkpoints.ctranslate2 import is_ctranslate2
from edgeformer.models.json_files import read_object
from edgeformer_runtime.errors import InputError

_HASH_BLOCK_BYTES = 1 << 20
_MAX_SHARING = 16
"""How many times a file's bytes its tensors may be: names share tied weights, and int8 becomes float32 on reading."""
_ALWAYS_LOADED_BYTES = 4 << 20


def find_weight_files(folder: Path) -> tuple[Path, ...]:
    """The files that hold the weights, safetensors before pickles, in the order of their names; a file is its own.

    Raises:
        InputError: there are none, an index names files that are not there, or the path is not UTF-8.
    """
    try:
        str(folder).encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"{str(folder)!a}: weights are opened by paths in UTF-8 only: rename the folder") from None
    if folder.is_file():
        return (folder,)
    for stem, suffix in (("model", ".safetensors"), ("pytorch_model", ".bin")):
        single = folder / f"{stem}{suffix}"
        if single.is_file():
            return (single,)
        index = folder / f"{stem}{suffix}.index.json"
        if index.is_file():
            return _shards(index)
    if (folder / ctranslate2_whisper.WEIGHT_FILE).is_file():
        return (folder / ctranslate2_whisper.WEIGHT_FILE,)
    raise InputError(
        f"no weights in {folder.name}: expected model.safetensors or pytorch_model.bin, or the index of their shards, "
        f"or CTranslate2's {ctranslate2_whisper.WEIGHT_FILE}{_found_instead(folder)}"
    )


def _found_instead(folder: Path) -> str:
    """What of other frameworks, or under other names, is there, and what to do with it."""
    for pattern, advice in _OTHER_WEIGHTS:
        found = sorted(folder.glob(pattern))
        if found:
            return f", found {found[0].name}: {advice}"
    return ""


def weight_suffix(path: Path) -> str:
    """What a weight file's name ends in; training scripts call their pickles `.pth.tar` too."""
    return "".join(path.suffixes[-2:]) if path.name.endswith(".pth.tar") else path.suffix


def weights_sha256(files: tuple[Path, ...]) -> str:
    """SHA-256 over the files' bytes, one after the other, as hexadecimal digits."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(_HASH_BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def load_weights(files: tuple[Path, ...]) -> dict[str, Tensor]:
    """All tensors by their public names; floating point ones as contiguous float32.

    Raises:
        InputError: a file is spoiled, holds anything but tensors, or repeats a tensor of another.
    """
    state: dict[str, Tensor] = {}
    for path in files:
        stated, most = 0, max(_MAX_SHARING * path.stat().st_size, _ALWAYS_LOADED_BYTES)
        for name, tensor in _READERS[weight_suffix(path)](path).items():
            if name in state:
                raise InputError(f"{path.name} repeats the tensor {name} of another shard: save the checkpoint again")
            # Views of one storage, as a pickle may hold them, would each become a tensor of its own.
            stated += tensor.numel() * tensor.element_size()
            if stated > most:
                raise InputError(f"{path.name} states over {_MAX_SHARING} times what it holds: save it again")
            state[name] = _as_float32(name, tensor)
    return state


def weight_shapes(files: tuple[Path, ...]) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors by their public names; of safetensors only the header is read."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in files:
        if path.suffix == ".safetensors":
            with _spoiled(path), safe_open(path, framework="pt") as file:
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        else:
            shapes |= {name: tuple(tensor.shape) for name, tensor in _READERS[weight_suffix(path)](path).items()}
    return shapes


def _shards(index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(read_object(index)["weight_map"].values()))
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{index.name} is no index of shards: expected JSON with a weight_map") from None
    for name in names:
        # A name with a folder in it could reach outside of the checkpoint.
        if not isinstance(name, str) or Path(name).name != name or not (index.parent / name).is_file():
            raise InputError(f"{index.name} names {name!r}, and there is no such file beside it")
    if not names or any(weight_suffix(Path(name)) not in _READERS for name in names):
        raise InputError(f"{index.name} names no shards of a kind that is known: expected {', '.join(_READERS)}")
    return tuple(index.parent / name for name in names)


@contextmanager
def _spoiled(path: Path) -> Iterator[None]:
    """Turn the ways in which a weight file can be unreadable into one line."""
    try:
        yield
    except (
        SafetensorError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
    ) as e:
        reason = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise InputError(f"cannot read {path.name}, it is spoiled or cut short: {reason}") from None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with _spoiled(path):
        return load_file(path)


def _read_bin(path: Path) -> dict[str, Tensor]:
    """Two formats share the suffix."""
    with _spoiled(path):
        ctranslate2 = is_ctranslate2(path)
    return ctranslate2_whisper.read_tensors(path) if ctranslate2 else _read_pickle(path)


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        # weights_only: a pickle may otherwise run any code.
        with _spoiled(path):
            state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except InputError as error:
        if "weights_only" in str(error) or "Weights only" in str(error):
            raise InputError(f"{path.name} holds more than tensors and is refused: save it as safetensors") from None
        raise
    if isinstance(state, dict) and len(nested := [key for key in _NESTED_STATES if key in state]) == 1:
        state = state[nested[0]]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path.name} holds no dictionary of tensors: save the model's state_dict()")
    return {str(name): tensor for name, tensor in state.items()}


def _as_float32(name: str, tensor: Tensor) -> Tensor:
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise InputError(f"tensor {name} has {tensor.numel()} values of which its file holds fewer: save it again")
    if tensor.dtype in _INTEGER_DTYPES:
        return tensor.contiguous()
    if tensor.dtype not in _FLOAT_DTYPES:
        raise InputError(
            f"tensor {name} is {tensor.dtype}: expected a float16, bfloat16, float32 or float64 checkpoint"
        )
    tensor = tensor.float().contiguous()
    if not tensor.isfinite().all():
        raise InputError(f"tensor {name} holds NaN or infinite values: the checkpoint is damaged or was cut to float16")
    return tensor


_NESTED_STATES = ("model", "state_dict", "model_state_dict")
"""Where training scripts put the weights beside their optimiser's state."""

_OTHER_FRAMEWORK = "load it with transformers 4 and {}=True, and save it with save_pretrained()"
_OTHER_WEIGHTS = (
    ("adapter_model.*", "an adapter is not a model: merge it with peft's merge_and_unload(), and save the result"),
    ("*.safetensors", "rename it to model.safetensors if it is the whole model"),
    ("*.bin", "rename it to pytorch_model.bin if it is the whole model"),
    ("*.pt*", "rename it to pytorch_model.bin if it holds the whole model's state_dict()"),
    ("tf_model*", f"TensorFlow's weights: {_OTHER_FRAMEWORK.format('from_tf')}"),
    ("*.ckpt*", f"TensorFlow's weights: {_OTHER_FRAMEWORK.format('from_tf')}"),
    ("flax_model*", f"Flax's weights: {_OTHER_FRAMEWORK.format('from_flax')}"),
    ("*.gguf", "ggml's weights are not read: take the checkpoint that it was made from"),
    ("*.onnx", "an exported model is not read: take the checkpoint that it was made from"),
)
"""Weights that are not read: a pattern of their names, and what to do. The first one counts."""

_FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGER_DTYPES = (torch.int64, torch.int32)  # position_ids and the like

_READERS: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    ".safetensors": _read_safetensors,
    ".bin": _read_bin,
    ".pth": _read_pickle,
    ".pt": _read_pickle,
    ".pth.tar": _read_pickle,
}
WEIGHT_SUFFIXES = tuple(_READERS)
