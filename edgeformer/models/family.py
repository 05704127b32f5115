"""The families of models: the record of each, and which one a public config.json is of."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from edgeformer.attention import AttentionKernel
from edgeformer.models.program import Program, ProgramOptions
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.registry import Registry, did_you_mean, load_attribute

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgeformer.models.whisper.generation import SpeechDescription

TIMM_WRAPPER = "timm_wrapper"
TIMM_SIZE = re.compile(r"_\d+m_\d+$")
"""What timm's architectures have behind the name of their family: millions of parameters, and pixels."""


Config = TypeVar("Config")
"""A family's own frozen dataclass: what its functions take, and what stands between them unread."""


@dataclass(frozen=True)
class Family(Generic[Config]):
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
        with_layers: (public config.json, parsed config, for each stack the numbers of the layers that are left) to a
            config.json and a parsed config of that depth. A stack is a list of `units.StackedLayer`, by its name in the
            module.
        sizes: parts of the weights, as fields of config.json by `model_type`: the product of a part's fields is a
            number of values that the weight files hold.
        classifiers: what a config's `architectures` calls a text classifier, by `model_type`.
        width_keys: by the start of a layer's name, the field of config.json for what pruning left of such layers.
        describe_weights: shapes of public tensors to a config.json, for weight files that come alone; None where the
            shapes are another model's.
        read_extras: (folder, parsed config, config.json, tokenizer, language or None) to what other files say; None:
            there are none.
        keep_extras: (new parsed config, old one) to the new one with what those files said of the old.
        write_extras: writes into a folder what of them a smaller model's config has changed.
        fit: (module with its weights, parsed config), before anything is made of it; InputError if it cannot be used.
        adapted: the class of another library whose module this is, in words; None: it is ours.
        packages: whose code computes it, beside torch's: a bundle's toolchain names their versions.
    """

    name: str
    tasks: tuple[str, ...]
    parse_config: Callable[[Mapping[str, Any]], Config]
    build: Callable[[Config, str, int, AttentionKernel], nn.Module]
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    publish: Callable[[Mapping[str, Tensor], Config], dict[str, Tensor]]
    unused: tuple[str, ...]
    programs: Callable[[nn.Module, Config, ProgramOptions], tuple[Program, ...]]
    parse_labels: Callable[[Mapping[str, Any]], tuple[str, ...]]
    blocks: tuple[str, ...]
    with_layers: Callable[[Mapping[str, Any], Config, Mapping[str, Sequence[int]]], tuple[dict[str, Any], Config]]
    sizes: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    classifiers: Mapping[str, str] = field(default_factory=dict)
    width_keys: Mapping[str, str] = field(default_factory=lambda: {"": "layer_widths"})
    describe_weights: Callable[[Mapping[str, tuple[int, ...]]], dict[str, Any] | None] | None = None
    read_extras: Callable[[Path, Config, Mapping[str, Any], str | None, str | None], SpeechDescription] | None = None
    keep_extras: Callable[[Config, Config], Config] = lambda config, _old: config
    write_extras: Callable[[Path, Config], None] = lambda _folder, _config: None
    fit: Callable[[nn.Module, Config], None] = lambda _module, _config: None
    adapted: str | None = None
    packages: tuple[str, ...] = ()

    def width_key(self, layer: str) -> str:
        """The field of config.json for what pruning left of a layer, by its name in the module."""
        return next(key for prefix, key in self.width_keys.items() if layer.startswith(prefix))

    def is_unused(self, key: str) -> bool:
        """Whether a renamed key is one that no task of ours uses."""
        return any(fnmatchcase(key, pattern) for pattern in self.unused)


FAMILIES: Registry[Family[Any]] = Registry(
    {
        "mobilebert": "edgeformer.models.mobilebert:FAMILY",
        "bert": "edgeformer.models.bert:FAMILY",
        "distilbert": "edgeformer.models.bert:FAMILY",
        "tiny_vit": "edgeformer.models.tinyvit:FAMILY",
        "whisper": "edgeformer.models.whisper.family:FAMILY",
    },
    group="edgeformer.families",
)
"""By `model_type`, or by timm's `architecture`; another author's package adds its own by an entry point."""


OTHERS = "edgeformer.models.architecture:family_of"
"""Of (config.json, folder) to a record: what has no family here, by transformers' own module."""


def family_for(raw: Mapping[str, Any], folder: Path | None = None) -> Family[Any]:
    """The family that implements a public config.json: by its `model_type`, or by timm's `architecture`.

    Args:
        raw: the config.
        folder: where the checkpoint's other files are; None: there are none.

    Raises:
        InputError: no family does, and neither does transformers; the message lists those that exist.
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
    if model_type not in FAMILIES and "model_type" in raw and _is_known_elsewhere(model_type):
        made: Family[Any] = load_attribute(OTHERS)(raw, folder)
        return made
    if model_type not in FAMILIES:
        guess = did_you_mean(model_type, FAMILIES)
        raise InputError(f"unknown model_type {named!r}: {guess}expected one of {', '.join(sorted(FAMILIES))}")
    return FAMILIES[model_type]


def _is_known_elsewhere(model_type: str) -> bool:
    """Whether transformers has such an architecture; without transformers nobody knows, and it says what to install."""
    if find_spec("transformers") is None:
        return did_you_mean(model_type, FAMILIES) == ""
    from transformers import CONFIG_MAPPING

    return model_type in CONFIG_MAPPING
