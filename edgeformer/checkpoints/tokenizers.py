"""A checkpoint's tokenizer as one tokenizers JSON text, whatever files it came in: it gives the ids of transformers."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from edgeformer.checkpoints.sentence import as_template
from edgeformer.checkpoints.tokenizer_options import (
    BERT_ROLES,
    TOKENIZER_CONFIG,
    TOKENIZER_FILE,
    VOCABULARY_FILE,
    XLM_ROBERTA,
    TokenizerOptions,
    has_own_class,
    read_options,
)
from edgeformer.models.config import MAX_VOCABULARY_BYTES, MAX_VOCABULARY_JSON_BYTES, read_object, read_text, refusing
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.preprocess.tokenizer import Tokenizer as BundleTokenizer

MAX_VOCABULARY = 1_000_000
_SENTENCE_PIECES = ("*.model", "spiece.model")
_PARTS = ("normalizer", "pre_tokenizer", "added_tokens")
_MODEL_FIELDS = (
    *("unk_token", "continuing_subword_prefix", "max_input_chars_per_word"),
    *("unk_id", "byte_fallback"),
)
"""Of WordPiece and of Unigram: what a model has besides its vocabulary."""
_XLM_ROBERTA_UNKNOWN = 3
"""The id that transformers takes for it, whatever the file says."""


def read_tokenizer(folder: Path, token_types: int = 2, most_tokens: int = MAX_VOCABULARY) -> str | None:
    """The tokenizer of a checkpoint, without truncation and padding: both are the pipeline's business.

    Args:
        folder: with tokenizer.json, or with vocab.txt of a BERT tokenizer, or with vocab.json and merges.txt of a
            byte-level BPE tokenizer; and with the options beside them.
        token_types: how many the model has. With one, both texts of a pair get it; with none nobody asks.
        most_tokens: how many the model has embeddings for.

    Returns:
        A tokenizers JSON text that depends on the files alone, or None where the folder has no tokenizer.

    Raises:
        InputError: a file that cannot be used, or a tokenizer that would have to be guessed.
    """
    spec = (
        read_object(folder / TOKENIZER_FILE, MAX_VOCABULARY_JSON_BYTES) if (folder / TOKENIZER_FILE).is_file() else None
    )
    _check_count(spec, most_tokens)
    if has_own_class(folder):
        return _text(_as_transformers_has_it(folder, token_types))
    if spec is None and not (folder / VOCABULARY_FILE).is_file():
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            return _text(byte_level_tokenizer(folder))
        _refuse_others(folder)
        return None
    options = read_options(folder, spec)
    if token_types and ((spec or {}).get("truncation") or {}).get("direction") == "Left":
        raise InputError(
            f"{TOKENIZER_FILE}: truncation cuts at the left, and texts are cut at the right here: remove it"
        )
    if options.is_bert:
        spec = _as_bert(spec, folder, options, most_tokens)
    elif spec is None:
        raise InputError(f"{TOKENIZER_CONFIG}: a {options.name} needs {TOKENIZER_FILE}, found {VOCABULARY_FILE} alone")
    elif options.name == XLM_ROBERTA:
        spec = _as_built(spec, _spec_of(_xlm_roberta_tokenizer(spec, options)))
    else:
        spec = _with_tokens(spec, options)
    if token_types == 1 or (token_types > 1 and not options.token_types):
        spec = _with_one_type(spec)
    return _text(spec)


def lower_cased(tokenizer_json: str) -> str:
    """A tokenizer that lower-cases what it reads first, as sentence-transformers' own do_lower_case makes it.

    BERT's normalizer can say that itself where it removes no accents; any other gets one before it.
    """
    spec = json.loads(tokenizer_json)
    normalizer = spec.get("normalizer")
    if '"Lowercase"' in json.dumps(normalizer) or (normalizer or {}).get("lowercase") is True:
        return tokenizer_json
    if (normalizer or {}).get("type") == "BertNormalizer" and not normalizer.get("strip_accents"):
        spec["normalizer"] = {**normalizer, "lowercase": True, "strip_accents": False}
    else:
        rest = [] if normalizer is None else [normalizer]
        spec["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, *rest]}
    return _text(spec)


def mask_token(folder: Path, tokenizer_json: str) -> tuple[str, int]:
    """What stands for a token that is looked for, and its id.

    Args:
        folder: the checkpoint's, whose options name the token.
        tokenizer_json: what `read_tokenizer` gave.

    Raises:
        InputError: there is none, or the tokenizer does not know it.
    """
    if has_own_class(folder):
        token: str | None = _of_transformers(folder).mask_token
    else:
        stated = read_options(folder, json.loads(tokenizer_json)).special.get("mask_token")
        token = None if stated is None else stated.content
    ids = [] if token is None else BundleTokenizer(tokenizer_json, TOKENIZER_FILE).text_tokens(token)
    if token is None or len(ids) != 1:
        found = "none" if token is None else f"{shorten(token)}, which is {len(ids)} tokens"
        raise InputError(f"{TOKENIZER_CONFIG}: fill-mask needs a mask_token that is one token, found {found}")
    return token, ids[0]


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


def _text(spec: Mapping[str, Any]) -> str:
    text = json.dumps({**spec, "truncation": None, "padding": None}, ensure_ascii=False, separators=(",", ":"))
    _made(text)
    return text


def _made(text: str) -> Tokenizer:
    try:
        BundleTokenizer(text, TOKENIZER_FILE)
    except BundleError as error:
        raise InputError(f"{TOKENIZER_FILE} cannot be used: {str(error).removeprefix(TOKENIZER_FILE + ': ')}") from None
    return Tokenizer.from_str(text)


def _of_transformers(folder: Path) -> Any:
    """What transformers itself builds, for the classes that nothing here reads."""
    from transformers import AutoTokenizer

    with refusing(f"{TOKENIZER_CONFIG}: transformers cannot build its tokenizer:"):
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _as_transformers_has_it(folder: Path, token_types: int) -> dict[str, Any]:
    """The tokenizers object of what transformers builds."""
    built = _of_transformers(folder)
    backend = getattr(built, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise InputError(
            f"{TOKENIZER_CONFIG}: a {type(built).__name__} splits texts in Python, which no bundle can hold: expected "
            "a class that is a tokenizers file"
        )
    spec = _spec_of(backend)
    if token_types and built.truncation_side != "right":
        raise InputError(f"{TOKENIZER_CONFIG}: truncation_side is left, and texts are cut at the right here")
    return _with_one_type(spec) if token_types and "token_type_ids" not in built.model_input_names else spec


def _refuse_others(folder: Path) -> None:
    """Files of tokenizers that nothing here reads: without them the bundle would take token ids only, unasked."""
    found = next((path.name for pattern in _SENTENCE_PIECES for path in sorted(folder.glob(pattern))), None)
    if found is None and (folder / TOKENIZER_CONFIG).is_file():
        found = TOKENIZER_CONFIG
    if found is not None:
        raise InputError(
            f"{found} is there, and no {TOKENIZER_FILE}, which is what is read here: make one with transformers, "
            "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )


def _check_count(spec: dict[str, Any] | None, most_tokens: int) -> None:
    """Refuse a vocabulary beyond the model's before anything is made of it."""
    model = spec.get("model") if spec is not None else None
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict | list) and len(vocabulary) > most_tokens:
        raise _too_many(TOKENIZER_FILE, len(vocabulary), most_tokens)


def _too_many(file: str, tokens: int, most_tokens: int) -> InputError:
    return InputError(
        f"{file} has {tokens} tokens and the model has {most_tokens} embeddings: resize the model's with "
        "resize_token_embeddings(), or take the tokenizer that it was trained with"
    )


def _as_bert(spec: dict[str, Any] | None, folder: Path, options: TokenizerOptions, most_tokens: int) -> dict[str, Any]:
    """BERT's WordPiece with the options, as transformers builds it; what tokenizer.json has alike stays as it is."""
    if spec is None:
        return _spec_of(
            _bert_tokenizer(_read_vocabulary(folder / VOCABULARY_FILE, most_tokens), options, VOCABULARY_FILE)
        )
    _made(json.dumps(spec))
    model = spec["model"]
    vocab = model.get("vocab")
    if model.get("type", "WordPiece") != "WordPiece" or not isinstance(vocab, dict):
        raise InputError(
            f"{TOKENIZER_CONFIG} says {options.name}, and {TOKENIZER_FILE} holds a {model.get('type')} model: set "
            "tokenizer_class to PreTrainedTokenizerFast if the file is right"
        )
    return _as_built(spec, _spec_of(_bert_tokenizer(vocab, options, TOKENIZER_FILE)))


def _as_built(spec: dict[str, Any], built: Mapping[str, Any]) -> dict[str, Any]:
    """tokenizer.json with the parts that differ from what transformers builds as it builds them."""
    stated = _spec_of(_made(json.dumps(spec)))  # with the library's values for fields that the file leaves out
    kept = dict(spec)
    for part in _PARTS:
        if stated[part] != built[part]:
            kept[part] = built[part]
    for field in _MODEL_FIELDS:
        if stated["model"].get(field) != built["model"].get(field):
            kept["model"] = {**kept["model"], field: built["model"][field]}
    if _frames({**built, "post_processor": spec.get("post_processor")}) != _frames(built):
        kept["post_processor"] = built["post_processor"]
    return kept


def _frames(spec: Mapping[str, Any]) -> list[tuple[list[int], list[int]]]:
    """Ids and types of a text and of a pair, which show a post-processor whole."""
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    encodings = (tokenizer.encode("a"), tokenizer.encode("a", "a b"))
    return [(encoding.ids, encoding.type_ids) for encoding in encodings]


def _spec_of(tokenizer: Tokenizer) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads(tokenizer.to_str())
    return spec


def _role(options: TokenizerOptions, role: str) -> AddedToken:
    token = options.special.get(role)
    if token is None:
        raise InputError(f"{TOKENIZER_CONFIG}: {role} must be a token, found null")
    return token


def _bert_tokenizer(vocab: Mapping[str, int], options: TokenizerOptions, file: str) -> Tokenizer:
    missing = [token for role in BERT_ROLES if (token := _role(options, role).content) not in vocab]
    if missing:
        raise InputError(f"{file} lacks the special tokens {', '.join(missing)}")
    unknown, start, end = (_role(options, role).content for role in ("unk_token", "cls_token", "sep_token"))
    tokenizer = Tokenizer(models.WordPiece(dict(vocab), unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=options.flag("tokenize_chinese_chars", True) is True,
        strip_accents=options.flag("strip_accents", None),
        lowercase=options.flag("do_lower_case", True) is True,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    tokenizer.post_processor = bert_template((start, vocab[start]), (end, vocab[end]))
    _add_tokens(tokenizer, options)
    return tokenizer


def _xlm_roberta_tokenizer(spec: Mapping[str, Any], options: TokenizerOptions) -> Tokenizer:
    tokenizer = _made(json.dumps(spec))
    pieces = [(piece, score) for piece, score in spec["model"]["vocab"]]
    start, end = (_role(options, role).content for role in ("bos_token", "eos_token"))
    if len(pieces) <= _XLM_ROBERTA_UNKNOWN:
        raise InputError(f"{TOKENIZER_FILE}: a {options.name} has more than {_XLM_ROBERTA_UNKNOWN} pieces, found fewer")
    built = Tokenizer(models.Unigram(pieces, unk_id=_XLM_ROBERTA_UNKNOWN, byte_fallback=False))
    charsmap = next(_charsmaps(_spec_of(tokenizer)["normalizer"]), None)
    if charsmap is not None:
        built.normalizer = normalizers.Precompiled(base64.b64decode(charsmap))
    scheme = "always" if options.flag("add_prefix_space", True) is True else "never"
    built.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme=scheme)]
    )
    _add_tokens(built, options)
    built.post_processor = processors.TemplateProcessing(
        single=[start, "$A", end],
        pair=[start, "$A", end, end, "$B", end],
        special_tokens=[(token, built.token_to_id(token)) for token in (start, end)],
    )
    return built


def _charsmaps(normalizer: Mapping[str, Any] | None) -> Iterator[str]:
    """SentencePiece's character maps in a normalizer, in base64."""
    if normalizer is not None and normalizer["type"] == "Precompiled":
        yield normalizer["precompiled_charsmap"]
    for part in (normalizer or {}).get("normalizers", ()):
        yield from _charsmaps(part)


def _add_tokens(tokenizer: Tokenizer, options: TokenizerOptions) -> None:
    """Add what the files name; the library numbers new tokens itself, and they must say the same numbers."""
    tokenizer.add_tokens(_tokens(options))
    for number, token in options.added.items():
        given = tokenizer.token_to_id(token.content)
        if given != number:
            raise InputError(
                f"the tokenizer's files give the added token {token.content!r} the id {number}, and the tokenizers "
                f"library gives it {given}: save the tokenizer again with save_pretrained()"
            )


def _tokens(options: TokenizerOptions) -> list[AddedToken]:
    """In transformers' order, which gives ids to those that are not in the vocabulary."""
    tokens = list(options.added.values())
    known = {token.content for token in tokens}
    for token in (*options.special.values(), *options.extra):
        if token.content not in known:
            tokens.append(token)
            known.add(token.content)
    named = {token.content for token in options.special.values()}
    for token in tokens:
        token.special = token.special or token.content in named
    return tokens


def _with_tokens(spec: dict[str, Any], options: TokenizerOptions) -> dict[str, Any]:
    """tokenizer.json with the tokens that only other files name."""
    tokenizer = _made(json.dumps(spec))
    before = tokenizer.get_added_tokens_decoder()
    _add_tokens(tokenizer, options)
    if len(tokenizer.get_added_tokens_decoder()) == len(before):
        return spec
    return {**spec, "added_tokens": _spec_of(tokenizer)["added_tokens"]}


def _with_one_type(spec: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer whose post-processor gives both texts of a pair the type 0."""
    changed: dict[str, Any] = json.loads(json.dumps(spec))
    if (changed.get("post_processor") or {}).get("type") == "BertProcessing":
        changed["post_processor"] = as_template(changed["post_processor"])
    if changed.get("post_processor") is None:
        plain = processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:0", special_tokens=[])
        changed["post_processor"] = json.loads(plain.__getstate__())
    for processor in _processors(changed.get("post_processor")):
        for piece in (*processor["single"], *processor["pair"]):
            for part in piece.values():
                part["type_id"] = 0
    if any(_made(json.dumps(changed)).encode("a", "a").type_ids):
        raise InputError(
            f"{TOKENIZER_CONFIG}: model_input_names has no token_type_ids, and the post_processor of {TOKENIZER_FILE} "
            "gives types that cannot be left out: expected a TemplateProcessing or BertProcessing"
        )
    return changed


def _processors(processor: Any) -> list[dict[str, Any]]:
    """The templates of a post-processor."""
    if not isinstance(processor, dict):
        return []
    if processor.get("type") == "Sequence":
        return [each for part in processor.get("processors", []) for each in _processors(part)]
    return [processor] if processor.get("type") == "TemplateProcessing" else []


def _read_vocabulary(path: Path, most_tokens: int) -> dict[str, int]:
    """One token per line; a token's id is its line. Blank lines at the end are no tokens."""
    text = read_text(path, MAX_VOCABULARY_BYTES, encoding="utf-8").replace("\r\n", "\n").replace("\r", "\n")
    if text.count("\n") > MAX_VOCABULARY:
        raise InputError(f"{path.name} has over {MAX_VOCABULARY} lines: expected a token in each, that many at most")
    lines = text.split("\n")
    while lines and not lines[-1]:
        lines.pop()
    if len(lines) > most_tokens:
        raise _too_many(path.name, len(lines), most_tokens)
    return {line: number for number, line in enumerate(lines)}


# Byte-level BPE tokenizers (Radford et al. 2019, GPT-2) from vocab.json and merges.txt, as older Whispers come.


_MORE_LINES = 16
_TIMESTAMP = re.compile(r"<\|\d+\.\d\d\|>")
"""Added tokens that are part of an answer; all others are special."""


def byte_level_tokenizer(folder: Path) -> dict[str, Any]:
    """The tokenizers JSON object of vocab.json, merges.txt and, where it is there, added_tokens.json.

    Raises:
        InputError: a file that cannot be used, or ids that the tokenizers library would not give.
    """
    vocab = _ids(folder / "vocab.json")
    added = _ids(folder / "added_tokens.json") if (folder / "added_tokens.json").is_file() else {}
    tokenizer = Tokenizer(models.BPE(vocab, _merges(folder / "merges.txt", vocab)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    spec: dict[str, Any] = json.loads(tokenizer.to_str())
    # GPT-2's end of text is an ordinary entry of the vocabulary there, and a special token everywhere.
    special = {token: number for token, number in vocab.items() if token.startswith("<|") and token.endswith("|>")}
    tokens = sorted({**special, **added}.items(), key=lambda pair: pair[1])
    spec["added_tokens"] = [_added_token(token, number) for token, number in tokens]
    made = Tokenizer.from_str(json.dumps(spec))
    moved = [token for token, number in tokens if made.token_to_id(token) != number]
    if moved:
        raise InputError(f"added_tokens.json: expected ids without gaps behind vocab.json's, found {moved[0]!r} apart")
    return spec


def _ids(path: Path) -> dict[str, int]:
    ids = read_object(path, MAX_VOCABULARY_JSON_BYTES)
    if not all(type(number) is int and number >= 0 for number in ids.values()):
        raise InputError(f"{path.name} must map tokens to their ids")
    return ids


def _merges(path: Path, vocab: dict[str, int]) -> list[tuple[str, str]]:
    """A pair of tokens per line, behind a line with a version."""
    lines = read_text(path, MAX_VOCABULARY_BYTES, encoding="utf-8").split("\n")
    if len(lines) > 2 * len(vocab) + _MORE_LINES:  # each pair makes another token
        raise InputError(
            f"{path.name} has {len(lines)} lines, and vocab.json {len(vocab)} tokens: expected fewer pairs"
        )
    pairs = []
    for line in lines:
        if not line or line.startswith("#version"):
            continue
        pair = line.split(" ", 2)
        if len(pair) != 2 or "".join(pair) not in vocab or not all(part in vocab for part in pair):
            raise InputError(f"{path.name}: expected pairs of tokens of vocab.json, found {shorten(' '.join(pair))}")
        pairs.append((pair[0], pair[1]))
    return pairs


def _added_token(token: str, number: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": token, **flags, "special": _TIMESTAMP.fullmatch(token) is None}
