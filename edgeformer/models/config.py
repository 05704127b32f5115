"""Reads the fields of a public config.json, each with its public default, refusing what a family cannot do."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeformer.models import config as fields
from edgeformer_runtime.bundle.strict_json import check_counts, check_depth, shorten
from edgeformer_runtime.errors import BundleError, InputError


def read_int(raw: Mapping[str, Any], key: str, default: int, minimum: int = 1) -> int:
    """An integer of at least `minimum`."""
    value = raw.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise InputError(f"config.json: {key} must be an integer of at least {minimum}, found {shorten(value)}")
    return value


def read_float(raw: Mapping[str, Any], key: str, default: float) -> float:
    """A number above 0."""
    value = raw.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise InputError(f"config.json: {key} must be a number above 0, found {shorten(value)}")
    return float(value)


def read_bool(raw: Mapping[str, Any], key: str, default: bool) -> bool:
    """True or false."""
    value = raw.get(key, default)
    if not isinstance(value, bool):
        raise InputError(f"config.json: {key} must be true or false, found {shorten(value)}")
    return value


def read_choice(raw: Mapping[str, Any], key: str, default: str, choices: Collection[str]) -> str:
    """One of `choices`."""
    value = raw.get(key, default)
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"config.json: {key} must be one of {', '.join(sorted(choices))}, found {shorten(value)}")
    return value


def check_heads(width: int, num_heads: int, width_name: str) -> None:
    """Refuse a width that the heads do not divide."""
    if width % num_heads:
        raise InputError(
            f"config.json: {width_name} must be a multiple of num_attention_heads, "
            f"found {shorten(width)} and {shorten(num_heads)}"
        )


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """One line for what another library says of files that it cannot use; `what` is the start of the line.

    Raises:
        InputError: whatever a stranger's files lead to.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        why = shorten(" ".join(str(error).split()), 160)
        raise InputError(f"{what} {type(error).__name__} {why}") from None


def refuse_unsupported_text(raw: Mapping[str, Any]) -> None:
    """Refuse the options of public text configs that change the result and that no text family here implements."""
    read_choice(raw, "position_embedding_type", "absolute", ("absolute",))
    for key in ("is_decoder", "add_cross_attention", "is_encoder_decoder"):
        if read_bool(raw, key, False):
            raise InputError(f"config.json: {key} must be false, found true: only encoders are supported")
    for key in ("pruned_heads", "quantization_config"):
        if raw.get(key):
            raise InputError(
                f"config.json: {key} must be absent or empty, found {shorten(raw[key])}: save the checkpoint without it"
            )


# What pruning left of a layer: its heads and its feed-forward neurons, as a checkpoint's config.json states them.


MAX_LAYERS = 1000
"""Of any model; here, as recipes are checked against it before torch is imported."""
LAYER_WIDTH_KEYS = ("layer_widths", "encoder_layer_widths", "decoder_layer_widths")
"""Of config.json; a Whisper has the latter two."""


@dataclass(frozen=True)
class LayerWidths:
    """The sizes inside one layer.

    Attributes:
        heads: of its self-attention; the size of a head is the whole model's.
        neurons: of each of its feed-forward networks, in the order in which they run.
    """

    heads: int
    neurons: tuple[int, ...]


def read_layer_widths(raw: Mapping[str, Any], key: str, full: tuple[LayerWidths, ...]) -> tuple[LayerWidths, ...]:
    """The layers' widths: `raw[key]`, a list of {"heads", "neurons"}, or where there is none the public format's own.

    No public loader knows the key, so that a pruned checkpoint opens here alone.

    Args:
        raw: a config.json.
        key: the list's name.
        full: the widths that the other fields of the config state.

    Raises:
        InputError: the list does not fit the layers, or a layer has more than the config's other fields state.
    """
    stated = raw.get(key)
    if stated is None:
        return full
    if not isinstance(stated, list) or len(stated) != len(full):
        raise InputError(f"config.json: {key} must be a list with an entry for each of {len(full)} layers")
    return tuple(
        _read_layer(item, f"{key}[{number}]", most)
        for number, (item, most) in enumerate(zip(stated, full, strict=True))
    )


def to_json(widths: tuple[LayerWidths, ...]) -> list[dict[str, Any]]:
    """What `read_layer_widths` reads."""
    return [{"heads": layer.heads, "neurons": list(layer.neurons)} for layer in widths]


def _read_layer(item: Any, where: str, most: LayerWidths) -> LayerWidths:
    if not isinstance(item, dict) or set(item) != {"heads", "neurons"} or not isinstance(item["neurons"], list):
        raise InputError(f'config: {where} must be {{"heads": number, "neurons": [number, ...]}}, found {item!r}')
    widths = LayerWidths(
        fields.read_int(item, "heads", 1), tuple(fields.read_int({where: count}, where, 1) for count in item["neurons"])
    )
    fits = len(widths.neurons) == len(most.neurons) and widths.heads <= most.heads
    if not fits or any(count > limit for count, limit in zip(widths.neurons, most.neurons, strict=True)):
        raise InputError(
            f"config.json: {where} must have at most {most.heads} heads and neurons of at most {list(most.neurons)}, "
            f"found {widths.heads} and {list(widths.neurons)}"
        )
    return widths


# Reads and writes JSON files of checkpoints.


MAX_VOCABULARY_JSON_BYTES = 64 << 20
"""Of a tokenizer.json or a vocab.json: the largest public ones, of a quarter of a million tokens, have 35 MB."""
MAX_JSON_BYTES = 8 << 20
"""Of any other file of a checkpoint."""


def read_object(path: Path, most_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """A file's JSON object.

    Args:
        path: the file.
        most_bytes: that a file of its kind has.

    Raises:
        InputError: the file is not UTF-8 JSON, or holds something else.
    """
    value = read_json(path, most_bytes)
    if not isinstance(value, dict):
        raise InputError(f"{path.name} must hold a JSON object, found {type(value).__name__}")
    return value


def read_list(path: Path) -> list[Any]:
    """A file's JSON list.

    Raises:
        InputError: the file is not UTF-8 JSON, or holds something else.
    """
    value = read_json(path)
    if not isinstance(value, list):
        raise InputError(f"{path.name} must hold a JSON list, found {type(value).__name__}")
    return value


def read_json(path: Path, most_bytes: int = MAX_JSON_BYTES) -> Any:
    """A file's JSON value; a byte order mark before it, as Windows' editors write it, is skipped.

    Raises:
        InputError: the file is not UTF-8 JSON.
    """
    return parse_json(read_text(path, most_bytes), path.name)


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text.

    Args:
        text: anyone's.
        where: where it stands, for messages.

    Raises:
        InputError: it is no JSON, holds too many values, or is nested too deep.
    """
    try:
        check_counts(text.encode("utf-8"), where)
        value = json.loads(text)
        check_depth(value, where)
    except BundleError as error:
        raise InputError(str(error)) from None
    except RecursionError:
        raise InputError(f"{where} is not JSON: it is nested too deep") from None
    except ValueError as error:
        raise InputError(f"{where} is not JSON: {shorten(str(error), 200)[1:-1]}") from None
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object as public checkpoints have them."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


# Text files that anyone may have written, read no further than a file of their kind goes.


MAX_TABLE_BYTES = 256 << 20
"""Of data to evaluate, calibrate or train on."""
MAX_VOCABULARY_BYTES = 32 << 20
"""Of vocab.txt and merges.txt: a quarter of a million tokens take 4 MB."""
MAX_LABELS_BYTES = 4 << 20
MAX_RECIPE_BYTES = 64 << 10

_BLOCK_BYTES = 1 << 20


def read_text(path: Path, most_bytes: int, where: str | None = None, encoding: str = "utf-8-sig") -> str:
    """A file's text.

    Args:
        path: the file. Its size is looked at before anything is read, and reading ends with the first NUL.
        most_bytes: that a file of its kind has.
        where: what messages call it; None: its name.
        encoding: "utf-8-sig" skips a byte order mark before the text, as Windows' editors write it; "utf-8" keeps it.

    Raises:
        InputError: the file cannot be read, is larger, or is not UTF-8 text.
    """
    where = path.name if where is None else where
    try:
        if path.stat().st_size > most_bytes:
            raise InputError(f"{where} has {path.stat().st_size} bytes: expected {most_bytes} at most")
        data = _read(path, most_bytes, where)
    except OSError as error:
        raise InputError(f"cannot read {where}: {error.strerror}") from None
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: expected UTF-8 text, found byte {error.object[error.start]:#04x}") from None


def _read(path: Path, most_bytes: int, where: str) -> bytearray:
    data = bytearray()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            if b"\0" in block:
                raise InputError(f"{where}: expected UTF-8 text, found byte 0x00")
            data += block
            if len(data) > most_bytes:  # a pipe has no size of its own
                raise InputError(f"{where} goes on behind {most_bytes} bytes: expected that many at most")
    return data
