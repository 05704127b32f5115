"""Reads the fields of a public config.json, each with its public default, refusing what a family cannot do."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError


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
