"""The weight files of a public checkpoint: safetensors or pickles, whole or in shards, or CTranslate2's."""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import pickletools
import stat
import struct
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeGuard

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgeformer.checkpoints import ctranslate2
from edgeformer.checkpoints.ctranslate2 import is_ctranslate2
from edgeformer.checkpoints.sources import weight_suffix
from edgeformer.models.config import LAYER_WIDTH_KEYS, MAX_LAYERS, read_object
from edgeformer.models.family import Family
from edgeformer_runtime.bundle.folder import refuse_holes
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import BundleError, InputError

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
    if (folder / ctranslate2.WEIGHT_FILE).is_file():
        return (folder / ctranslate2.WEIGHT_FILE,)
    raise InputError(
        f"no weights in {folder.name}: expected model.safetensors or pytorch_model.bin, or the index of their shards, "
        f"or CTranslate2's {ctranslate2.WEIGHT_FILE}{_found_instead(folder)}"
    )


def _found_instead(folder: Path) -> str:
    """What of other frameworks, or under other names, is there, and what to do with it."""
    for pattern, advice in _OTHER_WEIGHTS:
        found = sorted(folder.glob(pattern))
        if found:
            return f", found {found[0].name}: {advice}"
    return ""


def prefix_advice(missing: Collection[str], unexpected: Collection[str]) -> str | None:
    """What to do where the missing tensors are there under names that begin with something else; else None."""
    longest = max(missing, key=len, default="")
    found = [name.removesuffix(longest) for name in unexpected if longest and name.endswith("." + longest)]
    known = set(unexpected)
    if not found or not all(found[0] + name in known for name in missing):
        return None
    prefix = shorten(found[0], 60)
    return (
        f"{len(missing)} tensors have the prefix {prefix}, which a training script put before their names: save the "
        f"weights without it, as {{name.removeprefix({prefix}): tensor for name, tensor in model.state_dict().items()}}"
    )


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
        InputError: a file is corrupted, holds anything but tensors, or repeats a tensor of another.
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
            with _unreadable(path), safe_open(path, framework="pt") as file:
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
            raise InputError(f"{index.name} names {shorten(name)}, and there is no such file beside it")
    if not names or any(weight_suffix(Path(name)) not in _READERS for name in names):
        raise InputError(f"{index.name} names no shards of a kind that is known: expected {', '.join(_READERS)}")
    return tuple(index.parent / name for name in names)


@contextmanager
def _unreadable(path: Path) -> Iterator[None]:
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
        raise InputError(f"cannot read {path.name}, it is corrupted or cut short: {reason}") from None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with _unreadable(path):
        return load_file(path)


def _read_bin(path: Path) -> dict[str, Tensor]:
    """Two formats share the suffix."""
    with _unreadable(path):
        is_theirs = is_ctranslate2(path)
    return ctranslate2.read_tensors(path) if is_theirs else _read_pickle(path)


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        # weights_only: a pickle may otherwise run any code.
        with _unreadable(path):
            state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except InputError as error:
        if "weights_only" in str(error) or "Weights only" in str(error):
            raise InputError(f"{path.name} holds more than tensors and is refused: save it as safetensors") from None
        raise
    if isinstance(state, dict) and len(nested := [key for key in _NESTED_STATES if key in state]) == 1:
        state = state[nested[0]]
    if not isinstance(state, dict) or not all(isinstance(each, Tensor) for each in state.values()):
        raise InputError(f"{path.name} holds no dictionary of tensors: save the model's state_dict()")
    for name, value in state.items():
        if value.layout != torch.strided or value.is_meta or value.is_nested:
            raise InputError(f"{path.name}: tensor {name} is sparse, nested or without values: save it as a dense one")
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


def save_weights(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write weights, readable as the user's umask says; safetensors itself gives its files to their owner alone."""
    file.touch()
    mode = stat.S_IMODE(file.stat().st_mode)
    save_file(dict(tensors), file, metadata={"format": "pt"})
    file.chmod(mode)


# Compares what a config states with what the weight files can hold, before anything of that size is built.

_LAYERS = ("num_hidden_layers", "n_layers", "encoder_layers", "decoder_layers", "num_feedforward_networks", "depths")
MAX_WINDOW = 64
"""Of TinyViT's attention, whose table of offsets grows with the fourth power of it."""
_LIMITS = {"num_labels": 100_000, "num_classes": 100_000, "input_size": 4096, "window_sizes": MAX_WINDOW}
"""The first three are of a bundle's manifest, which would be too late to learn of them."""
MAX_STUDENT_RATIO = 8
"""How many times its teacher's weights a new student's may be: a MobileBERT has more than the smallest BERTs."""
ALWAYS_BUILT = 4 << 20
"""Values that are few enough to be built, for the loader to say which tensors are missing."""


def check_sizes(family: Family[Any], raw: Mapping[str, Any], files: tuple[Path, ...]) -> None:
    """Refuse a config that states more than its weights can be.

    Args:
        family: the checkpoint's.
        raw: config.json. What is no number there is left to the family's own parser.
        files: the weight files. A value takes a byte there at least.

    Raises:
        InputError: names the fields, what they come to, and what is there.
    """
    there = sum(path.stat().st_size for path in files)
    _check(family, raw, max(there, ALWAYS_BUILT), "config.json", f"the weight files have {there} bytes")


def check_student(family: Family[Any], raw: Mapping[str, Any], teacher_values: int) -> None:
    """Refuse a new student of far more weights than its teacher.

    Args:
        family: the student's.
        raw: its config.json.
        teacher_values: how many values the teacher's weights are.

    Raises:
        InputError: names the fields, what they come to, and what the teacher has.
    """
    most = max(MAX_STUDENT_RATIO * teacher_values, ALWAYS_BUILT)
    there = f"the teacher has {teacher_values} weights: expected {MAX_STUDENT_RATIO} times as many"
    _check(family, raw, most, "student", there)


def _check(family: Family[Any], raw: Mapping[str, Any], values: int, where: str, there: str) -> None:
    labels = raw.get("id2label")
    if isinstance(labels, Mapping | list) and len(labels) > _LIMITS["num_labels"]:
        raise InputError(f"{where}: id2label has {len(labels)} labels: expected {_LIMITS['num_labels']} at most")
    for field, number in (*((key, raw[key]) for key in raw if _is_count(raw[key])), *_vision_counts(raw)):
        limit = _LIMITS.get(field, MAX_LAYERS if field in _LAYERS else None)
        if limit is not None and number > limit:
            raise InputError(f"{where}: {field} is {_short(number)}: expected {limit} at most")
    # Pruned layers have fewer neurons and heads than the fields say.
    pruned = any(raw.get(key) for key in LAYER_WIDTH_KEYS)
    for fields in family.sizes.get(str(raw.get("model_type")), ()):
        numbers = {field: raw[field] for field in fields if _is_count(raw.get(field))}
        if not (pruned and len(fields) == 3):
            product = math.prod(numbers.get(field, 1) for field in fields)
            _compare(f"{where}: {' * '.join(numbers)}", product, values, there)
    arguments = raw.get("model_args")
    if isinstance(arguments, Mapping):
        depths, widths = arguments.get("depths"), arguments.get("embed_dims")
        if isinstance(depths, list) and isinstance(widths, list) and all(map(_is_count, (*depths, *widths))):
            total = sum(depth * width * width for depth, width in zip(depths, widths, strict=False))
            _compare(f"{where}: depths * embed_dims * embed_dims", total, values, there)


def _compare(what: str, stated: int, limit: int, there: str) -> None:
    if stated > limit:
        raise InputError(f"{what} is {_short(stated)}, and {there}")


def _short(number: int) -> str:
    """A number of thousands of digits is not written out, which Python refuses."""
    return str(number) if number < 1 << 80 else "over 2^80"


def _vision_counts(raw: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """The numbers of a config in timm's layout, with the field that holds them."""
    for key in ("model_args", "pretrained_cfg"):
        inner = raw.get(key)
        for where, value in inner.items() if isinstance(inner, Mapping) else ():
            for number in value if isinstance(value, list) else [value]:
                if _is_count(number):
                    yield where, number


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


# What weight files state of themselves, compared with their sizes before they are hashed or loaded.

MAX_TENSORS = 100_000
"""Of a checkpoint: the largest that is converted has 1,300."""
MAX_HEADER_BYTES = 16 << 20
"""Of a safetensors file, a hundred bytes for each tensor."""
MAX_PICKLE_BYTES = 4 << 20
"""Of the part of PyTorch's files that names their tensors, which is interpreted opcode by opcode."""
MAX_OPCODES = 1_000_000
"""Of that part: some thirty for each tensor."""
_PICKLES_BEFORE_1_6 = 5
"""Magic number, version, system, the tensors' names and their storages; then the storages' bytes."""
MAX_DIRECTORY_BYTES = MAX_TENSORS * 160

_HEADER = struct.Struct("<Q")
_END, _END64, _LOCATOR = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")


def check_weight_files(files: tuple[Path, ...]) -> None:
    """Refuse weight files that were never written, or whose heads state more than the files hold.

    What is neither safetensors nor PyTorch's is left to its reader.

    Raises:
        InputError: names the file, what it states and what was expected.
    """
    try:
        refuse_holes(files)
        for path in files:
            with path.open("rb") as file:
                if path.suffix == ".safetensors":
                    _check_header(file, path)
                elif (start := file.read(4)) == b"PK\x03\x04":
                    _check_archive(file, path)
                else:
                    _check_pickles(start + file.read(MAX_PICKLE_BYTES), _PICKLES_BEFORE_1_6, path)
    except BundleError as error:
        raise InputError(str(error)) from None
    except OSError as error:
        raise InputError(f"cannot read the weights: {error.strerror or error}") from None


def _check_header(file: IO[bytes], path: Path) -> None:
    size = path.stat().st_size
    start = file.read(_HEADER.size)
    length = _HEADER.unpack(start)[0] if len(start) == _HEADER.size else size
    if length > size - _HEADER.size:
        raise _corrupted(path, f"a header of {length} bytes in a file of {size}")
    if length > MAX_HEADER_BYTES:
        raise InputError(f"{path.name} has a header of {length} bytes: expected {MAX_HEADER_BYTES} at most")
    # Each tensor has one pair of offsets.
    tensors = file.read(length).count(b"data_offsets")
    if tensors > MAX_TENSORS:
        raise InputError(f"{path.name} holds {tensors} tensors: expected {MAX_TENSORS} at most")


def _check_archive(file: IO[bytes], path: Path) -> None:
    """An archive of PyTorch: nothing in it is compressed, so that its members are no larger than itself."""
    size = path.stat().st_size
    directory = _directory_bytes(file, size)
    if directory is None:
        raise _corrupted(path, "its directory is not at its end")
    if directory > MAX_DIRECTORY_BYTES:
        raise InputError(f"{path.name} has a directory of {directory} bytes: expected {MAX_DIRECTORY_BYTES} at most")
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            for member in members:
                if member.compress_type != zipfile.ZIP_STORED:
                    raise InputError(f"{path.name} is compressed: expected what torch.save writes")
                if member.filename.endswith("/data.pkl"):
                    with archive.open(member) as names:
                        _check_pickles(names.read(MAX_PICKLE_BYTES + 4), 1, path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise _corrupted(path, str(error)) from None
    stated = sum(member.file_size for member in members)
    if stated > size:
        raise _corrupted(path, f"its members come to {stated} bytes, and it has {size}")


def _check_pickles(data: bytes, count: int, path: Path) -> None:
    """Refuse what takes long to interpret, or makes bytes out of a number. What is no pickle is left to its reader."""
    stream, opcodes = io.BytesIO(data), 0
    try:
        for _ in range(count):
            for opcode, argument, _ in pickletools.genops(stream):
                opcodes += 1
                if opcodes > MAX_OPCODES:
                    raise InputError(f"{path.name} names its tensors in over {MAX_OPCODES} steps: save it again")
                if opcode.name == "GLOBAL" and str(argument).endswith(" bytearray"):
                    raise InputError(f"{path.name} holds more than tensors and is refused: save it as safetensors")
    except ValueError:
        if stream.tell() > MAX_PICKLE_BYTES:
            raise InputError(f"{path.name} names its tensors in over {MAX_PICKLE_BYTES} bytes: save it again") from None


def _directory_bytes(file: IO[bytes], size: int) -> int | None:
    """The size of a zip's directory by its end records, which say it twice where the archive is large."""
    tail = min(size, _END64.size + _LOCATOR.size + _END.size)
    file.seek(size - tail)
    records = file.read(tail)
    if len(records) < _END.size:
        return None
    end = _END.unpack(records[-_END.size :])
    if end[0] != b"PK\x05\x06" or end[7] != 0:
        return None
    if tail > _END.size and records.startswith(b"PK\x06\x06"):
        return int(_END64.unpack(records[: _END64.size])[8])
    return int(end[5])


def _corrupted(path: Path, what: str) -> InputError:
    return InputError(f"cannot read {path.name}, it is corrupted or cut short: {what}")
