"""Architectures of transformers as families: the record of one is made from a checkpoint's own files."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from edgeformer.attention import APPROXIMATE_KERNELS, AttentionKernel
from edgeformer.models.adapted import (
    BASE,
    PREFIX,
    SPANS,
    AdaptedConfig,
    AdaptedEncoder,
    AdaptedHead,
    fit,
    programs,
)
from edgeformer.models.adapted_audio import (
    AdaptedAudioModel,
    Frames,
    audio_programs,
    fit_audio,
    read_feature_extractor,
)
from edgeformer.models.adapted_images import (
    IMAGE_OUTPUTS,
    AdaptedImageModel,
    fit_image,
    image_programs,
    read_image_processor,
)
from edgeformer.models.adapted_pairs import is_pair, pair_family
from edgeformer.models.config import MAX_LAYERS, refusing
from edgeformer.models.family import Family, unwrapped
from edgeformer.models.text import SPAN_ENDS, TOKEN_HEADS, TextEmbedder, check_task, id2label
from edgeformer.tasks.task import TASKS
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.tasks.speech import ENERGIES_INPUT, LENGTH_INPUT, SAMPLES_INPUT, RecordingPreprocessing

AUTO_CLASSES = {
    "text-classification": "AutoModelForSequenceClassification",
    "text-embedding": "AutoModel",
    "text-scoring": "AutoModelForSequenceClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "token-classification": "AutoModelForTokenClassification",
    "image-classification": "AutoModelForImageClassification",
    "image-embedding": "AutoModel",
    "image-text": "AutoModelForZeroShotImageClassification",
    "object-detection": "AutoModelForObjectDetection",
    "image-segmentation": "AutoModelForSemanticSegmentation",
    "audio-classification": "AutoModelForAudioClassification",
}
"""transformers' tables of classes, by task."""
_TEXT, _IMAGE, _AUDIO = "input_ids", "pixel_values", "input_values"
_KINDS = {_TEXT: "text", _IMAGE: "image", _AUDIO: "recording"}
"""By the name of what a class of transformers reads: the kind that a task takes."""
_OF_KIND = {_TEXT: (programs, fit), _IMAGE: (image_programs, fit_image), _AUDIO: (audio_programs, fit_audio)}
"""What makes programs of a module, and what compares it with transformers' own computation."""
_WITHOUT_HEAD = ("text-embedding", "image-embedding")
_OLD_BUFFERS = ("*.position_ids", "*.token_type_ids", "*.inv_freq", "*.num_batches_tracked")
_LONGEST = 1 << 14
"""Positions of a model that has no limit."""
ALWAYS_BUILT = 4 << 20
"""Values that are few enough to be built, for the loader to say which tensors are missing."""
MAX_WEIGHTS = 2000
"""Tensors of a module: the deepest architectures have 800."""


class Architecture:
    """One of transformers' architectures, as a config.json names it."""

    def __init__(self, raw: Mapping[str, Any], folder: Path | None) -> None:
        """Raises InputError where transformers is missing, does not know it, or cannot read its config."""
        self.raw, self.folder = raw, folder
        self.model_type = str(raw["model_type"])
        try:
            import transformers
        except ImportError:
            raise InputError(
                f"model_type {self.model_type!r} has no family here; transformers' own module can be converted: "
                'pip install "edgeformer[transformers]"'
            ) from None
        self.library: Any = transformers

    @cached_property
    def config(self) -> Any:
        """transformers' config, of plain values alone."""
        made = self.library.CONFIG_MAPPING[self.model_type]
        values = {key: value for key, value in self.raw.items() if key not in ("auto_map", "_attn_implementation")}
        with refusing(f"config.json cannot be read as a {self.model_type}:"):
            return made.from_dict(values)

    @cached_property
    def named(self) -> Any:
        """The class that the checkpoint was saved as, or the base model's."""
        names = self.raw.get("architectures") or [None]
        found: Any = getattr(self.library, str(names[0]), None)
        known = isinstance(found, type) and issubclass(found, self.library.PreTrainedModel)
        if known and found.config_class is type(self.config):
            return found
        return self.class_for("AutoModel")

    def class_for(self, auto: str) -> Any:
        """The class of a table of transformers', the named one where that is in it; InputError if there is none."""
        table = getattr(self.library, auto)._model_mapping
        found = table.get(type(self.config), ())
        classes = found if isinstance(found, tuple | list) else (found,)
        if not classes:
            raise InputError(f"config.json: transformers has no {auto.removeprefix('Auto')} of a {self.model_type}")
        name = str((self.raw.get("architectures") or [""])[0])
        return next((each for each in classes if each.__name__ == name), classes[0])

    @cached_property
    def skeleton(self) -> Any:
        """The named class without memory for its weights, where the weight files can hold as many."""
        for field, value in self.raw.items():
            if isinstance(value, int) and value > MAX_LAYERS and ("layer" in field or "depth" in field):
                raise InputError(f"config.json: {field} is {value}: expected {MAX_LAYERS} at most")
        with refusing(f"transformers cannot build a {self.model_type}:"), torch.device("meta"), _bounded():
            made = self.named(self.config)
        there = sum(path.stat().st_size for path in self.folder.glob("*.*") if path.is_file()) if self.folder else 0
        stated = sum(each.numel() for each in made.parameters())
        if stated > max(there, ALWAYS_BUILT):
            raise InputError(f"config.json states a model of {stated} values, and the weight files have {there} bytes")
        return made

    def tasks(self) -> tuple[str, ...]:
        """Those that have a class for it, of what the base model reads."""
        reads = self.named.main_input_name
        if reads not in _KINDS:
            raise InputError(
                f"config.json: a {self.named.__name__} reads {reads}: only models of {', '.join(_KINDS)} are adapted"
            )
        config = type(self.config)
        return tuple(
            task
            for task, auto in AUTO_CLASSES.items()
            if TASKS[task].takes == _KINDS[reads]
            and (config in getattr(self.library, auto)._model_mapping or (task in _WITHOUT_HEAD and self._is_base))
        )

    def parse(self) -> AdaptedConfig:
        """The config of ours."""
        config = self.config
        if self.named.main_input_name == _IMAGE:
            assert self.folder is not None
            preprocessing, is_reversed = read_image_processor(self.folder)
            return AdaptedConfig(config, ("pixels",), preprocessing=preprocessing, takes_bgr=is_reversed)
        if self.named.main_input_name == _AUDIO:
            assert self.folder is not None
            recordings = read_feature_extractor(self.folder, config)
            names = (SAMPLES_INPUT, LENGTH_INPUT) if recordings.filter_bank is None else (ENERGIES_INPUT,)
            return AdaptedConfig(config, names, preprocessing=recordings)
        arguments = inspect.signature(self.named.forward).parameters
        if "decoder_input_ids" in arguments:
            raise InputError(f"config.json: a {self.named.__name__} has a decoder, and only encoders are adapted")
        types = getattr(config, "type_vocab_size", 0) if "token_type_ids" in arguments else 0
        text = config.get_text_config()
        for field in ("vocab_size", "hidden_size"):
            if type(getattr(text, field, None)) is not int:
                raise InputError(f"config.json: a {self.model_type} has no {field}, as models of tokens have")
        tables = [
            part.padding_idx + 1
            for name, part in self.skeleton.named_modules()
            if name.endswith("position_embeddings") and getattr(part, "padding_idx", None) is not None
        ]
        first = tables[0] if tables else 0
        longest = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)
        most = longest - first if longest and longest > 1 else _LONGEST
        return AdaptedConfig(
            config,
            (_TEXT, "attention_mask", *(("token_type_ids",) if types > 1 else ())),
            vocab_size=text.vocab_size,
            type_vocab_size=types,
            hidden_size=text.hidden_size,
            max_position_embeddings=most,
            pad_token_id=text.pad_token_id or 0,
            first_position=first,
            one_type_of=most if types == 1 else None,
        )

    def build(self, config: AdaptedConfig, task: str, num_labels: int, attention: AttentionKernel) -> nn.Module:
        """A model of texts, images or recordings in eval mode with untrained weights."""
        if attention in APPROXIMATE_KERNELS.values():
            raise InputError(f"a {self.model_type} is transformers' own module: choose an exact attention kernel")
        if task not in AUTO_CLASSES:
            raise InputError(f"a {self.model_type} is transformers' own module, which does no {task} here: give --task")
        _ = self.skeleton  # refuses what is too large
        if task in IMAGE_OUTPUTS:
            made = self._made(task, num_labels)
            inside = made if num_labels else Headless(made, made.base_model_prefix)
            return AdaptedImageModel(inside, task, attention, config.takes_bgr).eval()
        if isinstance(config.preprocessing, RecordingPreprocessing):
            frames = Frames(self.config) if config.preprocessing.filter_bank is None else None
            return AdaptedAudioModel(self._made(task, num_labels), attention, frames).eval()
        check_task(task, num_labels)
        if task == "text-embedding":
            made = self._made(task, 0)
            inside = Headless(made, made.base_model_prefix)
            encoder = AdaptedEncoder(inside, "last_hidden_state", attention, config.one_type_of)
            return TextEmbedder(BASE, encoder, config.hidden_size).eval()
        output = SPANS if task == "question-answering" else "logits"
        encoder = AdaptedEncoder(self._made(task, num_labels), output, attention, config.one_type_of)
        return AdaptedHead(encoder, num_labels or SPAN_ENDS, per_token=task in TOKEN_HEADS).eval()

    def _made(self, task: str, num_labels: int) -> Any:
        config = type(self.config).from_dict(self.config.to_dict())
        if num_labels:
            config.num_labels = num_labels
        config.use_cache = False
        found = self.named if task in _WITHOUT_HEAD and self._is_base else self.class_for(AUTO_CLASSES[task])
        # Under a head there is none, so nothing of it is in the checkpoint; its vectors are the first token's.
        arguments = inspect.signature(found.__init__).parameters
        unpooled = task == "image-embedding" and not self._is_base and "add_pooling_layer" in arguments
        options = {"add_pooling_layer": False} if unpooled else {}
        with refusing(f"transformers cannot build a {self.model_type}:"):
            return found._from_config(config, attn_implementation="eager", **options)

    @property
    def _is_base(self) -> bool:
        """Whether the checkpoint was saved without a head."""
        return "For" not in self.named.__name__ and not hasattr(self.skeleton, self.skeleton.base_model_prefix)

    def rename(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Public names to ours, by transformers' own rules for names of old and for weights stored as one."""
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightRenaming, rename_source_key

        base = self.skeleton.base_model_prefix
        plain = {unwrapped(name): each for name, each in state.items()}
        rules = get_model_conversion_mapping(self.skeleton)
        names = [each for each in rules if isinstance(each, WeightRenaming)]
        if len(names) < len(rules):
            plain = self._divided(plain)
        known = self.skeleton.state_dict()
        found = {rename_source_key(name, names, [], base, known)[0]: each for name, each in plain.items()}
        for target, source in getattr(self.skeleton, "all_tied_weights_keys", {}).items():
            if target not in found and source in found:
                found[target] = found[source]
        inside = f"{PREFIX}{base}." if self._is_base else PREFIX
        return {inside + name: each for name, each in found.items()}

    def _divided(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights as transformers loads them where it cuts tensors apart or joins them."""
        with refusing(f"transformers cannot load a {self.model_type}:"):
            model, said = self.named.from_pretrained(
                None, config=self.config, state_dict=state, output_loading_info=True
            )
        kept = {name: each for name, each in model.state_dict().items() if name not in said["missing_keys"]}
        return {**kept, **{name: state[name] for name in said["unexpected_keys"] if name in state}}

    def publish(self, state: Mapping[str, Tensor], config: AdaptedConfig) -> dict[str, Tensor]:  # noqa: ARG002
        """The way back."""
        return {name.removeprefix(PREFIX): each for name, each in state.items()}

    @property
    def blocks(self) -> tuple[str, ...]:
        """The numbered parts of the longest list of layers, in whatever place."""
        lists = [(len(part), name) for name, part in self.skeleton.named_modules() if isinstance(part, nn.ModuleList)]
        if not lists:
            return ()
        name = max(lists, key=lambda each: each[0])[1]
        base = self.skeleton.base_model_prefix
        return (f"{PREFIX}{f'{base}.' if self._is_base else ''}{name}.*",)

    def unused(self) -> tuple[str, ...]:
        """Patterns of what no task needs: heads, poolers, and buffers that old versions stored."""
        base = f"{PREFIX}{self.skeleton.base_model_prefix}."
        heads = {name.split(".")[0] for name in self.skeleton.state_dict()}
        others = () if self._is_base else tuple(f"{PREFIX}{head}.*" for head in heads if f"{PREFIX}{head}." != base)
        return (*others, f"{base}pooler.*", *(f"{PREFIX}{pattern}" for pattern in _OLD_BUFFERS))

    def family(self) -> Family[AdaptedConfig]:
        """Its record."""
        tasks = self.tasks()
        make_programs, check = _OF_KIND[self.named.main_input_name]
        return Family(
            name=f"adapted-{self.model_type}",
            tasks=tasks,
            parse_config=lambda _raw: self.parse(),
            build=self.build,
            rename=self.rename,
            publish=self.publish,
            unused=self.unused(),
            programs=make_programs,
            parse_labels=id2label,
            blocks=self.blocks,
            with_layers=self._refuse_layers,
            fit=check,
            adapted=f"{self.named.__name__} of transformers {self.library.__version__}",
            packages=("transformers",),
        )

    def _refuse_layers(self, *_: Any) -> Any:
        raise InputError(f"a {self.model_type} is transformers' own module, of which nothing is pruned here")


class Headless(nn.Module):
    """A base model under the name that it has inside of those with a head."""

    def __init__(self, base: nn.Module, name: str) -> None:
        super().__init__()
        self.add_module(name, base)
        self.forward = base.forward


@contextmanager
def _bounded() -> Iterator[None]:
    """End the building of a module at the weight with which it has more of them than any architecture.

    How often each of a config's numbers repeats a layer is known to transformers alone.

    Raises:
        InputError: from within transformers, where the weight is made.
    """
    made = 0

    def count(*_: object) -> None:
        nonlocal made
        made += 1
        if made > MAX_WEIGHTS:
            raise InputError(f"config.json states a model of over {MAX_WEIGHTS} tensors: expected fewer layers")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def family_of(raw: Mapping[str, Any], folder: Path | None) -> Family[AdaptedConfig]:
    """The record of an architecture of transformers, made for one checkpoint.

    Args:
        raw: its config.json.
        folder: where its other files are; None: there are none, as for a student that is to be made.

    Raises:
        InputError: transformers is not installed, or has no such architecture.
    """
    made = Architecture(raw, folder)
    return pair_family(made) if is_pair(made) else made.family()
