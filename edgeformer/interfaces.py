"""What a bundle holds besides the model, by task: how raw input becomes tensors, and outputs an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgeformer import samples
from edgeformer.checkpoints import Checkpoint
from edgeformer.programs import Program
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.manifest import Classification, Embedding, TextPreprocessing
from edgeformer_runtime.preprocess.image_spec import ImagePreprocessing

TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True)
class Interface:
    """The parts of a bundle around the model.

    Attributes:
        preprocessing, postprocessing: the manifest's entries.
        assets: files that they name, with their contents.
        samples: inputs, in the form that vectors store, that touch every program; deterministic.
    """

    preprocessing: TextPreprocessing | ImagePreprocessing
    postprocessing: Classification | Embedding
    assets: dict[str, bytes]
    samples: tuple[dict[str, Any], ...]


def interface_for(checkpoint: Checkpoint, programs: tuple[Program, ...]) -> Interface:
    """The interface of a checkpoint's task."""
    return INTERFACES[checkpoint.task](checkpoint, programs)


def _text(checkpoint: Checkpoint, programs: tuple[Program, ...]) -> Interface:
    tokenizer = checkpoint.tokenizer_json
    lengths = sorted(program.inputs[0].shape[1] for program in programs)
    output = programs[0].outputs[0]
    return Interface(
        preprocessing=TextPreprocessing(
            TOKENIZER_FILE if tokenizer else None, checkpoint.pad_token_id, checkpoint.config.vocab_size
        ),
        postprocessing=(
            Classification(checkpoint.labels, checkpoint.activation)
            if checkpoint.task == "text-classification"
            else Embedding(dim=output.shape[-1], normalized=True)
        ),
        assets={TOKENIZER_FILE: tokenizer.encode()} if tokenizer else {},
        samples=(
            samples.texts(lengths) if tokenizer else tuple(samples.token_ids(lengths, checkpoint.config.vocab_size))
        ),
    )


def _image(checkpoint: Checkpoint, programs: tuple[Program, ...]) -> Interface:  # noqa: ARG001
    assets = {f"vectors/image_{index}.png": content for index, content in enumerate(samples.images())}
    return Interface(
        preprocessing=checkpoint.config.preprocessing,
        postprocessing=Classification(checkpoint.labels, checkpoint.activation),
        assets=assets,
        samples=tuple({"image": name} for name in assets),
    )


INTERFACES: dict[str, Callable[[Checkpoint, tuple[Program, ...]], Interface]] = {
    "text-classification": _text,
    "text-embedding": _text,
    "image-classification": _image,
}

TASKS = tuple(INTERFACES)


def check_task(task: str | None) -> None:
    """Refuse an unknown task by name, before anything is loaded.

    Raises:
        InputError: the task is not one of `TASKS`.
    """
    if task is not None and task not in INTERFACES:
        raise InputError(f"unknown task {task!r}: expected one of {', '.join(TASKS)}")
