"""Training data as batches: each model gets the same examples in its own encoding.

A text goes through each model's own tokenizer, an image through its own size and normalisation. Speech is taught token
by token, so that there both models must have one vocabulary.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from edgeformer.checkpoints.checkpoint import Checkpoint
from edgeformer.compress.augment import Augmentation, transform, variant, word_neighbours
from edgeformer.compress.batches import Encoded, encode
from edgeformer.compress.recipe import Augment, Recipe
from edgeformer.data.clips import read_speech_data
from edgeformer.data.labelled import data_labels, open_data, spread
from edgeformer.tasks.interface import audio_preprocessing
from edgeformer.tasks.task import SPEECH
from edgeformer_runtime.bundle.specs import ImagePreprocessing, to_levels
from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.decoding.prompt import build_prompt, check_language
from edgeformer_runtime.decoding.tokenizer import SpeechTokenizer
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.audio import open_audio
from edgeformer_runtime.preprocess.image import ImageEncoder
from edgeformer_runtime.preprocess.log_mel import LogMel, mel_filter_bank

NO_LABEL = -1

Inputs = tuple[Tensor, ...]
Samples = NDArray[np.float32]


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


@dataclass(frozen=True)
class TextData:
    """Sentences and the index of each one's label, NO_LABEL where nobody knows it."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class ImageData:
    """Encoded images (path or bytes) and the index of each one's label."""

    images: tuple[Any, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class SpeechClips:
    """Samples (float32, mono, at the model's rate) and what is said in them."""

    samples: tuple[Samples, ...]
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.samples)


Data = TextData | ImageData | SpeechClips


def read_data(data: str, checkpoint: Checkpoint) -> tuple[Data, tuple[str, ...]]:
    """Labelled data for a checkpoint's task, and notes on how it was read.

    Args:
        data: as `edgeformer eval` takes it.
        checkpoint: whose labels, or whose sound, the data must fit.

    Raises:
        InputError: there is none, or it does not fit.
    """
    if checkpoint.task == SPEECH:
        return _read_clips(data, checkpoint)
    kind = "image" if checkpoint.task.startswith("image") else "text"
    with open_data(data, kind, checkpoint.labels) as opened:
        labels = tuple(example.label for example in opened.examples)
        contents = tuple(example.read() for example in opened.examples)
    return (TextData(contents, labels) if kind == "text" else ImageData(contents, labels)), opened.notes


def data_sha256(data: Data) -> str:
    """SHA-256 over the examples and their answers."""
    digest = hashlib.sha256()
    if isinstance(data, TextData):
        digest.update(repr(data).encode())
    elif isinstance(data, ImageData):
        digest.update(repr(data.labels).encode())
        for image in data.images:
            digest.update(image.read_bytes() if isinstance(image, Path) else image)
    else:
        digest.update(repr(data.texts).encode())
        for samples in data.samples:
            digest.update(samples.tobytes())
    return digest.hexdigest()


def some_of(data: Data, limit: int | None) -> Data:
    """So many examples, spread evenly; all where there are fewer, or no limit."""
    if limit is None:
        return data
    if isinstance(data, SpeechClips):
        return SpeechClips(spread(data.samples, limit), spread(data.texts, limit))
    if isinstance(data, ImageData):
        return ImageData(spread(data.images, limit), spread(data.labels, limit))
    return TextData(spread(data.texts, limit), spread(data.labels, limit))


def labels_in(data: str) -> tuple[str, ...]:
    """The labels of a table of texts, sorted.

    Raises:
        InputError: it cannot be read, or has fewer than two.
    """
    labels = data_labels(data, "text")
    if len(labels) < 2:
        raise InputError(f"{data} has {len(labels)} labels: expected at least 2 to tell apart")
    return labels


def _read_clips(data: str, checkpoint: Checkpoint) -> tuple[SpeechClips, tuple[str, ...]]:
    """Clips that fit into one window; longer ones are left out, because nobody says which words lie where."""
    assert checkpoint.speech is not None
    rate, longest = checkpoint.speech.sample_rate, checkpoint.speech.window_seconds
    found = read_speech_data(data)
    samples, texts = [], []
    for clip in found.clips:
        with open_audio(clip.path, rate) as reader:
            sound = reader.read(longest * rate + 1)
        if len(sound) <= longest * rate:
            samples.append(sound)
            texts.append(clip.text)
    if not samples:
        raise InputError(f"{data} holds no clip of at most {longest} s: expected some that fit into the model's window")
    left_out = len(found.clips) - len(samples)
    notes = (
        (f"{left_out} of {len(found.clips)} clips are longer than {longest} s and are not used",) if left_out else ()
    )
    return SpeechClips(tuple(samples), tuple(texts)), (*found.notes, *notes)


def with_variants(data: TextData, count: int, teacher: Checkpoint, embeddings: Tensor, seed: int) -> TextData:
    """The sentences and, behind them, `count` variants of each without a label.

    Args:
        data: labelled sentences.
        count: variants of each.
        teacher: whose tokenizer and embeddings say which words are neighbours.
        embeddings: (V, C) its word embeddings.
        seed: of the variants.
    """
    if not count:
        return data
    rng = random.Random(seed)
    neighbours = word_neighbours(data.texts, text_tokenizer(teacher), embeddings)
    made = [variant(text, rng.choice(data.texts), neighbours, rng) for text in data.texts for _ in range(count)]
    return TextData((*data.texts, *made), (*data.labels, *([NO_LABEL] * len(made))))


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
    if isinstance(data, TextData):
        return TextCorpus(data, student, teacher, recipe.seq_len)
    if isinstance(data, ImageData):
        return ImageCorpus(data, student, teacher, augment or Augment())
    return SpeechCorpus(data, student, teacher, recipe.max_tokens, recipe.language)


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
        teacher = () if self._teacher is None else self._teacher.batch(rows).inputs
        return Batch(rows, self._student.batch(rows).inputs, teacher, self._labels[rows])


def text_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """A text model's tokenizer, neither padding nor cutting.

    Raises:
        InputError: it has none.
    """
    if checkpoint.tokenizer_json is None:
        raise InputError(f"{checkpoint.source.id} has no tokenizer: expected tokenizer.json or vocab.txt beside it")
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer_json)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


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


class SpeechCorpus:
    """Clips with their texts, teacher-forced: after each token the next one is the target."""

    fixed = True
    mismatched = 0  # both have one tokenizer, or there is no corpus

    def __init__(
        self, data: SpeechClips, student: Checkpoint, teacher: Checkpoint | None, max_tokens: int, language: str
    ) -> None:
        assert student.speech is not None and student.tokenizer_json is not None
        if teacher is not None and teacher.tokenizer_json != student.tokenizer_json:
            raise InputError(
                f"{teacher.source.id} and {student.source.id} have different tokenizers: speech is taught token by "
                "token, so both must have one vocabulary"
            )
        speech, tokenizer = student.speech, SpeechTokenizer(student.tokenizer_json, student.speech.tokens.end)
        rows = min(max_tokens, student.config.max_target_positions)
        options = TranscribeOptions(language=language if speech.tokens.languages else None)
        check_language(options, speech.tokens)
        prompt = build_prompt(speech.tokens, rows, options, language).tokens
        self._tokens: list[list[int]] = []
        self._prompt = len(prompt)
        for text in data.texts:
            answer = tokenizer.tokens(text) if text else []
            self._tokens.append([*prompt, *answer, speech.tokens.end][:rows])
        self._end = speech.tokens.end
        self._samples = data.samples
        self._mels = [_mel_of(each) for each in ([student] if teacher is None else [student, teacher])]
        self.lengths = torch.tensor([len(tokens) for tokens in self._tokens])

    def batch(self, rows: Tensor, rng: torch.Generator) -> Batch:  # noqa: ARG002
        """See `Corpus`; inputs are mel (B, n_mels, 2 T) and tokens (B, N), targets (B, N) the tokens that follow."""
        chosen = [torch.tensor(self._tokens[row]) for row in rows.tolist()]
        tokens = torch.nn.utils.rnn.pad_sequence([each[:-1] for each in chosen], True, self._end)
        targets = torch.nn.utils.rnn.pad_sequence([each[1:] for each in chosen], True, NO_LABEL)
        targets[:, : self._prompt - 1] = NO_LABEL  # what the prompt says is given
        inputs: list[Inputs] = []
        for mel in self._mels:
            sounds = [torch.from_numpy(mel(self._samples[row])) for row in rows.tolist()]
            inputs.append((torch.cat(sounds), tokens))
        return Batch(rows, inputs[0], inputs[1] if len(inputs) > 1 else (), targets)


def _mel_of(checkpoint: Checkpoint) -> Callable[[Samples], Samples]:
    """From samples (N,) to the whole window's spectrogram (1, n_mels, frames), as a model takes it."""
    assert checkpoint.speech is not None
    spec = audio_preprocessing(checkpoint.speech, checkpoint.config.num_mel_bins)
    mel = LogMel(spec, mel_filter_bank(spec.n_mels, spec.n_fft, spec.sample_rate))
    return partial(mel, frames=mel.window_samples // spec.hop_length)
