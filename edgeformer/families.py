"""The families of models: a literal table from a public `model_type` to the module that implements it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from edgeformer.attention import AttentionKernel
from edgeformer.programs import Program, ProgramOptions
from edgeformer_runtime.choices import did_you_mean
from edgeformer_runtime.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

FAMILIES: dict[str, str] = {
    "mobilebert": "edgeformer.models.mobilebert:FAMILY",
    "bert": "edgeformer.models.bert:FAMILY",
    "distilbert": "edgeformer.models.bert:FAMILY",
    "tiny_vit": "edgeformer.models.tinyvit:FAMILY",
    "whisper": "edgeformer.models.whisper_family:FAMILY",
}
TIMM_WRAPPER = "timm_wrapper"
TIMM_SIZE = re.compile(r"_\d+m_\d+$")
"""What timm's architectures have behind the name of their family: millions of parameters, and pixels."""


@dataclass(frozen=True)
class Family:
    """One architecture and everything about it that is not common to all.

    Attributes:
        name: the family's name in manifests.
        parse_config: a public config.json, as a dict, to the family's frozen config; InputError on what it cannot do.
        build: (config, task, num_labels, attention kernel) to a module in eval mode with untrained weights.
        rename: public state dict to our names; values are only renamed, cast or split, never dropped.
        publish: (our state dict, config) to the names of public checkpoints, such that `rename` gives ours again.
        unused: patterns (`fnmatch`) of keys, renamed, that no task of ours uses (reported, not an error).
        programs: (module, config, options) to the programs, bucket by bucket.
        parse_labels: a public config.json to the names of the classes, in the order of the logits; InputError if there
            can be none.
        blocks: names of the parts of a program's module whose outputs `verify --layers` compares, in `fnmatch` patterns
            name by name: "bert.encoder.layer.*" is each layer and nothing inside one.
    """

    name: str
    tasks: tuple[str, ...]
    parse_config: Callable[[Mapping[str, Any]], Any]
    build: Callable[[Any, str, int, AttentionKernel], nn.Module]
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    publish: Callable[[Mapping[str, Tensor], Any], dict[str, Tensor]]
    unused: tuple[str, ...]
    programs: Callable[[nn.Module, Any, ProgramOptions], tuple[Program, ...]]
    parse_labels: Callable[[Mapping[str, Any]], tuple[str, ...]]
    blocks: tuple[str, ...]

    def is_unused(self, key: str) -> bool:
        """Whether a renamed key is one that no task of ours uses."""
        return any(fnmatchcase(key, pattern) for pattern in self.unused)


def family_for(raw: Mapping[str, Any]) -> Family:
    """The family that implements a public config.json: by its `model_type`, or by timm's `architecture`.

    Raises:
        InputError: no family does; the message lists those that exist.
    """
    named = raw.get("model_type")
    # transformers' wrapper around timm's models leaves it to timm's own field which one it is.
    if named in (None, TIMM_WRAPPER):
        named = raw.get("architecture")
    if not isinstance(named, str):
        raise InputError(
            'config.json names no model_type: add one, as "model_type": "bert" for a BERT of old '
            f"(known are {', '.join(sorted(FAMILIES))}; timm's checkpoints have an architecture instead)"
        )
    model_type = TIMM_SIZE.sub("", named)
    try:
        module, attribute = FAMILIES[model_type].split(":")
    except KeyError:
        guess = did_you_mean(model_type, FAMILIES)
        raise InputError(
            f"unknown model_type {named!r}: {guess}expected one of {', '.join(sorted(FAMILIES))}"
        ) from None
    return cast(Family, getattr(import_module(module), attribute))
