"""A checkpoint's tokenizer as one tokenizers JSON text, whatever files it came in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from edgeformer.byte_level_files import byte_level_tokenizer
from edgeformer.json_files import read_object
from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.preprocess.tokenizer import Tokenizer as BundleTokenizer

_SPECIAL_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}


def read_tokenizer(folder: Path) -> str | None:
    """The tokenizer of a checkpoint, without truncation and padding: both are the pipeline's business.

    Args:
        folder: with tokenizer.json, or with vocab.txt of a BERT tokenizer and its options, or with vocab.json and
            merges.txt of a byte-level BPE tokenizer and its added tokens.

    Returns:
        A tokenizers JSON text that depends on the files alone, or None where the folder has no tokenizer.

    Raises:
        InputError: a file that cannot be used.
    """
    if (folder / "tokenizer.json").is_file():
        spec = read_object(folder / "tokenizer.json")
    elif (folder / "vocab.txt").is_file():
        spec = json.loads(_bert_tokenizer(folder).to_str())
    elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        spec = byte_level_tokenizer(folder)
    else:
        return None
    spec["truncation"] = spec["padding"] = None
    text = json.dumps(spec, ensure_ascii=False, separators=(",", ":"))
    try:
        BundleTokenizer(text, "tokenizer.json")
    except BundleError as error:
        raise InputError(f"tokenizer.json cannot be used: {str(error).removeprefix('tokenizer.json: ')}") from None
    return text


def vocabulary_size(tokenizer_json: str) -> int:
    """One more than the largest id that the tokenizer can give."""
    return BundleTokenizer(tokenizer_json, "tokenizer.json").vocabulary_size


def bert_template(cls: tuple[str, int], sep: tuple[str, int]) -> processors.TemplateProcessing:
    """BERT's frame around one text or two, from the (token, id) of its start and of its separator."""
    start, end = cls[0], sep[0]
    return processors.TemplateProcessing(
        single=f"{start}:0 $A:0 {end}:0",
        pair=f"{start}:0 $A:0 {end}:0 $B:1 {end}:1",
        special_tokens=[cls, sep],
    )


def _bert_tokenizer(folder: Path) -> Tokenizer:
    """BERT's WordPiece tokenizer over vocab.txt, as the transformers library assembles it."""
    options = {
        name: value
        for file in ("special_tokens_map.json", "tokenizer_config.json")
        if (folder / file).is_file()
        for name, value in read_object(folder / file).items()
    }
    special = {name: _special_token(options, name, default) for name, default in _SPECIAL_TOKENS.items()}
    vocab = _read_vocabulary(folder / "vocab.txt")
    missing = [token.content for token in special.values() if token.content not in vocab]
    if missing:
        raise InputError(f"vocab.txt lacks the special tokens {', '.join(missing)}")
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=special["unk_token"].content))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=_flag(options, "tokenize_chinese_chars", True) is True,
        strip_accents=_flag(options, "strip_accents", None),
        lowercase=_flag(options, "do_lower_case", True) is True,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    cls, sep = special["cls_token"].content, special["sep_token"].content
    tokenizer.post_processor = bert_template((cls, vocab[cls]), (sep, vocab[sep]))
    tokenizer.add_special_tokens(list(special.values()))
    return tokenizer


def _read_vocabulary(path: Path) -> dict[str, int]:
    """One token per line; a token's id is its line."""
    try:
        with path.open(encoding="utf-8") as file:
            return {line.rstrip("\n"): number for number, line in enumerate(file)}
    except UnicodeDecodeError:
        raise InputError(f"{path.name} is not UTF-8 text") from None


def _special_token(options: Mapping[str, Any], name: str, default: str) -> AddedToken:
    """A special token, which configs give as a string or as an object of AddedToken's fields."""
    value = options.get(name) or default
    if isinstance(value, str):
        return AddedToken(value, special=True, normalized=False)
    if isinstance(value, dict) and isinstance(value.get("content"), str):
        flags = {key: bool(value.get(key, False)) for key in ("single_word", "lstrip", "rstrip", "normalized")}
        return AddedToken(value["content"], special=True, **flags)
    raise InputError(f"tokenizer_config.json: {name} must be a string or an object with content, found {value!r}")


def _flag(options: Mapping[str, Any], name: str, default: bool | None) -> bool | None:
    value = options.get(name, default)
    if value is not None and not isinstance(value, bool):
        raise InputError(f"tokenizer_config.json: {name} must be true, false or null, found {value!r}")
    return value
