"""Checkpoints: a source's weights, config, task, labels and tokenizer, read strictly."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgeformer.attention import APPROXIMATE_KERNELS, AttentionKernel
from edgeformer.attention.kernels import MASK_VALUE, ScoreRange
from edgeformer.checkpoints import ctranslate2, weights
from edgeformer.checkpoints.fields import AUDIO, PREPROCESSOR_FILE, TEXT, field_notes
from edgeformer.checkpoints.sentence import (
    NO_PROMPT,
    SentenceFiles,
    check_no_prompt,
    chosen_prompt,
    read_sentence_files,
    text_notes,
    with_prompt,
)
from edgeformer.checkpoints.sources import CONFIG_FILE, resolve_source
from edgeformer.checkpoints.task import activation_of, label_notes, labels_of, read_labels, task_of
from edgeformer.checkpoints.tokenizer_options import TOKENIZER_CONFIG
from edgeformer.checkpoints.tokenizers import lower_cased, read_tokenizer, vocabulary_size
from edgeformer.checkpoints.weights import check_sizes, check_weight_files
from edgeformer.models.config import read_object
from edgeformer.models.family import FAMILIES, Family, Program, ProgramOptions, family_for
from edgeformer.models.pooling import MEAN_HEAD, EmbeddingHead
from edgeformer.models.score_range import exact_masks, set_mask
from edgeformer.models.text import TextConfig, TextEmbedder, TextEncoder
from edgeformer.models.whisper.generation import SpeechSettings
from edgeformer.tasks.task import TASKS
from edgeformer_runtime.bundle.manifest import Source
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.interface import StrPath
from edgeformer_runtime.registry import load_attribute

_NO_LENGTH = 1_000_000
_LISTED_KEYS = 20
"""Keys that an error message lists of each kind; more are counted."""

_FRONT_MATTER_BYTES = 64 << 10
_LICENSE = re.compile(r"^license:\s*[\"']?([\w.+-]+)", re.MULTILINE)

ATTENTION_KEY = "attention_kernel"
"""Of config.json. Public loaders do not know it, and compute exact attention."""


@dataclass(frozen=True)
class Checkpoint:
    """A public checkpoint, understood but with its weights still on disk.

    Attributes:
        source: id ("zoo:<name>", "hub:<org>/<name>", "local:<folder name>"), revision and weight hash.
        folder: where its files are on this machine, or the weight file alone; never recorded in a bundle.
        weight_files: the files that hold the weights.
        family: the implementation.
        raw: its config.json.
        config: what the family's `parse_config` gave: its functions take it.
        task: one of the family's tasks.
        labels: for classification, in the order of the logits; else empty.
        activation: "softmax" or "sigmoid", from logits to scores.
        license: as the model card states it, or None.
        tokenizer_json: for texts and speech, a tokenizers file's text, or None.
        pad_token_id: for texts, what fills a bucket.
        head: for embedders, how the tokens become one vector.
        dense_files: the weights of its dense layers, one file for each.
        longest: for texts, the tokens behind which the checkpoint's own library cuts them; None: its positions.
        speech: for speech, what surrounds the weights; else None.
        notes: one line for each thing about its files that a user may want to know.
    """

    source: Source
    folder: Path
    weight_files: tuple[Path, ...]
    family: Family[Any]
    raw: Mapping[str, Any]
    config: Any
    task: str
    labels: tuple[str, ...]
    activation: str
    license: str | None
    tokenizer_json: str | None
    pad_token_id: int
    head: EmbeddingHead = MEAN_HEAD
    dense_files: tuple[Path, ...] = ()
    longest: int | None = None
    speech: SpeechSettings | None = None
    notes: tuple[str, ...] = ()

    @property
    def attention(self) -> str | None:
        """The approximate kernel that it was distilled into, which its config.json names; None: attention is exact."""
        found: str | None = self.raw.get(ATTENTION_KEY)
        return found

    def load_weights(self) -> dict[str, Tensor]:
        """All tensors by their public names, floating point ones as float32."""
        return weights.load_weights(self.weight_files)

    def load_state(self) -> dict[str, Tensor]:
        """All tensors by the names that the family's modules give them, floating point ones as float32."""
        state = self.family.rename(self.load_weights())
        for number, file in enumerate(self.dense_files):
            for name, tensor in weights.load_weights((file,)).items():
                state[f"sentence.dense.{number}.{name.removeprefix('linear.')}"] = tensor
        return state

    def programs(self, module: nn.Module, options: ProgramOptions) -> tuple[Program, ...]:
        """The programs of its task, on a module that `load_module` gave."""
        return TASKS[self.task].programs(self, self.family.programs(module, self.config, options))


@dataclass(frozen=True)
class KeyReport:
    """What became of a checkpoint's tensors: `loaded` went into the module, `unused` belong to heads of other tasks.

    `about_files` are the checkpoint's own notes. `scores` is the range of its attention scores.
    """

    loaded: tuple[str, ...]
    unused: tuple[str, ...]
    about_files: tuple[str, ...] = ()
    scores: ScoreRange = field(default_factory=ScoreRange)

    @property
    def notes(self) -> tuple[str, ...]:
        """One line for each thing that a user may want to know."""
        if not self.unused:
            return self.about_files
        return (
            *self.about_files,
            f"{len(self.unused)} tensors of the checkpoint have no use in this task: {_listed(self.unused, 3)}",
        )

    def problems(self, activations: str) -> tuple[str, ...]:
        """Why activations of a type ("float32", "float16", ...) cannot hold the model's attention scores."""
        if not self.scores.hides:
            return (
                f"attention scores are up to {self.scores.spread:.3g} apart: no mask hides padding from them at any "
                "precision: the checkpoint is damaged or its training diverged",
            )
        if activations != "float16" or self.scores.fits_float16:
            return ()
        return (
            f"attention scores are up to {self.scores.spread:.0f} apart and {self.scores.largest:.0f} large: no mask "
            "hides padding from them in float16, so expected fp32 or int8",
        )


def open_checkpoint(
    source: StrPath,
    revision: str | None = None,
    task: str | None = None,
    labels_file: StrPath | None = None,
    prompt: str | None = None,
    language: str | None = None,
    new_head: bool = False,
    labels: tuple[str, ...] | None = None,
) -> Checkpoint:
    """Read everything about a checkpoint but its weights.

    Args:
        source: a folder, a name in the zoo, or a hub id.
        revision: branch, tag or commit of a hub id.
        task: one of the family's tasks; None: what the checkpoint was made for.
        labels_file: a JSON list, or one label per line, in place of the config's id2label.
        prompt: of an embedder that has prompts: the name of the one that is built into its tokenizer, or "none"; None:
            the one that its own library puts before every text.
        language: of speech: the one that is transcribed, or "any"; None: as the checkpoint says.
        new_head: the caller replaces the head: what the checkpoint's own is for does not matter.
        labels: in place of the config's id2label and of a file: those of a bundle that was made from it.

    Raises:
        InputError: what cannot be used, and what to do about it.
    """
    found = resolve_source(source, revision)
    # A weight file alone, as timm publishes them, is described by its own shapes.
    raw = _config_of(found.folder) if found.folder.is_dir() else _described(found.folder)
    family = family_for(raw, found.folder, task)
    files = weights.find_weight_files(found.folder)
    check_weight_files(files)
    check_sizes(family, raw, files)
    notes = field_notes(found, raw, TASKS[family.tasks[0]].takes, family.adapted)
    config = family.parse_config(raw)
    sentence = read_sentence_files(found, raw) if len(family.tasks) > 1 else SentenceFiles()
    task = task_of(family, raw, files, task, sentence, new_head)
    check_attention(raw, task)
    record = TASKS[task]
    reads_text = record.takes == TEXT or record.beside_texts
    embeds = record.pooled and not new_head
    dense_files = sentence.dense_files if embeds else ()
    check_weight_files(dense_files)
    if prompt not in (None, NO_PROMPT) and not embeds:
        raise InputError(f"prompts belong to sentence embedders, and the task is {task}: leave --prompt out")
    if language is not None and record.takes != AUDIO:
        raise InputError(f"a language belongs to speech-recognition, and the task is {task}: leave --language out")
    tokenizer = None
    if reads_text:
        chosen = chosen_prompt(sentence, prompt) if embeds else None
        tokenizer = _text_tokenizer(found.folder, config, sentence, chosen)
        notes += text_notes(sentence, tokenizer, prompt, config) if not new_head else ()
        if sentence.is_cross_encoder and prompt is None and not new_head:
            check_no_prompt(sentence)
    elif record.writes:
        tokenizer = _checked_tokenizer(read_tokenizer(found.folder, 0, config.vocab_size), config.vocab_size)
    given = read_labels(Path(labels_file)) if labels_file is not None else labels
    named = labels_of(family, task, raw, given)
    notes += label_notes(named, raw) if given is None else ()
    speech = None if family.read_extras is None else family.read_extras(found.folder, config, raw, tokenizer, language)
    return Checkpoint(
        source=Source(found.id, found.revision, weights.weights_sha256((*files, *dense_files))),
        folder=found.folder,
        weight_files=files,
        family=family,
        raw=raw,
        config=config if speech is None else speech.config,
        task=task,
        labels=named,
        activation=activation_of(task, raw),
        license=_license(found.root),
        tokenizer_json=tokenizer,
        pad_token_id=_pad_token_id(raw, config) if reads_text else 0,
        head=sentence.head if embeds else MEAN_HEAD,
        dense_files=dense_files,
        longest=_longest(found.folder, sentence) if reads_text else None,
        speech=None if speech is None else speech.settings,
        notes=notes if speech is None else (*notes, *speech.notes),
    )


def capped(
    checkpoint: Checkpoint, lengths: Iterable[int], asked: bool = True
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Sequence lengths that do not go beyond where the checkpoint's own library cuts texts, and a note on the others.

    The largest bucket is where a bundle cuts, so a longer one would see what the checkpoint never did. Lengths that
    nobody asked for end where the model's positions do, too, without a note.
    """
    lengths, most = tuple(lengths), checkpoint.longest
    if not asked:
        known = [end for end in (most, getattr(checkpoint.config, "max_position_embeddings", None)) if end is not None]
        return tuple(dict.fromkeys(min(length, *known) for length in lengths)) if known else lengths, ()
    beyond = [length for length in lengths if most is not None and length > most]
    if most is None or not beyond:
        return lengths, ()
    kept = tuple(dict.fromkeys(min(length, most) for length in lengths))
    return kept, (
        f"the checkpoint cuts texts at {most} tokens (max_seq_length, or model_max_length of {TOKENIZER_CONFIG}), so "
        f"the lengths {', '.join(map(str, beyond))} became {most}",
    )


def check_attention(raw: Mapping[str, Any], task: str) -> None:
    """Refuse a config.json that names a kernel which nothing is distilled into.

    Raises:
        InputError: names what it may name, or the task that it is not for.
    """
    found = raw.get(ATTENTION_KEY)
    if found is not None and found not in APPROXIMATE_KERNELS:
        known = ", ".join(APPROXIMATE_KERNELS)
        raise InputError(f"config.json: {ATTENTION_KEY} must be one of {known}, or be left out, found {shorten(found)}")
    check_approximate(found, task)


def check_approximate(kernel: str | None, task: str) -> None:
    """Refuse approximate attention for anything but texts.

    Raises:
        InputError: names the task.
    """
    if kernel in APPROXIMATE_KERNELS and TASKS[task].takes != TEXT:
        raise InputError(f"the attention kernel {kernel} is for long texts, found the task {task}: choose another")


def load_module(
    checkpoint: Checkpoint, attention: AttentionKernel, state: Mapping[str, Tensor] | None = None
) -> tuple[nn.Module, KeyReport]:
    """Build the checkpoint's module and fill it, every tensor accounted for.

    Args:
        checkpoint: an opened checkpoint.
        attention: the kernel that the module will use.
        state: what the checkpoint's `load_state` gave, for who builds several modules; the module has copies. None:
            the weights are read now.

    Returns:
        The module in eval mode, float32 and contiguous, and the report of its keys.

    Raises:
        InputError: tensors that are missing, unexpected or of another shape, all of them in one line.
    """
    state = checkpoint.load_state() if state is None else state
    task = TASKS[checkpoint.task]
    module = checkpoint.family.build(checkpoint.config, task.built_as, len(checkpoint.labels), attention)
    if isinstance(module, TextEmbedder):
        module.set_head(checkpoint.head, checkpoint.config.max_position_embeddings)
    expected = module.state_dict()
    leftover = [name for name in state if name not in expected]
    unused = tuple(sorted(name for name in leftover if _is_unused(name, checkpoint)))
    problems = _key_problems(expected, state, unused)
    if problems:
        headless = task.heads and not any(task.heads[0] in name for name in state)
        hint = f"; {task.headless}" if headless else ""
        advice = weights.prefix_advice(expected.keys() - state.keys(), leftover)
        raise InputError(f"{checkpoint.source.id} does not fit its config: {advice or '; '.join(problems) + hint}")
    module.load_state_dict({name: state[name] for name in expected})
    with exact_masks(module):  # what mask the model needs is seen only when it computes right
        checkpoint.family.fit(module, checkpoint.config)
    silenced = _silence_padding(module, checkpoint.pad_token_id)
    scores = _scores(module, checkpoint)
    if attention in APPROXIMATE_KERNELS.values() and scores.mask != MASK_VALUE:
        raise InputError(
            f"attention scores are up to {scores.spread:.0f} apart, and approximate attention hides padding from up to "
            f"{-MASK_VALUE:.0f}: choose an exact kernel"
        )
    notes = (*checkpoint.notes, *silenced, *set_mask(module, scores))
    return module, KeyReport(tuple(sorted(expected)), unused, notes, scores)


def _silence_padding(module: nn.Module, pad_token_id: int) -> tuple[str, ...]:
    for encoder in module.modules():
        if isinstance(encoder, TextEncoder) and encoder.silence_padding(pad_token_id):
            return (
                f"the embedding of the padding token {pad_token_id} is taken as 0: else the last token would see it, "
                "and answers would depend on the padding behind a text",
            )
    return ()


def _scores(module: nn.Module, checkpoint: Checkpoint) -> ScoreRange:
    """The range on samples of the attention scores that a mask is added to."""
    entry = TASKS[checkpoint.task].scores
    found: ScoreRange = ScoreRange() if entry is None else load_attribute(entry)(module, checkpoint)
    return found


def _is_unused(name: str, checkpoint: Checkpoint) -> bool:
    """A head of other tasks. What a task itself would need is not unused there: the config contradicts it."""
    heads = TASKS[checkpoint.task].heads
    return checkpoint.family.is_unused(name) and not any(head in f".{name}" for head in heads)


def _key_problems(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], unused: Iterable[str]) -> list[str]:
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys() - set(unused))
    misshapen = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & state.keys())
        if state[name].shape != expected[name].shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
    return [f"{len(names)} {kind} ({_listed(names)})" for kind, names in kinds if names]


def _listed(names: Iterable[str], most: int = _LISTED_KEYS) -> str:
    names = list(names)
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _config_of(folder: Path) -> dict[str, Any]:
    """config.json; CTranslate2's says nothing of the architecture, which is in its model file."""
    raw = read_object(folder / CONFIG_FILE)
    pixels = folder / PREPROCESSOR_FILE
    if "architecture" in raw and pixels.is_file():
        # transformers' wrapper around timm's models prepares pixels by this file where it is.
        raw["pretrained_cfg"] = read_object(pixels).get("pretrained_cfg", raw.get("pretrained_cfg"))
    stated = "model_type" in raw or "architecture" in raw
    if stated or not (folder / ctranslate2.WEIGHT_FILE).is_file():
        return raw
    return ctranslate2.describe(folder, raw)


def _described(file: Path) -> dict[str, Any]:
    check_weight_files((file,))
    shapes = weights.weight_shapes((file,))
    for family in FAMILIES.values():
        described = None if family.describe_weights is None else family.describe_weights(shapes)
        if described is not None:
            return described
    raise InputError(f"{file.name} alone does not say what model it is: expected a folder with {CONFIG_FILE}")


def _text_tokenizer(folder: Path, config: TextConfig, sentence: SentenceFiles, prompt: str | None) -> str | None:
    """The tokenizer of a text model, with what sentence-transformers does before it."""
    tokenizer = read_tokenizer(folder, config.type_vocab_size, config.vocab_size)
    if tokenizer is not None and sentence.lower_case:
        tokenizer = lower_cased(tokenizer)
    if prompt is not None:
        if tokenizer is None:
            raise InputError("--prompt needs a tokenizer, and the checkpoint has none: leave it out")
        tokenizer = with_prompt(tokenizer, prompt)
    return _checked_tokenizer(tokenizer, config.vocab_size)


def _longest(folder: Path, sentence: SentenceFiles) -> int | None:
    """Where the checkpoint's library cuts; a model_max_length beyond all models says that nobody set it."""
    if sentence.longest is not None:
        return sentence.longest
    path = folder / TOKENIZER_CONFIG
    stated = read_object(path) if path.is_file() else {}
    value = stated.get("model_max_length", stated.get("max_len"))  # its name of old
    if value is None or (isinstance(value, int | float) and value > _NO_LENGTH):
        return None
    if type(value) is not int or value < 2:
        raise InputError(f"{TOKENIZER_CONFIG}: model_max_length must be an integer above 1, found {shorten(value)}")
    return value


def _checked_tokenizer(tokenizer: str | None, vocab_size: int) -> str | None:
    if tokenizer is not None and vocabulary_size(tokenizer) > vocab_size:
        raise InputError(
            f"the tokenizer gives {vocabulary_size(tokenizer)} ids and the model has {vocab_size} embeddings: resize "
            "the model's with resize_token_embeddings(), or take the tokenizer that it was trained with"
        )
    return tokenizer


def _license(folder: Path) -> str | None:
    """The licence in the front matter of the model card."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    with card.open("rb") as file:
        parts = file.read(_FRONT_MATTER_BYTES).decode("utf-8", "replace").split("---", 2)
    stated = _LICENSE.search(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    return stated.group(1) if stated else None


def _pad_token_id(raw: Mapping[str, Any], config: TextConfig) -> int:
    value = raw.get("pad_token_id", getattr(config, "pad_token_id", 0))
    if value is None:
        return 0  # any id does, since padding is hidden from attention
    most = config.vocab_size
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < most:
        raise InputError(f"config.json: pad_token_id must be an id below vocab_size {most}, found {shorten(value)}")
    return value
