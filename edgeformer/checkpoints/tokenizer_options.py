"""What a checkpoint's config files say about its tokenizer, merged as transformers merges them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from edgeformer.models.config import read_object
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError

TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP, ADDED_TOKENS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
TOKENIZER_FILE, VOCABULARY_FILE = "tokenizer.json", "vocab.txt"

BERT_CLASSES: dict[str, bool] = {
    "BertTokenizer": True,
    "MobileBertTokenizer": True,
    "ElectraTokenizer": True,
    "LayoutLMTokenizer": True,
    "DistilBertTokenizer": False,
}
"""Classes of transformers that build BERT's WordPiece anew from a vocabulary and tokenizer_config.json, whatever else
tokenizer.json says; and whether they give token types."""

XLM_ROBERTA = "XLMRobertaTokenizer"
"""A class of transformers that builds its tokenizer anew from the pieces and the character map of tokenizer.json."""

FILE_CLASSES: dict[str, tuple[str, ...]] = {
    "PreTrainedTokenizer": (),
    "TokenizersBackend": (),
    "WhisperTokenizer": ("BPE",),
    XLM_ROBERTA: ("Unigram",),
}
"""Classes that need a tokenizer.json, and which kinds of model it may hold; none listed: any."""

ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
BERT_ROLES = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
XLM_ROBERTA_ROLES = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}

MAX_ADDED_TOKENS = 20_000
"""Beside a vocabulary; the library looks for each in every text."""
_TOKEN_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")


@dataclass(frozen=True)
class TokenizerOptions:
    """The settings of a tokenizer.

    Attributes:
        name: its class in transformers, without "Fast".
        values: tokenizer_config.json, with what special_tokens_map.json puts over it.
        added: tokens beside the vocabulary, by their ids, which rise.
        special: the tokens with a role, by role.
        extra: special tokens without a role.
        token_types: whether the second text of a pair gets another type than the first.
    """

    name: str
    values: Mapping[str, Any]
    added: Mapping[int, AddedToken]
    special: Mapping[str, AddedToken]
    extra: tuple[AddedToken, ...]
    token_types: bool

    @property
    def is_bert(self) -> bool:
        """Whether transformers builds it anew from its vocabulary."""
        return self.name in BERT_CLASSES

    def flag(self, name: str, default: bool | None) -> bool | None:
        """A setting that is true, false or null."""
        value = self.values.get(name, default)
        if value is not None and not isinstance(value, bool):
            raise InputError(f"{TOKENIZER_CONFIG}: {name} must be true, false or null, found {shorten(value)}")
        return value


def read_options(folder: Path, spec: Mapping[str, Any] | None) -> TokenizerOptions:
    """The settings of the tokenizer in a folder.

    Args:
        folder: with any of tokenizer_config.json, special_tokens_map.json and added_tokens.json.
        spec: its tokenizer.json, if it has one.

    Raises:
        InputError: a class that is not known, or values that cannot be.
    """
    values = _read(folder / TOKENIZER_CONFIG)
    name = _class_of(folder, values, spec)
    added = _listed(values.get("added_tokens_decoder"))
    if "added_tokens_decoder" not in values:
        # transformers takes the older files only where the newer key is missing, and lets them win then.
        values |= _read(folder / SPECIAL_TOKENS_MAP)
        special = {_content(value) for role, value in values.items() if role in ROLES and value}
        special |= {_content(value) for value in islice(_extra(values), MAX_ADDED_TOKENS)}
        for content, number in islice(_read(folder / ADDED_TOKENS).items(), MAX_ADDED_TOKENS + 1):
            if type(number) is not int:
                raise InputError(f"{ADDED_TOKENS}: expected the ids of tokens, found {content!r} with {number!r}")
            added[number] = AddedToken(content, normalized=content not in special, special=content in special)
        for token in (spec or {}).get("added_tokens", []):
            added[int(token["id"])] = _token(token, TOKENIZER_FILE, "added_tokens")
    extra = list(islice(_extra(values), MAX_ADDED_TOKENS + 1))
    if max(len(added), len(extra)) > MAX_ADDED_TOKENS:
        raise InputError(f"{TOKENIZER_CONFIG}: expected at most {MAX_ADDED_TOKENS} tokens beside the vocabulary")
    by_content = {token.content: token for token in added.values()}
    defaults = BERT_ROLES if name in BERT_CLASSES else XLM_ROBERTA_ROLES if name == XLM_ROBERTA else {}
    roles = {**defaults, **{key: values[key] for key in ROLES if key in values}}
    names = values.get("model_input_names")
    return TokenizerOptions(
        name=name,
        values=values,
        added=dict(sorted(added.items())),
        special={
            role: by_content.get(_content(value)) or _token(value, TOKENIZER_CONFIG, role)
            for role, value in roles.items()
            if value is not None
        },
        extra=tuple(_token(value, TOKENIZER_CONFIG, "extra_special_tokens") for value in extra),
        token_types="token_type_ids" in names if isinstance(names, list) else BERT_CLASSES.get(name, False),
    )


def has_own_class(folder: Path) -> bool:
    """Whether its class is one that nothing here reads and that transformers, if it is installed, builds.

    Raises:
        InputError: the author's own class.
    """
    stated = _stated(folder, _read(folder / TOKENIZER_CONFIG))
    name = str(stated).removesuffix("Fast")
    if stated is None or name in BERT_CLASSES or name in FILE_CLASSES or find_spec("transformers") is None:
        return False
    import transformers

    return isinstance(getattr(transformers, str(stated), getattr(transformers, name, None)), type)


def _stated(folder: Path, values: Mapping[str, Any]) -> Any:
    """The tokenizer's class as the files have it, or None."""
    if values.get("auto_map"):
        raise InputError(
            f"{TOKENIZER_CONFIG}: auto_map names the author's own class, whose code is not run here: save the "
            f"tokenizer as {TOKENIZER_FILE} with tokenizer_class PreTrainedTokenizerFast"
        )
    return values.get("tokenizer_class") or _read(folder / "config.json").get("tokenizer_class")


def _read(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}


def _class_of(folder: Path, values: Mapping[str, Any], spec: Mapping[str, Any] | None) -> str:
    """The class that transformers would make, without "Fast"."""
    stated = _stated(folder, values)
    if stated is None:
        word_piece = (folder / VOCABULARY_FILE).is_file() if spec is None else _model_type(spec) == "WordPiece"
        return "BertTokenizer" if word_piece else "TokenizersBackend"
    name = str(stated).removesuffix("Fast")
    if name in BERT_CLASSES:
        return name
    kinds = FILE_CLASSES.get(name)
    if kinds is None:
        raise InputError(
            f"{TOKENIZER_CONFIG}: tokenizer_class {stated} has no reader here, and another one would give other ids: "
            f"expected one of {', '.join((*BERT_CLASSES, *FILE_CLASSES))}, or pip install "
            f'"edgeformer[transformers]"; if its {TOKENIZER_FILE} alone gives the same ids, set tokenizer_class to '
            "PreTrainedTokenizerFast"
        )
    if spec is not None and kinds and _model_type(spec) not in kinds:
        raise InputError(
            f"{TOKENIZER_CONFIG} says {stated}, and {TOKENIZER_FILE} holds a {_model_type(spec)} model: save both with "
            "the tokenizer's save_pretrained()"
        )
    return name


def _model_type(spec: Mapping[str, Any]) -> str:
    model = spec.get("model")
    if not isinstance(model, Mapping):
        raise InputError(f"{TOKENIZER_FILE} cannot be used: it holds no model")
    # Old files do not say it.
    return str(model.get("type") or ("BPE" if "merges" in model else "WordPiece"))


def _listed(decoder: Any) -> dict[int, AddedToken]:
    """added_tokens_decoder: tokens by their ids, which JSON keeps as texts."""
    if decoder is None:
        return {}
    if isinstance(decoder, Mapping) and len(decoder) > MAX_ADDED_TOKENS:
        raise InputError(
            f"{TOKENIZER_CONFIG}: added_tokens_decoder has {len(decoder)} tokens: expected {MAX_ADDED_TOKENS} at most"
        )
    try:
        return {
            int(number): _token(token, TOKENIZER_CONFIG, "added_tokens_decoder") for number, token in decoder.items()
        }
    except (AttributeError, ValueError):
        raise InputError(f"{TOKENIZER_CONFIG}: added_tokens_decoder must map ids to tokens") from None


def _extra(values: Mapping[str, Any]) -> Iterator[Any]:
    """Special tokens without a role, wherever they stand."""
    named = values.get("extra_special_tokens") or values.get("additional_special_tokens") or []
    yield from named.values() if isinstance(named, Mapping) else named
    for key, value in values.items():
        if key.endswith("_token") and key not in ROLES and isinstance(value, str):
            yield value


def _content(value: Any) -> str:
    return str(value.get("content")) if isinstance(value, Mapping) else str(value)


def _token(value: Any, file: str, field: str) -> AddedToken:
    """A token, which configs give as a string, special then, or as an object of AddedToken's fields."""
    if isinstance(value, str):
        return AddedToken(value, special=True, normalized=False)
    if isinstance(value, dict) and isinstance(value.get("content"), str):
        special = bool(value.get("special", field != "added_tokens_decoder"))
        flags = {key: bool(value.get(key, False)) for key in _TOKEN_FLAGS}
        flags["normalized"] = bool(value.get("normalized", not special))
        return AddedToken(value["content"], special=special, **flags)
    raise InputError(f"{file}: {field} must be a string or an object with content, found {shorten(value)}")
