"""New students: a config of their own, a vocabulary cut to what they need, weights from the teacher where they fit."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from edgeformer.checkpoints.checkpoint import Checkpoint
from edgeformer.checkpoints.tokenizers import bert_template
from edgeformer.checkpoints.weights import check_student
from edgeformer.compress.corpus import WORD_EMBEDDINGS, Data, TextData
from edgeformer.compress.model import Model, build_model, classifier_config, stacks, uniform
from edgeformer.models.config import LAYER_WIDTH_KEYS
from edgeformer.models.family import FAMILIES, family_for
from edgeformer.tasks.task import TASKS
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.registry import load_attribute

EMBEDDING_STD = 0.3
"""Of word embeddings; those of positions and token types begin at a tenth of it, so that words count first."""


@dataclass(frozen=True)
class NewStudent:
    """A student that has learned nothing yet, and how many of its tensors came from the teacher."""

    model: Model
    taken: int
    total: int


def make_student(fields: Mapping[str, Any], teacher: Model, data: Data, seed: int) -> NewStudent:
    """A student of a public config.

    Args:
        fields: of its config.json. Where they name no other architecture than the teacher's, they change the teacher's.
        teacher: whose labels, tokenizer and weights it starts with.
        data: of texts, whose pieces a smaller vocabulary keeps.
        seed: of the weights that are not the teacher's.

    Raises:
        InputError: a config that cannot be honoured, or one of another task than the teacher's.
    """
    own = teacher.checkpoint
    task = TASKS[own.task]
    raw = _config(fields, own)
    family = family_for(raw)
    if task.built_as not in family.tasks:
        raise InputError(f"student: {family.name} cannot do {own.task}, and the teacher does: name another model_type")
    check_student(family, raw, sum(tensor.numel() for tensor in teacher.module.parameters()))
    kept: list[int] | None = None
    tokenizer = own.tokenizer_json
    if isinstance(data, TextData) and int(raw.get("vocab_size", own.config.vocab_size)) != own.config.vocab_size:
        tokenizer, kept = _smaller(own, data.texts, raw["vocab_size"])
        raw = {**raw, "pad_token_id": 0}
    checkpoint = replace(
        own,
        family=family,
        raw=raw,
        labels=family.parse_labels(raw) if task.labelled else own.labels,
        tokenizer_json=tokenizer,
        pad_token_id=0 if kept is not None else own.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = replace(build_model(checkpoint), own_tokenizer=kept is not None)
        taken = initialise(model.module, teacher.module, kept)
    return NewStudent(model, taken, len(model.module.state_dict()))


def _config(fields: Mapping[str, Any], teacher: Checkpoint) -> dict[str, Any]:
    """The student's config.json."""
    same = all(fields.get(key, teacher.raw.get(key)) == teacher.raw.get(key) for key in ("model_type", "architecture"))
    base = {key: value for key, value in teacher.raw.items() if key not in LAYER_WIDTH_KEYS} if same else {}
    raw = {**base, **fields}
    training = TASKS[teacher.task].training
    if training is None or training.student is None:
        return raw
    config: dict[str, Any] = load_attribute(training.student)(raw, same, teacher)
    return config


def text_student(raw: Mapping[str, Any], same: bool, teacher: Checkpoint) -> dict[str, Any]:  # noqa: ARG001
    """The config.json of a text classifier with the teacher's labels.

    Args:
        raw: its fields, the teacher's among them where it is of one architecture with it.
        same: whether it is.
        teacher: whose labels it gets.

    Raises:
        InputError: an architecture without text classifiers.
    """
    known = dict.fromkeys(name for family in FAMILIES.values() for name in family.classifiers)
    if raw.get("model_type") not in known:
        raise InputError(f"student: model_type must be one of {', '.join(known)}, found {raw.get('model_type')!r}")
    return classifier_config(family_for(raw), {"vocab_size": teacher.config.vocab_size, **raw}, teacher.labels)


def image_student(raw: Mapping[str, Any], same: bool, teacher: Checkpoint) -> dict[str, Any]:
    """The config.json of an image classifier with the teacher's labels; see `text_student`."""
    return dict(raw) if same else {**raw, "num_classes": len(teacher.labels), "label_names": list(teacher.labels)}


def _smaller(teacher: Checkpoint, texts: Sequence[str], size: Any) -> tuple[str, list[int]]:
    """A tokenizer of `size` pieces and their ids at the teacher."""
    if not isinstance(size, int) or not 0 < size < teacher.config.vocab_size:
        raise InputError(
            f"student: vocab_size must be at most the teacher's {teacher.config.vocab_size}, found {size!r}"
        )
    if teacher.tokenizer_json is None:
        raise InputError(f"{teacher.source.id} has no tokenizer that could be cut to {size} pieces")
    return shrink_tokenizer(teacher.tokenizer_json, texts, size)


@torch.no_grad()
def initialise(student: nn.Module, teacher: nn.Module, kept: Sequence[int] | None = None) -> int:
    """Give a student the teacher's tensors where names and shapes agree; layers are taken evenly.

    Word embeddings of another width are the teacher's principal components (as many as the student has channels).

    Args:
        student: with untrained weights.
        teacher: of any family.
        kept: the teacher's ids of the student's word pieces; None: the same ones.

    Returns:
        How many tensors came from the teacher.
    """
    source = {_inner(name): tensor for name, tensor in teacher.state_dict().items()}
    renamed = _LayerNames(student, teacher)
    taken = 0
    for full_name, tensor in student.state_dict().items():
        name = _inner(full_name)
        found = source.get(renamed(name))
        if name == WORD_EMBEDDINGS and found is not None:
            words = found if kept is None else found[list(kept)]
            tensor.copy_(_resized(words, tensor.shape[1]))
            tensor[0].zero_()  # padding: MobileBERT's trigram must see the end of the bucket there
            taken += 1
        elif found is not None and found.shape == tensor.shape:
            tensor.copy_(found)
            taken += 1
        elif name.endswith(("position_embeddings.weight", "token_type_embeddings.weight")):
            tensor.normal_(std=EMBEDDING_STD / 10)
    return taken


def _resized(words: Tensor, width: int) -> Tensor:
    """(V, C) to (V, width): as they are, or their principal components scaled to EMBEDDING_STD."""
    if words.shape[1] == width:
        return words
    left, sizes, _ = torch.linalg.svd(words - words.mean(dim=0), full_matrices=False)
    narrow = torch.zeros(len(words), width)
    count = min(width, len(sizes))
    narrow[:, :count] = left[:, :count] * sizes[:count]
    return narrow * (EMBEDDING_STD / narrow.std())


def _inner(name: str) -> str:
    """A name without the encoder's, which differs between the families of text models."""
    return re.sub(r"^(bert|mobilebert)\.", "", name)


class _LayerNames:
    """From a student's tensor name to the teacher's: the layer's number is that of the teacher's layer at its place."""

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        theirs = {_inner(stack.name): len(stack.layers) for stack in stacks(teacher)}
        self._sources = {
            _inner(stack.name): uniform(len(stack.layers), theirs[_inner(stack.name)])
            for stack in stacks(student)
            if _inner(stack.name) in theirs
        }

    def __call__(self, name: str) -> str:
        """The teacher's name of a student's tensor."""
        for stack, sources in self._sources.items():
            rest = name.removeprefix(f"{stack}.")
            if rest != name:
                number, _, part = rest.partition(".")
                return f"{stack}.{sources[int(number)]}.{part}"
        return name


# Cuts a WordPiece tokenizer down to the pieces that matter, keeping its normalisation.


SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def shrink_tokenizer(tokenizer_json: str, texts: Sequence[str], size: int) -> tuple[str, list[int]]:
    """Keep special tokens, all single characters, the pieces of `texts`, and then the most frequent pieces.

    BERT's vocabulary lists its words by falling frequency, so that "most frequent" is "lowest id".

    Args:
        tokenizer_json: a tokenizers file with a WordPiece model.
        texts: sentences whose pieces are kept, most frequent first, while there is room.
        size: number of tokens to keep.

    Returns:
        The new tokenizers file, and for each new id the old one.
    """
    spec: dict[str, Any] = json.loads(tokenizer_json)
    vocab: dict[str, int] = spec["model"]["vocab"]
    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    counts = Counter(token for encoding in tokenizer.encode_batch(list(texts)) for token in encoding.tokens)
    by_id = sorted(vocab, key=vocab.__getitem__)
    wanted = dict.fromkeys(SPECIAL_TOKENS)
    wanted |= dict.fromkeys(token for token in by_id if len(token.removeprefix("##")) == 1)
    wanted |= dict.fromkeys(token for token, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    wanted |= dict.fromkeys(token for token in by_id if not token.startswith("[unused"))
    # [PAD] is 0, as everywhere in BERT's family; the others stay in their old order.
    kept = sorted(list(wanted)[:size], key=vocab.__getitem__)
    new_ids = {token: number for number, token in enumerate(kept)}
    spec["model"]["vocab"] = new_ids
    spec["truncation"] = spec["padding"] = None
    spec["added_tokens"] = [
        {**added, "id": new_ids[added["content"]]} for added in spec["added_tokens"] if added["content"] in new_ids
    ]
    spec["post_processor"] = None
    small = Tokenizer.from_str(json.dumps(spec))
    small.post_processor = bert_template(("[CLS]", new_ids["[CLS]"]), ("[SEP]", new_ids["[SEP]"]))
    return small.to_str(), [vocab[token] for token in kept]
