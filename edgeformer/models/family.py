"""The families of models: the record of each, which one a config.json is of, and the programs that they export."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from edgeformer.attention import AttentionKernel
from edgeformer_runtime.bundle.manifest import TensorSpec
from edgeformer_runtime.bundle.specs import HOST_STATE, STATES
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.registry import Registry, check_choice, did_you_mean, load_attribute

# Options are checked against this module's names before torch, which takes seconds, is imported.

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgeformer.models.whisper.generation import SpeechDescription

DTYPES = ("float32", "int32")
"""Of inputs and outputs; torch has them under the same names."""
DEFAULT_SEQ_LENS = (8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Of texts, in tokens. Orders to an assistant have 12 on average, sentences of reviews 26."""
LONGEST_DEFAULT = DEFAULT_SEQ_LENS[-1:]
POSITIONS_PER_SECOND = 50
"""Of the encoders of speech models: two frames of 10 ms each."""
DEFAULT_AUDIO_POSITIONS = tuple(range(125, 1501, 125))
"""Every 2.5 seconds to 30."""

TAIL_WINDOW, FULL_WINDOW = "tail", "full"
WINDOWS = (TAIL_WINDOW, FULL_WINDOW)
MATMUL, ELEMENTWISE = "matmul", "elementwise"
TOKEN_MATMULS = (MATMUL, ELEMENTWISE)

MIN_MAX, PERCENTILE, ENTROPY = METHODS = ("min-max", "percentile", "entropy")
"""How a range is taken from the values of an activation: all of them, all but the outermost, or those whose histogram
loses the least information (Migacz 2017, "8-bit Inference with TensorRT")."""


@dataclass(frozen=True)
class ProgramOptions:
    """What a family is asked to make programs of. Each family reads what concerns its tasks.

    Attributes:
        seq_lens: of texts: the tokens of each bucket.
        audio_positions: of speech: the encoder's positions of each bucket; one is 20 ms of audio.
        clip_seconds: of recordings that are classified: the longest of each program; empty: as the family chooses.
        window: of speech: "tail" (the audio that is there, and silence computed in advance for the rest of the window)
            or "full" (always the whole window, as the public model does; one bucket, whatever `audio_positions`).
        prefill_tokens: of speech: tokens that the decoder takes at once.
        cache_lens: of generated text: slots of each bucket's cache; empty: as the family chooses.
        prompt_tokens: of generated text: tokens that `prefill` takes at once.
        decoder_state: of speech and generated text: who keeps the self-attention cache, "host" or "program".
        token_matmul: of the same: how the query of one token meets the caches, "matrix-products" or "sums" of what is
            multiplied element by element: equal but for rounding.
    """

    seq_lens: tuple[int, ...] = LONGEST_DEFAULT
    audio_positions: tuple[int, ...] = DEFAULT_AUDIO_POSITIONS
    window: str = TAIL_WINDOW
    prefill_tokens: int = 8
    clip_seconds: tuple[float, ...] = ()
    cache_lens: tuple[int, ...] = ()
    prompt_tokens: int = 16
    decoder_state: str = HOST_STATE
    token_matmul: str = MATMUL

    def __post_init__(self) -> None:
        for value, choices, what in (
            (self.window, WINDOWS, "window"),
            (self.decoder_state, STATES, "decoder state"),
            (self.token_matmul, TOKEN_MATMULS, "kind of products"),
        ):
            check_choice(value, choices, what)
        if min(self.prefill_tokens, self.prompt_tokens) < 2:
            found = min(self.prefill_tokens, self.prompt_tokens)
            raise InputError(f"expected at least 2 tokens of prefill, found {found}")
        if not self.audio_positions or min(self.audio_positions) < 1:
            raise InputError(f"expected audio positions of at least 1, found {list(self.audio_positions)}")


@dataclass(frozen=True)
class Program:
    """An exportable forward and the names by which every target knows its inputs and outputs.

    `module(*inputs)` takes tensors in the order of `inputs` and returns a tuple in the order of `outputs`.
    Its parameters and buffers are contiguous float32 (a converter may export other strides wrongly).
    `calibration` holds inputs as the model will meet them, a tuple each, for static quantization; empty: none given.
    `calibration_method` is how ranges are taken from them (`METHODS`).
    `layer_formats` says, for the precision `mixed`, the weight format of each quantizable layer by its name in `module`
    (`edgeformer.convert.layer_plan`); empty: there is no plan.
    `any_length` says that the module takes inputs of any length in dimension 1, from 2 up to this program's, as a file
    with a symbolic size can: programs that say so differ in nothing but that length.
    `alike` is one name for programs that differ in sizes and in what their modules' buffers hold, and in nothing else,
    so that a converter may make some of them of others; empty: there is no other such program.
    `part` is what stands before the names in `module` in the whole model: "decoder." where it is that part alone.
    """

    name: str
    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    calibration: tuple[tuple[Tensor, ...], ...] = ()
    calibration_method: str = MIN_MAX
    layer_formats: Mapping[str, str] = field(default_factory=dict)
    any_length: bool = False
    alike: str = ""
    part: str = ""

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Inputs of the right dtypes and shapes, all ones: enough to trace the program."""
        import torch

        return tuple(torch.ones(spec.shape, dtype=getattr(torch, spec.dtype)) for spec in self.inputs)


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
        classes: what the names of transformers' classes that it implements end in, where the same model_type has others
            that it does not; those are adapted. Empty: it implements them all.
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
    classes: tuple[str, ...] = ()

    def implements(self, raw: Mapping[str, Any], task: str | None) -> bool:
        """Whether the class in a config.json is the family's, for a task or for whatever it was saved for."""
        names = [str(name) for name in raw.get("architectures") or ()]
        return not self.classes or (task in (None, *self.tasks) and any(name.endswith(self.classes) for name in names))

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
        "roberta": "edgeformer.models.bert:FAMILY",
        "camembert": "edgeformer.models.bert:FAMILY",
        "xlm-roberta": "edgeformer.models.bert:FAMILY",
        "electra": "edgeformer.models.bert:FAMILY",
        "tiny_vit": "edgeformer.models.tinyvit:FAMILY",
        "whisper": "edgeformer.models.whisper.family:FAMILY",
        "gpt2": "edgeformer.models.gpt2:FAMILY",
        "llama": "edgeformer.models.llama:FAMILY",
        "mistral": "edgeformer.models.llama:FAMILY",
        "qwen2": "edgeformer.models.llama:FAMILY",
    },
    group="edgeformer.families",
)
"""By `model_type`, or by timm's `architecture`; another author's package adds its own by an entry point."""


OTHERS = "edgeformer.models.architecture:family_of"
"""Of (config.json, folder) to a record: what has no family here, by transformers' own module."""


def family_for(raw: Mapping[str, Any], folder: Path | None = None, task: str | None = None) -> Family[Any]:
    """The family that implements a public config.json: by its `model_type`, or by timm's `architecture`.

    Args:
        raw: the config.
        folder: where the checkpoint's other files are; None: there are none.
        task: what it is wanted for; None: what it was saved for.

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
    own = FAMILIES.get(model_type)
    if own is not None and own.implements(raw, task):
        return own
    if "model_type" in raw and _is_known_elsewhere(model_type):
        made: Family[Any] = load_attribute(OTHERS)(raw, folder)
        return made
    guess = did_you_mean(model_type, FAMILIES)
    raise InputError(f"unknown model_type {named!r}: {guess}expected one of {', '.join(sorted(FAMILIES))}")


def _is_known_elsewhere(model_type: str) -> bool:
    """Whether transformers has such an architecture; without transformers nobody knows, and it says what to install."""
    if find_spec("transformers") is None:
        return did_you_mean(model_type, FAMILIES) == ""
    from transformers import CONFIG_MAPPING

    return model_type in CONFIG_MAPPING


# Names of weights in public checkpoints, brought to one.


_WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod|_forward_module|model)\.)+")
"""What data-parallel training, torch.compile, DeepSpeed and training scripts put before every name, in any order."""


def unwrapped(name: str) -> str:
    """A parameter's name without what wrappers put before it."""
    return _WRAPPERS.sub("", name)


def without_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """A state dict by names without what wrappers, and then the architecture itself, put before them.

    Raises:
        InputError: two names mean the same.
    """
    plain = {unwrapped(name).removeprefix(prefix): tensor for name, tensor in state.items()}
    if len(plain) < len(state):
        raise InputError(f"checkpoint holds tensors twice, with the prefix {prefix} and without: remove one")
    return plain
