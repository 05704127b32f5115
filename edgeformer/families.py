"""The families of models: a literal table from a public `model_type` to the module that implements it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

from torch import Tensor, nn

from edgeformer.attention import AttentionKernel
from edgeformer.programs import Program
from edgeformer_runtime.errors import InputError

FAMILIES: dict[str, str] = {
    "mobilebert": "edgeformer.models.mobilebert:FAMILY",
    "bert": "edgeformer.models.bert:FAMILY",
    "distilbert": "edgeformer.models.bert:FAMILY",
}


@dataclass(frozen=True)
class Family:
    """One architecture and everything about it that is not common to all.

    Attributes:
        name: the family's name in manifests.
        parse_config: a public config.json, as a dict, to the family's frozen config; InputError on what it cannot do.
        build: (config, task, num_labels, attention kernel) to a module in eval mode with untrained weights.
        rename: public state dict to our names; values are only renamed, cast or split, never dropped.
        unused: prefixes of public keys that belong to heads which no task of ours uses (reported, not an error).
        programs: (module, config, seq_lens) to one program per bucket.
    """

    name: str
    tasks: tuple[str, ...]
    parse_config: Callable[[Mapping[str, Any]], Any]
    build: Callable[[Any, str, int, AttentionKernel], nn.Module]
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    unused: tuple[str, ...]
    programs: Callable[[nn.Module, Any, tuple[int, ...]], tuple[Program, ...]]


def family_for(model_type: str) -> Family:
    """The family that implements a public `model_type`.

    Raises:
        InputError: no family does; the message lists those that exist.
    """
    try:
        module, attribute = FAMILIES[model_type].split(":")
    except KeyError:
        raise InputError(f"unknown model_type {model_type!r}: expected one of {', '.join(sorted(FAMILIES))}") from None
    return cast(Family, getattr(import_module(module), attribute))
