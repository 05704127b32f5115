"""What pruning left of a layer: its heads and its feed-forward neurons, as a checkpoint's config.json states them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeformer.models import config as fields
from edgeformer_runtime.errors import InputError

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
