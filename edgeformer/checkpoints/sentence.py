"""What sentence-transformers' files say of an embedder: pooling, norm, length, case and prompts (versions 2 to 6)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from edgeformer.checkpoints.sources import MODULES_FILE, SourceFolder, is_inside
from edgeformer.models.config import read_list, read_object
from edgeformer.models.pooling import DENSE_ACTIVATIONS, MEAN, MEAN_HEAD, POOLINGS, DenseLayer, EmbeddingHead
from edgeformer.models.text import TextConfig
from edgeformer.tasks.text import TEXTS
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.registry import did_you_mean

SENTENCE_CONFIG = "config_sentence_transformers.json"
TRANSFORMER_CONFIGS = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
"""The names that the library has had for one file, the first one wins."""

POOLING_FILE = "1_Pooling/config.json"
NO_PROMPT = "none"

TRANSFORMER, POOLING, DENSE, NORMALIZE = "Transformer", "Pooling", "Dense", "Normalize"
DENSE_WEIGHTS = "model.safetensors"
_LIBRARY = "sentence_transformers."
_CROSS_ENCODER, _SENTENCE_TRANSFORMER = "CrossEncoder", "SentenceTransformer"
_FLAGS = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
"""Versions before 6 have a flag `pooling_mode_...` for each of `POOLINGS`."""
_TANH = "torch.nn.modules.activation.Tanh"
_MAX_DENSE = 8


@dataclass(frozen=True)
class SentenceFiles:
    """What sentence-transformers' files say.

    Attributes:
        is_embedder: they describe an embedder.
        is_cross_encoder: they describe a classifier of pairs.
        head: pooling, dense layers and norm.
        dense_files: the weights of each dense layer.
        longest: tokens behind which texts are cut; None: not said.
        lower_case: texts are lower-cased before the tokenizer sees them.
        prompts: what may be put before a text, by name; without empty ones.
        default_prompt: the name of the one that is put before each text.
        includes_prompt: whether its tokens are pooled too.
        notes: one line for each thing that a user may want to know.
    """

    is_embedder: bool = False
    is_cross_encoder: bool = False
    head: EmbeddingHead = MEAN_HEAD
    dense_files: tuple[Path, ...] = ()
    longest: int | None = None
    lower_case: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    includes_prompt: bool = True
    notes: tuple[str, ...] = ()


def read_sentence_files(source: SourceFolder, raw: Mapping[str, Any]) -> SentenceFiles:
    """What the files of a checkpoint say; plain checkpoints have none of them.

    Args:
        source: the checkpoint.
        raw: its config.json.

    Raises:
        InputError: modules or a pooling that are not converted, or files that cannot be read.
    """
    if not source.root.is_dir():
        return SentenceFiles()
    root = source.root
    transformer = _first(source.folder, root, TRANSFORMER_CONFIGS)
    stated = _read(root / SENTENCE_CONFIG)
    kind = stated.get("model_type", _SENTENCE_TRANSFORMER)
    if kind not in (_SENTENCE_TRANSFORMER, _CROSS_ENCODER):
        raise InputError(f"{SENTENCE_CONFIG}: a {kind} has no task here: expected SentenceTransformer or CrossEncoder")
    task = transformer.get("transformer_task")
    found = module_folders(root)
    kinds = [kind for kind, _ in found]
    classifier = any(str(name).endswith("ForSequenceClassification") for name in raw.get("architectures") or [])
    cross = kind == _CROSS_ENCODER or task == "sequence-classification" or (kinds == [TRANSFORMER] and classifier)
    if cross and set(kinds) - {TRANSFORMER}:
        raise InputError(f"{MODULES_FILE}: expected a Transformer alone in a CrossEncoder, found {', '.join(kinds)}")
    poolings, includes_prompt, notes = ((MEAN,), True, ()) if cross else _pooling(root, dict(found))
    dense = [path for kind, path in found if kind == DENSE]
    stated_prompts = stated.get("prompts") or {}
    if not isinstance(stated_prompts, dict) or not all(isinstance(text, str) for text in stated_prompts.values()):
        raise InputError(f"{SENTENCE_CONFIG}: prompts must be texts by their names, found {shorten(stated_prompts)}")
    prompts = {name: text for name, text in stated_prompts.items() if text}
    default = stated.get("default_prompt_name")
    if default is not None and default not in stated_prompts:
        raise InputError(
            f"{SENTENCE_CONFIG}: default_prompt_name is {default!r}, which is none of the prompts: expected one of "
            f"{', '.join(stated_prompts) or 'them'}, or null"
        )
    return SentenceFiles(
        is_embedder=not cross and (bool(kinds) or (root / POOLING_FILE).is_file()),
        is_cross_encoder=cross,
        head=EmbeddingHead(poolings, _dense_layers(dense), NORMALIZE in kinds or not kinds),
        dense_files=tuple(path / DENSE_WEIGHTS for path in dense),
        longest=_longest(transformer),
        lower_case=transformer.get("do_lower_case") is True,
        prompts=prompts,
        default_prompt=default if default in prompts else None,
        includes_prompt=includes_prompt,
        notes=notes,
    )


def _first(folder: Path, root: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """The first of some files; sentence-transformers keeps it beside the transformer."""
    return next(
        (read_object(place / name) for place in (folder, root) for name in names if (place / name).is_file()), {}
    )


def _read(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}


def module_folders(root: Path) -> tuple[tuple[str, Path], ...]:
    """The kind and the folder of each module, in their order; none where there is no modules.json.

    Raises:
        InputError: modules that are not converted, or in another order.
    """
    if not (root / MODULES_FILE).is_file():
        return ()
    found: list[tuple[str, Path]] = []
    for module in read_list(root / MODULES_FILE):
        named = str(module.get("type", "")) if isinstance(module, dict) else ""
        kind = named.rpartition(".")[2]
        known = kind in (TRANSFORMER, POOLING, DENSE, NORMALIZE) and named.startswith(_LIBRARY)
        if not known or (kind != DENSE and kind in dict(found)):
            raise InputError(
                f"{MODULES_FILE}: expected sentence-transformers' own Transformer, Pooling, and perhaps Dense and "
                f"Normalize, found {named or module!r}, which has no counterpart here: remove it if the app computes it"
            )
        path = root / str(module.get("path", ""))
        if not is_inside(path, root):
            raise InputError(f"{MODULES_FILE} names {module.get('path')!r}, which is outside of the checkpoint")
        found.append((kind, path))
    kinds = [kind for kind, _ in found]
    dense = [DENSE] * min(kinds.count(DENSE), _MAX_DENSE)
    ordered = [TRANSFORMER, *([POOLING] * (POOLING in kinds)), *dense, *([NORMALIZE] * (NORMALIZE in kinds))]
    if kinds != ordered:
        raise InputError(
            f"{MODULES_FILE}: expected Transformer, Pooling, up to {_MAX_DENSE} Dense, Normalize in this order, found "
            f"{shorten(kinds)}"
        )
    return tuple(found)


def _pooling(root: Path, folders: Mapping[str, Path]) -> tuple[tuple[str, ...], bool, tuple[str, ...]]:
    """How tokens become a vector, and whether a prompt's tokens are among them."""
    notes: tuple[str, ...] = ()
    if POOLING in folders:
        path = folders[POOLING] / "config.json"
        if not path.is_file():
            raise InputError(f"{MODULES_FILE} names a Pooling module whose config.json is not there")
    elif folders:
        raise InputError(
            f"{MODULES_FILE} has no Pooling: expected an embedder's Transformer and Pooling, or a CrossEncoder, whose "
            f'{SENTENCE_CONFIG} says "model_type": "CrossEncoder"'
        )
    elif (root / POOLING_FILE).is_file():
        path = root / POOLING_FILE
        notes = (f"{MODULES_FILE} is not there: {POOLING_FILE} says how to pool, and embeddings are scaled to norm 1",)
    else:
        return (MEAN,), True, notes
    config = read_object(path)
    return _modes(config, path), config.get("include_prompt", True) is not False, notes


def _modes(config: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """The poolings that a Pooling module's config names."""
    mode = config.get("pooling_mode")
    modes = [mode] if isinstance(mode, str) else mode
    if mode is None:
        flagged = zip(_FLAGS, POOLINGS, strict=True)
        modes = [name for flag, name in flagged if config.get(f"pooling_mode_{flag}")] or [MEAN]
    if (
        not isinstance(modes, list | tuple)
        or not 1 <= len(modes) <= len(POOLINGS)
        or set(map(str, modes)) - {*POOLINGS}
    ):
        raise InputError(
            f"{path.parent.name}/{path.name}: pooling must be one or several of {', '.join(POOLINGS)}, found "
            f"{shorten(modes)}"
        )
    return tuple(modes)


def _dense_layers(folders: Sequence[Path]) -> tuple[DenseLayer, ...]:
    """What the configs of Dense modules say, whose weights must be safetensors."""
    layers = []
    for folder in folders:
        where = f"{folder.name}/config.json"
        if not (folder / "config.json").is_file() or not (folder / DENSE_WEIGHTS).is_file():
            raise InputError(f"{folder.name}: a Dense module needs config.json and {DENSE_WEIGHTS}: save it with these")
        config = read_object(folder / "config.json")
        values = (folder / DENSE_WEIGHTS).stat().st_size
        read, given = config.get("in_features"), config.get("out_features")
        if type(read) is not int or type(given) is not int or min(read, given) < 1 or read * given > values:
            raise InputError(
                f"{where}: in_features and out_features must be sizes of the {values} bytes of {DENSE_WEIGHTS}, found "
                f"{shorten(read, 20)} and {shorten(given, 20)}"
            )
        named = str(config.get("activation_function", _TANH))
        activation = named.rpartition(".")[2]
        if not named.startswith("torch.nn.") or activation not in DENSE_ACTIVATIONS:
            raise InputError(
                f"{where}: activation_function must be torch's {', '.join(DENSE_ACTIVATIONS)}, found {shorten(named)}"
            )
        layers.append(DenseLayer(read, given, config.get("bias", True) is not False, activation))
    return tuple(layers)


def _longest(transformer: Mapping[str, Any]) -> int | None:
    value = transformer.get("max_seq_length")
    if value is not None and (type(value) is not int or value < 2):
        raise InputError(
            f"sentence_bert_config.json: max_seq_length must be an integer above 1, found {shorten(value)}"
        )
    return value


def chosen_prompt(files: SentenceFiles, asked: str | None) -> str | None:
    """The text that is put before every text, or None.

    Args:
        files: the checkpoint's.
        asked: a prompt's name, "none", or None where the user said nothing: the default one, as `encode()` takes it.

    Raises:
        InputError: there is no such prompt, or no program here can have it.
    """
    names = ", ".join((*files.prompts, NO_PROMPT))
    asked = files.default_prompt if asked is None else asked
    if asked in (None, NO_PROMPT):
        return None
    if asked not in files.prompts:
        guess = did_you_mean(asked, (*files.prompts, NO_PROMPT))
        raise InputError(f"{SENTENCE_CONFIG} has no prompt {asked!r}: {guess}expected one of {names}")
    if not files.includes_prompt:
        raise InputError(
            f"{POOLING_FILE}: include_prompt is false, so the prompt's tokens are not pooled, which no program here "
            f"leaves out: expected --prompt {NO_PROMPT}"
        )
    return files.prompts[asked]


def text_notes(
    sentence: SentenceFiles, tokenizer: str | None, prompt: str | None, config: TextConfig
) -> tuple[str, ...]:
    """What a user may want to know of how a text model's bundle reads texts; `prompt` is what was asked for."""
    notes = sentence.notes
    if sentence.is_embedder and not sentence.head.normalize:
        notes += ("modules.json has no Normalize: embeddings keep their length, compare them by cosine",)
    if sentence.is_embedder and sentence.default_prompt is not None and prompt is None:
        notes += (
            f"the checkpoint's default prompt {sentence.prompts[sentence.default_prompt]!r} is built in, before each "
            f"text, as encode() puts it there: --prompt {NO_PROMPT} leaves it to the app",
        )
    elif sentence.prompts and prompt is None:
        notes += (
            f"the checkpoint has the prompts {', '.join(sentence.prompts)}: put the right one before each text"
            + (", or build one in with --prompt NAME" if sentence.is_embedder else ""),
        )
    if tokenizer is None:
        notes += ("the checkpoint has no tokenizer: the bundle takes token ids only",)
    if config.type_vocab_size == 1:
        notes += ("type_vocab_size is 1: both texts of a pair get the token type 0",)
    return notes


def check_no_prompt(files: SentenceFiles) -> None:
    """Refuse a classifier of pairs whose own library puts a prompt before them.

    Raises:
        InputError: names the prompt.
    """
    if files.default_prompt is not None:
        raise InputError(
            f"{SENTENCE_CONFIG}: predict() puts the prompt {files.prompts[files.default_prompt]!r} before each text, "
            f"which no classifier here does: say --prompt {NO_PROMPT}, and put it there in the app"
        )


# A prompt before every text, built into a tokenizer: its tokens stand in the template behind the first special one.


def with_prompt(tokenizer_json: str, prompt: str) -> str:
    """A tokenizer that gives for a text what it gave for the prompt and the text in one.

    That is exact where no token can reach from the prompt into the text: WordPiece over BERT's words, and a prompt
    that ends in a space or a mark, and that no added token starts in. Of a pair, the first text gets it.

    Raises:
        InputError: the prompt would not be tokenized by itself; then the app has to put it before its texts.
    """
    spec: dict[str, Any] = json.loads(tokenizer_json)
    tokenizer = Tokenizer.from_str(tokenizer_json)
    pre_tokenizer = (spec.get("pre_tokenizer") or {}).get("type")
    splits = spec["model"].get("type") == "WordPiece" and pre_tokenizer == "BertPreTokenizer"
    ends = prompt[-1:].isspace() or (prompt[-1:] in "!\"#$%&'()*+,-./:;<=>?@[\\]^`{|}~" and prompt[-1:] != "")
    if not splits or not ends or _reaches_in(spec, prompt):
        raise InputError(
            f"the prompt {prompt!r} cannot be built into this tokenizer: its last token could merge with a text's "
            "first one: say --prompt none, and put it before each text in the app"
        )
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids
    made = json.dumps(_framed(spec, tokenizer.encode(prompt, add_special_tokens=False).tokens, ids), ensure_ascii=False)
    prompted = Tokenizer.from_str(made)
    for sample in TEXTS:
        if prompted.encode(sample["text"]).ids != tokenizer.encode(prompt + sample["text"]).ids:
            raise InputError(
                f"the prompt {prompt!r} changes how texts behind it are tokenized: say --prompt none, and put it "
                "before each text in the app"
            )
    return json.dumps(json.loads(made), ensure_ascii=False, separators=(",", ":"))


def _reaches_in(spec: dict[str, Any], prompt: str) -> bool:
    """Whether an added token starts in the prompt and may end in a text."""
    folded = prompt.casefold()
    ends = [folded[start:] for start in range(len(folded))]
    contents = [str(token["content"]).casefold() for token in spec.get("added_tokens", [])]
    return any(content.startswith(end) and content != end for content in contents for end in ends)


def _framed(spec: dict[str, Any], tokens: list[str], ids: list[int]) -> dict[str, Any]:
    """The tokenizer's JSON with these tokens before the first text of its template."""
    processor = spec.get("post_processor") or {}
    if processor.get("type") == "BertProcessing":
        processor = as_template(processor)
    if processor.get("type") != "TemplateProcessing":
        raise InputError(f"a prompt needs a tokenizer with a template, found {processor.get('type') or 'none'}")
    known = {
        token: {"id": token, "ids": [number], "tokens": [token]} for token, number in zip(tokens, ids, strict=True)
    }
    return {
        **spec,
        "post_processor": {
            **processor,
            "single": list(_with_tokens(processor["single"], tokens)),
            "pair": list(_with_tokens(processor["pair"], tokens)),
            "special_tokens": {**known, **processor["special_tokens"]},
        },
    }


def _with_tokens(pieces: list[dict[str, Any]], tokens: list[str]) -> Iterator[dict[str, Any]]:
    for piece in pieces:
        sequence = piece.get("Sequence")
        if sequence is not None and sequence["id"] == "A":
            yield from ({"SpecialToken": {"id": token, "type_id": sequence["type_id"]}} for token in tokens)
        yield piece


def as_template(ends: dict[str, Any]) -> dict[str, Any]:
    """BERT's processor as the template that it stands for."""
    (cls, _), (sep, _) = ends["cls"], ends["sep"]

    def special(token: str, kind: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": kind}}

    def text(name: str, kind: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": kind}}

    return {
        "type": "TemplateProcessing",
        "single": [special(cls, 0), text("A", 0), special(sep, 0)],
        "pair": [special(cls, 0), text("A", 0), special(sep, 0), text("B", 1), special(sep, 1)],
        "special_tokens": {
            token: {"id": token, "ids": [number], "tokens": [token]} for token, number in (ends["cls"], ends["sep"])
        },
    }
