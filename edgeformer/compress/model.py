"""A model that is being compressed: a checkpoint's description and its module, from and to the public format."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from edgeformer.attention import ALL_KERNELS, APPROXIMATE_KERNELS, AttentionKernel
from edgeformer.checkpoints.checkpoint import Checkpoint, check_attention, load_module, open_checkpoint
from edgeformer.checkpoints.sentence import NO_PROMPT
from edgeformer.checkpoints.sources import CONFIG_FILE
from edgeformer.checkpoints.tokenizer_options import TOKENIZER_CONFIG
from edgeformer.checkpoints.weights import save_weights
from edgeformer.models.config import write_json
from edgeformer.models.family import FAMILIES, Family
from edgeformer.models.units import AttentionModule, StackedLayer, UnitGroup
from edgeformer.models.whisper.generation import GENERATION_FILE
from edgeformer.tasks.task import TASKS
from edgeformer.tasks.text import CLASSIFICATION
from edgeformer_runtime.errors import InputError

KERNEL = "fused"
"""The attention kernel of training, where attention is exact: the fastest in torch, forwards and backwards."""

WEIGHTS_FILE, TOKENIZER_FILE, CARD_FILE = "model.safetensors", "tokenizer.json", "README.md"

_SIDE_FILES = (GENERATION_FILE, "preprocessor_config.json", "normalizer.json")
_TOKENIZER_FILES = (
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "sentence_bert_config.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
"""Files of a checkpoint that go along as they are; those of the tokenizer unless it was changed."""

_OWN_TOKENIZER = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
}
"""tokenizer_config.json of one that is its tokenizer.json and nothing else."""

_HEAD_STD = 0.02


@dataclass(frozen=True)
class Model:
    """A model in memory.

    Attributes:
        checkpoint: everything about it but the weights; its folder holds the files that go along.
        module: float32.
        own_tokenizer: its tokenizer is no longer its folder's.
    """

    checkpoint: Checkpoint
    module: nn.Module
    own_tokenizer: bool = False

    @property
    def family(self) -> Family[Any]:
        """The implementation."""
        return self.checkpoint.family


def open_model(source: str, task: str | None = None) -> Model:
    """A checkpoint with its weights.

    Raises:
        InputError: it cannot be used, or does something that is not trained here.
    """
    checkpoint = open_checkpoint(source, task=task, prompt=NO_PROMPT)
    record = TASKS[checkpoint.task]
    if record.training is None:
        raise InputError(
            f"{checkpoint.source.id} is a {record.noun}: expected a classifier or a speech recogniser, or a recipe "
            "whose first step is finetune with new_head = true"
        )
    if checkpoint.activation != "softmax":
        raise InputError(f"{checkpoint.source.id} gives several labels at once: expected a classifier with one")
    module, _ = load_module(checkpoint, _kernel(checkpoint))
    return Model(checkpoint, module)


def with_new_head(source: str, labels: Sequence[str], seed: int) -> Model:
    """A text model whose classifier, and pooler where it has none, are new, for these labels.

    Raises:
        InputError: the source is no text model.
    """
    checkpoint = open_checkpoint(source, task=None, new_head=True)
    if TASKS[checkpoint.task].takes != CLASSIFICATION.takes:
        raise InputError(f"new_head is for text models, and {checkpoint.source.id} does {checkpoint.task}")
    raw = classifier_config(checkpoint.family, checkpoint.raw, labels)
    made = replace(checkpoint, raw=raw, task=CLASSIFICATION.name, labels=tuple(labels), activation="softmax")
    model = build_model(made)
    known = checkpoint.family.rename(checkpoint.load_weights())
    heads = ("classifier.", "pre_classifier.")
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seed)
        for name, parameter in model.module.named_parameters():
            if name in known and not name.startswith(heads):
                if known[name].shape != parameter.shape:
                    raise InputError(f"{checkpoint.source.id}: tensor {name} does not fit its config")
                parameter.copy_(known[name])
            elif name.startswith(heads) or ".pooler." in name:
                parameter.normal_(std=_HEAD_STD) if parameter.dim() > 1 else parameter.zero_()
            else:
                raise InputError(f"{checkpoint.source.id}: tensor {name} is missing")
    return model


def classifier_config(family: Family[Any], raw: Mapping[str, Any], labels: Sequence[str]) -> dict[str, Any]:
    """A text config.json, changed to a classifier's with these labels.

    Raises:
        InputError: the family is another library's, whose heads are not made here.
    """
    made = family.classifiers.get(str(raw["model_type"]))
    if made is None:
        raise InputError(f"no new head is made for {family.name}: expected one of {', '.join(FAMILIES)}")
    config = {key: value for key, value in raw.items() if key != "num_labels"}
    return {
        **config,
        "architectures": [made],
        "problem_type": "single_label_classification",
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    }


def build_model(checkpoint: Checkpoint) -> Model:
    """A model of a checkpoint's `raw` config with untrained weights; its parsed config is made anew."""
    config = checkpoint.family.parse_config(checkpoint.raw)
    check_attention(checkpoint.raw, checkpoint.task)
    config = checkpoint.family.keep_extras(config, checkpoint.config)
    checkpoint = replace(checkpoint, config=config)
    built_as = TASKS[checkpoint.task].built_as
    module = checkpoint.family.build(config, built_as, len(checkpoint.labels), _kernel(checkpoint))
    return Model(checkpoint, module)


def _kernel(checkpoint: Checkpoint) -> AttentionKernel:
    """The kernel that it is trained with."""
    return ALL_KERNELS[checkpoint.attention or KERNEL]


def write_model(model: Model, folder: Path, stored: torch.dtype = torch.float32) -> None:
    """Write a model into a new folder in the public format: config, weights, tokenizer and what goes along.

    Args:
        model: what to write.
        folder: does not exist.
        stored: dtype of the floating point tensors.
    """
    folder.mkdir(parents=True)
    checkpoint = model.checkpoint
    raw = {**checkpoint.raw, "dtype": str(stored).removeprefix("torch.")}
    raw.pop("torch_dtype", None)
    write_json(folder / CONFIG_FILE, raw)
    state = {name: tensor.detach().cpu() for name, tensor in model.module.state_dict().items()}
    public = model.family.publish(state, checkpoint.config)
    tensors = {name: _stored(tensor, stored) for name, tensor in public.items()}
    save_weights(tensors, folder / WEIGHTS_FILE)
    if checkpoint.tokenizer_json is not None:
        (folder / TOKENIZER_FILE).write_text(checkpoint.tokenizer_json, encoding="utf-8")
    if model.own_tokenizer:
        # Without it transformers would lower-case, whatever tokenizer.json says.
        write_json(folder / TOKENIZER_CONFIG, _OWN_TOKENIZER)
    if checkpoint.folder.is_dir():
        for name in _SIDE_FILES + (() if model.own_tokenizer else _TOKENIZER_FILES):
            if (checkpoint.folder / name).is_file():
                shutil.copyfile(checkpoint.folder / name, folder / name)
    checkpoint.family.write_extras(folder, checkpoint.config)
    (folder / CARD_FILE).write_text(_card(checkpoint), encoding="utf-8")


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous()


def _card(checkpoint: Checkpoint) -> str:
    """The licence goes along; what else the source's card says is no longer true."""
    front = f"---\nlicense: {checkpoint.license}\n---\n" if checkpoint.license else ""
    return f"{front}# Compressed from {checkpoint.source.id}\n\nedgeformer.json says how.\n"


# Where a module's layers are, what can be removed from them, and what they compute on the way.


_NUMBERED = re.compile(r"(?P<stack>.+)\.(?P<number>\d+)")


@dataclass(frozen=True)
class Stack:
    """Layers that run one after the other: `<name>.<number>`."""

    name: str
    layers: tuple[StackedLayer, ...]

    def layer_name(self, number: int) -> str:
        """A layer's name in the module."""
        return f"{self.name}.{number}"


def stacks(module: nn.Module) -> tuple[Stack, ...]:
    """The stacks of layers in a module, in the order in which they run."""
    found: dict[str, list[StackedLayer]] = {}
    for name, part in module.named_modules():
        if isinstance(part, StackedLayer):
            match = _NUMBERED.fullmatch(name)
            assert match is not None  # each family keeps its layers in a list
            found.setdefault(match["stack"], []).append(part)
    return tuple(Stack(name, tuple(layers)) for name, layers in found.items())


def unit_groups(module: nn.Module) -> tuple[UnitGroup, ...]:
    """Everything in a module that can be removed unit by unit, layer by layer."""
    return tuple(
        group
        for stack in stacks(module)
        for number, layer in enumerate(stack.layers)
        for group in layer.unit_groups(stack.layer_name(number))
    )


@contextmanager
def hooked_outputs(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Inside the block, each forward leaves the layers' outputs in the list, in the order of the layers."""
    outputs: list[Tensor] = [cast(Tensor, None)] * len(layers)

    def keep(number: int, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        outputs[number] = output

    handles = [layer.register_forward_hook(partial(keep, number)) for number, layer in enumerate(layers)]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


class MapRecorder:
    """An attention kernel that keeps its maps, in front of the one that computes."""

    def __init__(self, kernel: AttentionKernel) -> None:
        self.kernel = kernel
        self.scores: Tensor | None = None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        """See `AttentionKernel`; `scores` become (B, H, T, S) before the softmax."""
        scores = (q * scale) @ k.transpose(2, 3)
        self.scores = scores if bias is None else scores + bias
        return self.kernel(q, k, v, bias, scale)


def record_maps(layer: nn.Module) -> tuple[MapRecorder, ...]:
    """Put a recorder in front of every attention of a layer; they stay there.

    Raises:
        InputError: an approximate attention, which has no map.
    """
    recorders = []
    for part in layer.modules():
        if isinstance(part, AttentionModule):
            if part.attention in APPROXIMATE_KERNELS.values():
                raise InputError("loss: approximate attention has no maps to compare: leave attention out")
            recorder = MapRecorder(part.attention)
            part.attention = recorder
            recorders.append(recorder)
    return tuple(recorders)


def map_layers(
    students: Sequence[Stack], teachers: Sequence[Stack], layer_map: str | tuple[tuple[int, int], ...]
) -> list[tuple[nn.Module, nn.Module]]:
    """Which layer of the teacher teaches which of the student's, in pairs (student, teacher).

    Args:
        students, teachers: their stacks. Pairs count through all of a model's layers.
        layer_map: "uniform", or pairs of numbers.

    Raises:
        InputError: a number beyond the layers, or stacks that cannot be matched.
    """
    if not isinstance(layer_map, str):
        own, theirs = ([layer for stack in each for layer in stack.layers] for each in (students, teachers))
        for student, teacher in layer_map:
            if not (0 <= student < len(own) and 0 <= teacher < len(theirs)):
                raise InputError(
                    f"layer_map: there is no pair [{student}, {teacher}]: the student has {len(own)} layers and the "
                    f"teacher {len(theirs)}, counted from 0"
                )
        return [(own[student], theirs[teacher]) for student, teacher in layer_map]
    if len(students) != len(teachers):
        raise InputError(
            f"layer_map: the student has {len(students)} stages and the teacher {len(teachers)}: state pairs of layers"
        )
    return [
        (student.layers[number], teacher.layers[source])
        for student, teacher in zip(students, teachers, strict=True)
        for number, source in enumerate(uniform(len(student.layers), len(teacher.layers)))
    ]


def uniform(count: int, of: int) -> list[int]:
    """For each of `count` layers the one of `of` that stands at its place, the last for the last."""
    return [max(0, round((number + 1) * of / count) - 1) for number in range(count)]


Skipped = Callable[[], None]


def skip(layer: nn.Module) -> Skipped:
    """Make a layer give its input as its output; the result undoes it."""
    handle = layer.register_forward_hook(lambda _module, inputs, _output: inputs[0])
    return handle.remove
