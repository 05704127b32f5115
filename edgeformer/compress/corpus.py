"""Training data as batches: each model gets the same examples in its own encoding.

A text goes through each model's own tokenizer, an image through its own size and normalisation.
"""

from __future__ import annotations

import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from edgeformer.checkpoints.checkpoint import Checkpoint
from edgeformer.compress.augment import Augmentation, transform, variant, word_neighbours
from edgeformer.compress.recipe import Augment, Recipe
from edgeformer.data.labelled import data_labels, open_data, spread
from edgeformer.tasks.task import TASKS
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.image import ImageEncoder
from edgeformer_runtime.registry import load_attribute
from edgeformer_runtime.tasks.vision import ImagePreprocessing, to_levels

NO_LABEL = -1
_SORT_WINDOW = 32
"""Batches that are sorted by length together: little padding, and still a random order."""
WORD_EMBEDDINGS = "embeddings.word_embeddings.weight"

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Batch:
    """Some examples.

    Attributes:
        rows: (B,) their numbers in the corpus.
        student: the student's inputs.
        teacher: the teacher's; empty without one.
        targets: (B,) labels or (B, N) tokens, int64; NO_LABEL where there is none.
    """

    rows: Tensor
    student: Inputs
    teacher: Inputs
    targets: Tensor


class Corpus(Protocol):
    """Examples that can be batched."""

    @property
    def lengths(self) -> Tensor:
        """(N,) of each example, by which batches are made of similar ones."""

    @property
    def fixed(self) -> bool:
        """Whether an example is the same each time, so that what a teacher says of it can be kept."""

    @property
    def mismatched(self) -> int:
        """How many examples the teacher gets cut into other tokens than the student."""

    def batch(self, rows: Tensor, rng: torch.Generator) -> Batch:
        """The examples of these rows, varied by `rng` where the corpus does that."""


def shuffled_rows(lengths: Tensor, batch_size: int, rng: torch.Generator | None = None) -> list[Tensor]:
    """The row numbers of one epoch's batches: random order, similar length within a batch.

    Args:
        lengths: (N,) of the examples.
        batch_size: of each batch but perhaps one.
        rng: source of the order; None: torch's own.
    """
    batches: list[Tensor] = []
    for window in torch.split(torch.randperm(len(lengths), generator=rng), batch_size * _SORT_WINDOW):
        batches += torch.split(window[lengths[window].argsort(stable=True)], batch_size)
    return [batches[number] for number in torch.randperm(len(batches), generator=rng).tolist()]


class Data(ABC):
    """Examples of a task with their answers."""

    @abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @abstractmethod
    def sha256(self) -> str:
        """SHA-256 over the examples and their answers."""

    @abstractmethod
    def limited(self, count: int) -> Data:
        """So many examples, spread evenly; all where there are fewer."""

    @abstractmethod
    def corpus(self, student: Checkpoint, teacher: Checkpoint | None, recipe: Recipe, augment: Augment) -> Corpus:
        """Batches for a student and, where there is one, its teacher; see `make_corpus`."""

    def with_variants(self, count: int, teacher: Checkpoint, state: Mapping[str, Tensor], seed: int) -> Data:  # noqa: ARG002
        """The examples and, behind them, `count` variants of each without a label; see `TextData`.

        Raises:
            InputError: no variants are made of such examples.
        """
        raise InputError("augment.variants is for texts: expected it left out")


@dataclass(frozen=True)
class TextData(Data):
    """Sentences and the index of each one's label, NO_LABEL where nobody knows it."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def sha256(self) -> str:
        """See `Data`."""
        return hashlib.sha256(repr(self).encode()).hexdigest()

    def limited(self, count: int) -> TextData:
        """See `Data`."""
        return TextData(spread(self.texts, count), spread(self.labels, count))

    def corpus(self, student: Checkpoint, teacher: Checkpoint | None, recipe: Recipe, augment: Augment) -> Corpus:  # noqa: ARG002
        """See `Data`."""
        return TextCorpus(self, student, teacher, recipe.seq_len)

    def with_variants(self, count: int, teacher: Checkpoint, state: Mapping[str, Tensor], seed: int) -> TextData:
        """The sentences and, behind them, `count` variants of each without a label.

        Args:
            count: variants of each.
            teacher: whose tokenizer and word embeddings say which words are neighbours.
            state: of the teacher's module.
            seed: of the variants.
        """
        rng = random.Random(seed)
        embeddings = next(tensor for name, tensor in state.items() if name.endswith(WORD_EMBEDDINGS))  # (V, C)
        neighbours = word_neighbours(self.texts, text_tokenizer(teacher), embeddings)
        made = [variant(text, rng.choice(self.texts), neighbours, rng) for text in self.texts for _ in range(count)]
        return TextData((*self.texts, *made), (*self.labels, *([NO_LABEL] * len(made))))


@dataclass(frozen=True)
class ImageData(Data):
    """Encoded images (path or bytes) and the index of each one's label."""

    images: tuple[Any, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.images)

    def sha256(self) -> str:
        """See `Data`."""
        digest = hashlib.sha256(repr(self.labels).encode())
        for image in self.images:
            digest.update(image.read_bytes() if isinstance(image, Path) else image)
        return digest.hexdigest()

    def limited(self, count: int) -> ImageData:
        """See `Data`."""
        return ImageData(spread(self.images, count), spread(self.labels, count))

    def corpus(self, student: Checkpoint, teacher: Checkpoint | None, recipe: Recipe, augment: Augment) -> Corpus:  # noqa: ARG002
        """See `Data`."""
        return ImageCorpus(self, student, teacher, augment)


def read_data(data: str, checkpoint: Checkpoint) -> tuple[Data, tuple[str, ...]]:
    """Labelled data for a checkpoint's task, and notes on how it was read.

    Args:
        data: as `edgeformer eval` takes it.
        checkpoint: whose labels, or whose audio, the data must fit.

    Raises:
        InputError: there is none, or it does not fit.
    """
    training = TASKS[checkpoint.task].training
    assert training is not None  # `model.open_model` refuses other tasks
    found: tuple[Data, tuple[str, ...]] = load_attribute(training.read)(data, checkpoint)
    return found


def read_texts(data: str, checkpoint: Checkpoint) -> tuple[TextData, tuple[str, ...]]:
    """Texts with a label each, as `open_data` reads them."""
    texts, labels, notes = _read_labelled(data, "text", checkpoint)
    return TextData(texts, labels), notes


def read_images(data: str, checkpoint: Checkpoint) -> tuple[ImageData, tuple[str, ...]]:
    """Images with a label each, as `open_data` reads them."""
    images, labels, notes = _read_labelled(data, "image", checkpoint)
    return ImageData(images, labels), notes


def _read_labelled(
    data: str, kind: str, checkpoint: Checkpoint
) -> tuple[tuple[Any, ...], tuple[int, ...], tuple[str, ...]]:
    """Inputs, labels and notes."""
    with open_data(data, kind, checkpoint.labels) as opened:
        labels = tuple(example.label for example in opened.examples)
        return tuple(example.read() for example in opened.examples), labels, opened.notes


def labels_in(data: str) -> tuple[str, ...]:
    """The labels of a table of texts, sorted.

    Raises:
        InputError: it cannot be read, or has fewer than two.
    """
    labels = data_labels(data, "text")
    if len(labels) < 2:
        raise InputError(f"{data} has {len(labels)} labels: expected at least 2 to tell apart")
    return labels


def make_corpus(
    data: Data, student: Checkpoint, teacher: Checkpoint | None, recipe: Recipe, augment: Augment | None = None
) -> Corpus:
    """Batches of data for a student and, where there is one, its teacher.

    Args:
        data: for the task of both.
        student, teacher: whose encodings are made.
        recipe: lengths, and the language of speech.
        augment: how images are varied; None: not at all.

    Raises:
        InputError: the two cannot learn from the same data.
    """
    return data.corpus(student, teacher, recipe, augment or Augment())


class TextCorpus:
    """Sentences, as short in each batch as the longest of them."""

    fixed = True

    def __init__(self, data: TextData, student: Checkpoint, teacher: Checkpoint | None, seq_len: int) -> None:
        self._student = _encoded(student, data.texts, seq_len)
        self._teacher = None if teacher is None else _encoded(teacher, data.texts, seq_len)
        self._labels = torch.tensor(data.labels)
        self.lengths = self._student.lengths
        self.mismatched = 0
        if teacher is not None and self._teacher is not None:
            self.mismatched = _mismatched(student, self._student, teacher, self._teacher)

    def batch(self, rows: Tensor, rng: torch.Generator) -> Batch:  # noqa: ARG002
        """See `Corpus`; inputs are ids, mask and token types, (B, S) int32 each."""
        teacher = () if self._teacher is None else self._teacher.inputs(rows)
        return Batch(rows, self._student.inputs(rows), teacher, self._labels[rows])


def text_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """A text model's tokenizer, neither padding nor cutting.

    Raises:
        InputError: it has none.
    """
    if checkpoint.tokenizer_json is None:
        raise InputError(f"{checkpoint.source.id} has no tokenizer: expected tokenizer.json or vocab.txt in its folder")
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer_json)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


@dataclass(frozen=True)
class Encoded:
    """Token ids (N, S) int32, padded with 0, and the length (N,) int64 of each row."""

    ids: Tensor
    lengths: Tensor

    def inputs(self, rows: Tensor) -> Inputs:
        """Ids, mask and token types, (B, S) int32 each, of these rows (B,), as short as the longest of them."""
        lengths = self.lengths[rows]
        input_ids = self.ids[rows, : int(lengths.max())]
        mask = (torch.arange(input_ids.shape[1]) < lengths[:, None]).int()
        return input_ids, mask, torch.zeros_like(input_ids)


def encode(tokenizer: Tokenizer, texts: Sequence[str], seq_len: int) -> Encoded:
    """Token ids of each text, cut to seq_len with [SEP] kept."""
    rows = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    cut = [ids if len(ids) <= seq_len else [*ids[: seq_len - 1], ids[-1]] for ids in rows]
    padded = nn.utils.rnn.pad_sequence([torch.tensor(ids, dtype=torch.int32) for ids in cut], batch_first=True)
    return Encoded(padded, torch.tensor([len(ids) for ids in cut]))


def _encoded(checkpoint: Checkpoint, texts: Sequence[str], seq_len: int) -> Encoded:
    longest = checkpoint.config.max_position_embeddings
    encoded = encode(text_tokenizer(checkpoint), texts, min(seq_len, longest))
    if checkpoint.pad_token_id == 0:
        return encoded
    padding = torch.arange(encoded.ids.shape[1]) >= encoded.lengths[:, None]
    return replace(encoded, ids=encoded.ids.masked_fill(padding, checkpoint.pad_token_id))


def _mismatched(student: Checkpoint, own: Encoded, teacher: Checkpoint, theirs: Encoded) -> int:
    """How many texts have other word pieces, or the same ones at other places."""
    if own.ids.shape != theirs.ids.shape:
        return int((own.lengths != theirs.lengths).sum()) or len(own.lengths)
    pieces, ids = text_tokenizer(student), text_tokenizer(teacher)
    at_teacher = [ids.token_to_id(pieces.id_to_token(number) or "") for number in range(pieces.get_vocab_size())]
    same_piece = torch.tensor([NO_LABEL if number is None else number for number in at_teacher])
    seen = torch.arange(own.ids.shape[1]) < own.lengths[:, None]
    differs = (same_piece[own.ids.long()] != theirs.ids) & seen
    return int((differs.any(dim=1) | (own.lengths != theirs.lengths)).sum())


class ImageCorpus:
    """Images, decoded once to the student's size; a teacher of another size sees them enlarged or reduced."""

    def __init__(self, data: ImageData, student: Checkpoint, teacher: Checkpoint | None, augment: Augment) -> None:
        spec: ImagePreprocessing = student.config.preprocessing
        encoder = ImageEncoder(spec)
        self._levels = torch.from_numpy(np.concatenate([to_levels(encoder(image), spec) for image in data.images]))
        self._labels = torch.tensor(data.labels)
        self._specs = [spec] if teacher is None else [spec, teacher.config.preprocessing]
        self._augmentation = (
            Augmentation(augment.shift, augment.zoom, augment.rotation_degrees, augment.jitter, augment.cutout)
            if augment.of_images
            else None
        )
        self.fixed = self._augmentation is None
        self.mismatched = 0
        self.lengths = torch.ones(len(data.images), dtype=torch.int64)

    def batch(self, rows: Tensor, rng: torch.Generator) -> Batch:
        """See `Corpus`; inputs are normalised pixels (B, 3, H, W)."""
        pixels = self._levels[rows].float() / 255
        if self._augmentation is not None:
            pixels = transform(pixels, self._specs[0].height, self._augmentation, rng)
        inputs = [(normalised(pixels, spec),) for spec in self._specs]
        return Batch(rows, inputs[0], inputs[1] if len(inputs) > 1 else (), self._labels[rows])


def normalised(pixels: Tensor, spec: ImagePreprocessing) -> Tensor:
    """(B, 3, h, w) of 0 to 1 to a model's input (B, 3, H, W)."""
    if pixels.shape[2:] != (spec.height, spec.width):
        size = (spec.height, spec.width)
        pixels = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False, antialias=True)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (spec.mean, spec.std))
    return (pixels - mean) / std
