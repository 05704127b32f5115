"""What a tokenizer's file may ask of the `tokenizers` library: known steps, with bounds on their time and output."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from edgeformer_runtime.bundle import strict_json
from edgeformer_runtime.bundle.specs import MAX_TOKENIZER_BYTES
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import BundleError

MAX_STEPS = 32
"""Of a normalizer, a pre-tokenizer, a decoder or a post-processor, those inside of sequences counted."""
MAX_GROWTH = 8.0
"""How many times longer all replacements of a normalizer or a decoder together may make a text."""
MAX_ADDED_TOKENS = 100_000
MAX_TOKEN_CHARACTERS = 1024
MAX_AFFIX_CHARACTERS = 64
"""Of what is written before or behind pieces, such as ## and </w>, or before a text."""
MAX_WORD_CHARACTERS = 200
"""`max_input_chars_per_word` of WordPiece, whose time is cubic in it."""
MAX_TEMPLATE_PIECES = 32
MAX_CHARSMAP_BYTES = 128
"""Of one entry of a SentencePiece map of characters; NFKC's longest one has 33."""

_UNICODE_FORMS = ("NFC", "NFD", "NFKC", "NFKD")
# The types of each part, and the key that holds the parts of its Sequence.
_STEPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "normalizer": (
        "normalizers",
        (
            "BertNormalizer",
            "ByteLevel",
            "Lowercase",
            *_UNICODE_FORMS,
            "Nmt",
            "Precompiled",
            "Prepend",
            "Replace",
            "Strip",
            "StripAccents",
        ),
    ),
    "pre_tokenizer": (
        "pretokenizers",
        (
            "BertPreTokenizer",
            "ByteLevel",
            "CharDelimiterSplit",
            "Digits",
            "Metaspace",
            "Punctuation",
            "Split",
            "UnicodeScripts",
            "Whitespace",
            "WhitespaceSplit",
        ),
    ),
    "post_processor": ("processors", ("BertProcessing", "ByteLevel", "RobertaProcessing", "TemplateProcessing")),
    "decoder": (
        "decoders",
        ("BPEDecoder", "ByteFallback", "ByteLevel", "CTC", "Fuse", "Metaspace", "Replace", "Strip", "WordPiece"),
    ),
}
_MODELS = ("BPE", "Unigram", "WordLevel", "WordPiece")
_ONCE = ("ByteLevel", "Metaspace", "Precompiled", "Prepend", "TemplateProcessing")
"""Steps that make a text longer: a second one in the same part would do so again."""


def read_tokenizer_file(text: str | bytes, where: str) -> dict[str, Any]:
    """Parse a tokenizer's file from a stranger and check it before the library sees it.

    Raises:
        BundleError: it is no such file, or asks for what could take time or memory without bound.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    settings = strict_json.loads(raw, where, MAX_TOKENIZER_BYTES)
    if not isinstance(settings, dict):
        raise BundleError(f"{where}: not a tokenizers file: expected a JSON object, found {shorten(settings)}")
    for part in _STEPS:
        _check_part(settings.get(part), part, f"{where}: {part}")
    _check_model(settings.get("model"), f"{where}: model")
    _check_added(settings.get("added_tokens"), f"{where}: added_tokens")
    return settings


_MODEL = re.compile(r',\s*"model"\s*:\s*\{\s*"type"\s*:\s*"(\w+)"\s*,')
_BEFORE_MODEL = {"truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer"}


def settings_of_known_file(text: str) -> dict[str, Any]:
    """The settings of a file that `read_tokenizer_file` took before; of its model maybe the type alone.

    The library writes the model last, and the vocabulary in it is nearly all of the file. What precedes it is JSON if
    it is closed there with one brace, and only at the outermost level.
    """
    found = _MODEL.search(text)
    if found is not None:
        try:
            settings: dict[str, Any] = json.loads(text[: found.start()] + "}")
        except ValueError:
            settings = {}
        if settings.keys() >= _BEFORE_MODEL:
            return settings | {"model": {"type": found[1]}}
    whole: dict[str, Any] = json.loads(text)
    return whole


def steps(part: str, value: Any, where: str = "tokenizer") -> Iterator[Mapping[str, Any]]:
    """The steps of a part in their order, out of their sequences.

    Args:
        part: "normalizer", "pre_tokenizer", "post_processor" or "decoder".
        value: what the file has there, None for nothing.
        where: for messages.

    Raises:
        BundleError: a step has no known type, or there are too many.
    """
    key, known = _STEPS[part]
    waiting, seen = [value] if value is not None else [], 0
    while waiting:
        step, seen = waiting.pop(0), seen + 1
        if seen > MAX_STEPS:
            raise BundleError(f"{where}: more than {MAX_STEPS} steps")
        kind = step.get("type") if isinstance(step, dict) else None
        if kind == "Sequence" and isinstance(step.get(key), list):
            if len(step[key]) > MAX_STEPS:
                raise BundleError(f"{where}: more than {MAX_STEPS} steps")
            waiting = [*step[key], *waiting]
        elif kind in known:
            yield step
        else:
            raise BundleError(f"{where}: unknown type {shorten(kind)}: expected one of {', '.join(known)}")


def _check_part(value: Any, part: str, where: str) -> None:
    growth, seen = 1.0, set[str]()
    for step in steps(part, value, where):
        kind = step["type"]
        if kind in _ONCE and kind in seen:
            raise BundleError(f"{where}: {kind} occurs twice")
        seen.add(kind)
        if kind in ("Replace", "Split"):
            growth *= _replacement_growth(step, where)
        elif kind == "Prepend":
            _check_affix(step.get("prepend"), f"{where}: prepend")
        elif kind == "Precompiled":
            _check_charsmap(step.get("precompiled_charsmap"), where)
        elif kind == "TemplateProcessing":
            _check_template(step, where)
    if growth > MAX_GROWTH:
        raise BundleError(
            f"{where}: its replacements make a text up to {growth:.3g} times longer: expected {MAX_GROWTH:g} at most"
        )


def _replacement_growth(step: Mapping[str, Any], where: str) -> float:
    pattern = step.get("pattern")
    found = next(iter(pattern.items())) if isinstance(pattern, dict) and len(pattern) == 1 else (None, None)
    if found[0] not in ("String", "Regex") or not isinstance(found[1], str) or not found[1]:
        raise BundleError(f"{where}: pattern: expected a String or a Regex that is not empty, found {shorten(pattern)}")
    if found[0] == "Regex":
        shortest = shortest_match(found[1], where)
    else:
        _check_length(found[1], where)
        shortest = len(found[1])
    content = step.get("content", "")
    if not isinstance(content, str):
        raise BundleError(f"{where}: content: expected a text, found {shorten(content)}")
    return max(1.0, len(content) / shortest)


def _check_charsmap(value: Any, where: str) -> None:
    """The entries behind the trie end with a NUL each, and the library copies up to there for each character."""
    import base64

    try:
        data = base64.b64decode(value, validate=True)
        behind = 4 + struct.unpack_from("<I", data)[0]
    except (TypeError, ValueError, struct.error):
        behind, data = 1, b""
    longest = max((len(entry) for entry in data[behind:].split(b"\0")), default=0)
    if behind % 4 or behind > len(data) or longest > MAX_CHARSMAP_BYTES:
        raise BundleError(
            f"{where}: Precompiled: expected a SentencePiece map whose entries have at most {MAX_CHARSMAP_BYTES} bytes"
        )


def _check_template(step: Mapping[str, Any], where: str) -> None:
    """Each text stands in its template once: the tokens of a text come once. Models have two types of tokens."""
    for form, texts in (("single", ["A"]), ("pair", ["A", "B"])):
        pieces = step.get(form)
        if not isinstance(pieces, list) or len(pieces) > MAX_TEMPLATE_PIECES:
            raise BundleError(f"{where}: {form}: expected at most {MAX_TEMPLATE_PIECES} pieces")
        pieces = [piece for piece in pieces if isinstance(piece, dict)]
        sequences = [piece["Sequence"] for piece in pieces if "Sequence" in piece]
        if [sequence.get("id") if isinstance(sequence, dict) else None for sequence in sequences] != texts:
            raise BundleError(f"{where}: {form}: expected {' and '.join(texts)}, once each")
        kinds = [part.get("type_id", 0) for piece in pieces for part in piece.values() if isinstance(part, dict)]
        if any(kind not in (0, 1) for kind in kinds):
            raise BundleError(f"{where}: {form}: expected the token types 0 and 1, found {shorten(kinds)}")
    special = step.get("special_tokens")
    for token in special.values() if isinstance(special, dict) else ():
        ids = token.get("ids") if isinstance(token, dict) else None
        if not isinstance(ids, list) or len(ids) > MAX_TEMPLATE_PIECES:
            raise BundleError(f"{where}: special_tokens: expected at most {MAX_TEMPLATE_PIECES} ids each")


def _check_model(model: Any, where: str) -> None:
    if not isinstance(model, dict) or model.get("type", "BPE") not in _MODELS:  # the oldest files of BPE name no type
        kind = model.get("type") if isinstance(model, dict) else model
        raise BundleError(f"{where}: expected one of {', '.join(_MODELS)}, found {shorten(kind)}")
    vocabulary = model.get("vocab")
    tokens = vocabulary if isinstance(vocabulary, dict) else [entry[0] for entry in _pairs(vocabulary, where)]
    if any(len(token) > MAX_TOKEN_CHARACTERS for token in tokens):
        _check_length(max(tokens, key=len), f"{where}: vocab")
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        _check_affix(model.get(key), f"{where}: {key}")
    longest = model.get("max_input_chars_per_word", 0)
    if type(longest) is not int or longest > MAX_WORD_CHARACTERS:
        raise BundleError(
            f"{where}: max_input_chars_per_word: expected {MAX_WORD_CHARACTERS} at most, found {shorten(longest)}"
        )
    if model.get("dropout") not in (None, 0):
        raise BundleError(f"{where}: dropout: expected null, found {shorten(model['dropout'])}: ids would be random")


def _pairs(vocabulary: Any, where: str) -> list[Any]:
    """Unigram's vocabulary: tokens with their scores."""
    entries = vocabulary if isinstance(vocabulary, list) else [None]
    for entry in entries:
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)):
            raise BundleError(f"{where}: vocab: expected tokens with ids or scores, found {shorten(entry)}")
    return entries


def _check_added(added: Any, where: str) -> None:
    if added is None:
        return
    if not isinstance(added, list) or len(added) > MAX_ADDED_TOKENS:
        raise BundleError(f"{where}: expected a list of at most {MAX_ADDED_TOKENS}")
    for token in added:
        content = token.get("content") if isinstance(token, dict) else None
        if not isinstance(content, str):
            raise BundleError(f"{where}: expected tokens with a content, found {shorten(token)}")
        _check_length(content, where)


def _check_affix(value: Any, where: str) -> None:
    if value is not None and not (isinstance(value, str) and len(value) <= MAX_AFFIX_CHARACTERS):
        raise BundleError(f"{where}: expected at most {MAX_AFFIX_CHARACTERS} characters, found {shorten(value, 40)}")


def _check_length(token: str, where: str) -> None:
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise BundleError(f"{where}: a token of {len(token)} characters: expected {MAX_TOKEN_CHARACTERS} at most")


# Regular expressions of tokenizer files: which ones cannot take more than linear time, and how little they match.


MAX_PATTERN_CHARACTERS = 512
MAX_VARIANTS = 256
"""Ways in which the bounded quantifiers of one alternative can be taken: what a failing match may try."""

_GPT2_WORDS = r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_GPT4_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SUFFIXES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"

KNOWN_PATTERNS = (
    rf"'s|'t|'re|'ve|'m|'ll|'d|{_GPT2_WORDS}",  # GPT-2, Whisper
    rf"'(?:[sdmt]|ll|ve|re)|{_GPT2_WORDS}",  # the same, as tiktoken writes it
    rf"{_SUFFIXES}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_GPT4_REST}",  # Llama 3
    rf"{_SUFFIXES}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_GPT4_REST}",  # Qwen 2
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_SUFFIXES}?|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_SUFFIXES}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",  # GPT-4o
)
"""Of public models, which need more than the safe kind and are linear: each matches a character or more."""

_ATOM = (
    r"\[\^?(?:[^\[\]\\&]|\\[pP]\{\^?\w+\}|\\[^\dpPbBAzZGkgKRXyYNO])+\]"  # a class; none inside it, no intersection
    r"|\\[pP]\{\^?\w+\}|\\[sSdDwWnrtfv]|\\[^\w\s]"  # a property, a short class, a character that is escaped
    r"|[^\\()\[\]{}|*+?^$]"
)
_QUANTIFIER = r"(?P<sign>[?*+])|\{(?P<low>\d{1,3})(?P<comma>,(?P<high>\d{1,3})?)?\}"


def shortest_match(pattern: str, where: str) -> int:
    """How many characters a pattern matches at least.

    A pattern is one of `KNOWN_PATTERNS`, or alternatives without groups, each a row of characters and classes whose
    last one alone may repeat without bound: a matcher that backtracks goes through text once with it. Others, such as
    (a+)+b or \\s+$, can take time that is quadratic or exponential in the text.

    Raises:
        BundleError: it is neither, is too long, or can match nothing.
    """
    if pattern in KNOWN_PATTERNS:
        return 1
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        raise BundleError(f"{where}: a pattern of {len(pattern)} characters: expected {MAX_PATTERN_CHARACTERS} at most")
    shortest = min(_alternatives(pattern, where))
    if shortest == 0:
        raise BundleError(f"{where}: the pattern {shorten(pattern)} matches the empty text: expected a character")
    return shortest


def _alternatives(pattern: str, where: str) -> Iterator[int]:
    """The least number of characters of each alternative."""
    position, least, variants, open_ended = int(pattern.startswith("^")), 0, 1, False
    while position < len(pattern):
        if pattern[position] == "|":
            yield least
            position, least, variants, open_ended = position + 1, 0, 1, False
            position += int(pattern.startswith("^", position))
            continue
        atom = re.compile(_ATOM).match(pattern, position)
        if atom is None or open_ended:
            raise _unsafe(pattern, where)
        quantifier = re.compile(_QUANTIFIER).match(pattern, atom.end())
        position = atom.end() if quantifier is None else quantifier.end()
        low, high = (1, 1) if quantifier is None else _bounds(quantifier)
        open_ended = high is None
        variants *= 1 if high is None else max(high - low, 0) + 1
        if variants > MAX_VARIANTS:
            raise _unsafe(pattern, where)
        least += low
    yield least


def _bounds(quantifier: re.Match[str]) -> tuple[int, int | None]:
    sign = quantifier["sign"]
    if sign is not None:
        return (1 if sign == "+" else 0), (1 if sign == "?" else None)
    low = int(quantifier["low"])
    if quantifier["comma"] is None:
        return low, low
    return low, None if quantifier["high"] is None else int(quantifier["high"])


def _unsafe(pattern: str, where: str) -> BundleError:
    return BundleError(
        f"{where}: the pattern {shorten(pattern)} could take too long: expected characters and classes without groups, "
        "the last one alone repeated without bound, or the pattern of a public model"
    )
