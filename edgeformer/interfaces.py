"""What a bundle holds besides the model, by task: how raw input becomes tensors, and outputs an answer."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from edgeformer.checkpoints import Checkpoint
from edgeformer.programs import Program
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.manifest import Classification, Embedding, TextPreprocessing

TOKENIZER_FILE = "tokenizer.json"

# What keyboards and other apps send: plain sentences, a pair, nothing, other scripts, emoji, control characters.
TEXTS: tuple[dict[str, Any], ...] = (
    {"text": "turn the lights off in the living room"},
    {"text": "What's the weather like in Zürich tomorrow?", "pair": "It will rain until noon."},
    {"text": ""},
    {"text": "naïve café \u2014 \u201cquoted\u201d, 3.14 & 50 % off! \U0001f600\U0001f44d\U0001f3fd"},
    {"text": "שלום مرحبا 你好 สวัสดี"},
    {"text": "tab\there\nnew line\u0000nul \u200bzero width"},
)
FILLER = "please remind me to call the bank about my savings account before the meeting on friday afternoon"


@dataclass(frozen=True)
class Interface:
    """The parts of a bundle around the model.

    Attributes:
        preprocessing, postprocessing: the manifest's entries.
        assets: files that they name, with their contents.
        samples: inputs, in the form that vectors store, that touch every program; deterministic.
    """

    preprocessing: TextPreprocessing
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
            TEXTS + tuple(_texts_of_each_length(lengths))
            if tokenizer
            else tuple(_token_ids_of_each_length(lengths, checkpoint.config.vocab_size))
        ),
    )


def _texts_of_each_length(lengths: list[int]) -> Iterator[dict[str, Any]]:
    """For each bucket a text that is too long for the bucket below and fits: three quarters of the length in words."""
    for length in lengths:
        yield {"text": " ".join(itertools.islice(itertools.cycle(FILLER.split()), length * 3 // 4))}


def _token_ids_of_each_length(lengths: list[int], vocab_size: int) -> Iterator[dict[str, Any]]:
    """For each bucket, sequences that fill it by a little over a half, by three quarters and wholly."""
    generator = random.Random(0)
    for length in lengths:
        for count in (length // 2 + 1, length * 3 // 4, length):
            yield {"token_ids": [generator.randrange(vocab_size) for _ in range(count)]}


INTERFACES: dict[str, Callable[[Checkpoint, tuple[Program, ...]], Interface]] = {
    "text-classification": _text,
    "text-embedding": _text,
}

TASKS = tuple(INTERFACES)


def check_task(task: str | None) -> None:
    """Refuse an unknown task by name, before anything is loaded.

    Raises:
        InputError: the task is not one of `TASKS`.
    """
    if task is not None and task not in INTERFACES:
        raise InputError(f"unknown task {task!r}: expected one of {', '.join(TASKS)}")
