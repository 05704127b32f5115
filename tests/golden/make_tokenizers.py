"""Writes tokenizers.json: what the tokenizers library makes of hostile text, for each kind that phones read.

The files are small and made here. A hash tells the tokens of a text (`_hash`).
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import struct
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import tokenizers
from tokenizers import Tokenizer

from edgeformer_runtime.preprocess.tokenizer_file import KNOWN_PATTERNS
from tests.golden.golden_files import document
from tests.golden.make_unicode import BLOCK, SURROGATES
from tests.golden.make_wordpiece import LINES, _random_lines

CLIP = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
SPACE = "\u2581"
TEXTS = (
    *LINES,
    "I'm they'll we'Ve it\u2019s 'S '\u017f 'RE don't   two  spaces \n\n three\r\n  \t tabs ",
    "12345 6,789.00 \u0664\u0665 \u00bd\u00be \u2167 x2 H2O",
    "<s>a</s> <s> <mask> x<mask>  y the then there the. abthe ab",
    "Stop-ME now\u00a0\u00a0<unk>\ufb01ne\u2460\u2460\u0301 "
    "e\u0301\u0301 \u0600a \u0600\u0301 \u00e9\u0301 \u2581\u2581lone \u2581",
    "``quoted'' text "
    "\u1112\u1161\u11ab\u1100\u1161 \ud55c\uae00 \uac00\u11a8 \u212b \u0344\u0958 \u1e9b\u0323 \uff71\uff9e",
    "CamelCaseWORDS HTTPServer iOS McDonald's \u01c5ungla \u00c9T\u00c9S",
)
FIRSTS = (*range(0, 0x30000, BLOCK), 0xE0000, 0x10F000)
"""Of the blocks of code points; what lies between is not assigned."""

WHOLE = ("clip", "xlm-roberta", "albert", "no-unknown", "contiguous", "pattern-5")
"""Tokenizers that see every code point: each kind of step is in one of them."""

DIGITS = 6
"""Of each hash."""


def files() -> dict[str, bytes]:
    """The golden file."""
    texts = [*TEXTS, *_random_lines()]
    made = _tokenizers(texts)
    cases = []
    for name, settings in made.items():
        tokenizer = Tokenizer.from_str(json.dumps(settings))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        cases.append(
            {
                "tokenizer": name,
                "texts": " ".join(_hash(tokenizer, text) for text in texts),
                "pairs": " ".join(_hash(tokenizer, *pair) for pair in zip(texts[1:9], texts, strict=False)),
                "blocks": " ".join(_hash(tokenizer, block) for block in _blocks()) if name in WHOLE else "",
            }
        )
    return {
        "tokenizers.json": document(
            f"tokenizers {tokenizers.__version__}",
            cases,
            tokenizers={
                name: json.dumps(each, ensure_ascii=False, separators=(",", ":")) for name, each in made.items()
            },
            texts=texts,
            block=BLOCK,
            firsts=FIRSTS,
        )
    }


def _hash(tokenizer: Tokenizer, text: str, pair: str | None = None) -> str:
    """Of each token, as text: id, type, start, end and word, -1 of a special token."""
    found = tokenizer.encode(text, pair)
    words = [-1 if word is None else word for word in found.word_ids]
    rows = zip(found.ids, found.type_ids, found.offsets, words, strict=True)
    told = "".join(f"{number},{kind},{start},{end},{word};" for number, kind, (start, end), word in rows)
    return hashlib.sha256(told.encode()).hexdigest()[:DIGITS]


def _blocks() -> Iterator[str]:
    """Every code point before a letter, behind a space, and beside its neighbours."""
    for first in FIRSTS:
        codes = (code for code in range(first, first + BLOCK) if code not in SURROGATES)
        yield "".join(f"{chr(code)}a {chr(code)}" for code in codes)


def _tokenizers(texts: list[str]) -> dict[str, dict[str, Any]]:
    """Tokenizer files by name, after those of public models whose steps they have."""
    split = {"type": "Split", "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    bytes_alone = {**byte_level, "use_regex": False}
    metaspace = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": True}
    charsmap = {"type": "Precompiled", "precompiled_charsmap": _charsmap()}
    roberta = {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1], "trim_offsets": True}
    framed = _template()
    gpt2, clip, pieces = _byte_bpe(texts), _byte_bpe(texts, "</w>"), _piece_bpe(texts)
    scores = _scores(texts)
    made = {
        "gpt2": _file(gpt2, pre_tokenizer=byte_level, post_processor=byte_level),
        "roberta": _file(
            gpt2,
            pre_tokenizer={**byte_level, "add_prefix_space": True},
            post_processor={**roberta, "add_prefix_space": True},
        ),
        "clip": _file(
            clip,
            normalizer=_steps("normalizers", {"type": "NFC"}, _replace("Regex", r"\s+", " "), {"type": "Lowercase"}),
            pre_tokenizer=_steps("pretokenizers", _pattern(CLIP, "Removed", invert=True), byte_level),
            post_processor={**roberta, "trim_offsets": False, "add_prefix_space": False},
        ),
        "xlm-roberta": _file(
            {"type": "Unigram", "unk_id": 0, "vocab": scores},
            normalizer=_steps("normalizers", charsmap, _replace("Regex", " {2,}", " ")),
            pre_tokenizer=metaspace,
            post_processor=framed,
        ),
        "t5": _file(
            {"type": "Unigram", "unk_id": 0, "vocab": scores},
            normalizer=charsmap,
            pre_tokenizer=_steps("pretokenizers", {"type": "WhitespaceSplit"}, metaspace),
        ),
        "albert": _file(
            {"type": "Unigram", "unk_id": 0, "byte_fallback": True, "vocab": [*scores, *[[b, -30.0] for b in BYTES]]},
            normalizer=_steps(
                "normalizers",
                _replace("String", "``", '"'),
                _replace("String", "''", '"'),
                {"type": "NFKD"},
                {"type": "StripAccents"},
                {"type": "Strip", "strip_left": True, "strip_right": True},
            ),
            pre_tokenizer={**metaspace, "prepend_scheme": "first"},
        ),
        "llama": _file(
            {**pieces, "byte_fallback": True, "fuse_unk": True},
            normalizer=_steps("normalizers", {"type": "Prepend", "prepend": SPACE}, _replace("String", " ", SPACE)),
            post_processor=framed,
        ),
        "pieces": _file(
            {**_piece_bpe(texts, bytes_too=False), "fuse_unk": False},
            normalizer={"type": "NFKC"},
            pre_tokenizer={**metaspace, "prepend_scheme": "first", "split": False},
        ),
        "no-unknown": _file(
            {**_piece_bpe(texts, bytes_too=False), "unk_token": None, "ignore_merges": True},
            normalizer={"type": "NFD"},
            pre_tokenizer=_steps(
                "pretokenizers",
                {"type": "Whitespace"},
                {"type": "Digits", "individual_digits": True},
                {"type": "Punctuation", "behavior": "MergedWithPrevious"},
            ),
        ),
        "contiguous": _file(
            {**_piece_bpe(texts, bytes_too=False), "fuse_unk": True},
            pre_tokenizer=_steps(
                "pretokenizers",
                {"type": "Punctuation", "behavior": "MergedWithNext"},
                {"type": "Digits", "individual_digits": False},
                _pattern(r"[^\p{L}\s]{1,3}|\p{Lu}+|\s", "Contiguous"),
            ),
        ),
    }
    for number, pattern in enumerate(KNOWN_PATTERNS[1:], 1):
        splits = {**split, "pattern": {"Regex": pattern}}
        made[f"pattern-{number}"] = _file(
            {**gpt2, "ignore_merges": True},
            pre_tokenizer=_steps("pretokenizers", splits, bytes_alone),
            post_processor=_steps("processors", {**byte_level, "add_prefix_space": False}, framed),
        )
    return made


def _file(model: dict[str, Any], **parts: Any) -> dict[str, Any]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            _added(0, "<unk>"),
            _added(1, "<s>"),
            _added(2, "</s>"),
            _added(3, "<mask>", lstrip=True),
            _added(4, "the", single_word=True, special=False),
            _added(5, "Stop-me", normalized=True, rstrip=True, special=False),
        ],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        **copy.deepcopy(parts),
        "model": model,
    }


def _added(number: int, content: str, **flags: bool) -> dict[str, Any]:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": number, "content": content, **plain, **flags}


def _steps(key: str, *steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", key: [*steps]}


def _replace(kind: str, pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def _pattern(regex: str, behavior: str, invert: bool = False) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert}


def _template() -> dict[str, Any]:
    special = {name: {"id": name, "ids": [number], "tokens": [name]} for number, name in ((1, "<s>"), (2, "</s>"))}
    first = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    end = [{"SpecialToken": {"id": "</s>", "type_id": 0}}]
    second = [{"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "</s>", "type_id": 1}}]
    return {
        "type": "TemplateProcessing",
        "single": first + end,
        "pair": first + end + second,
        "special_tokens": special,
    }


SPECIAL = ("<unk>", "<s>", "</s>", "<mask>", "the", "Stop-me")


def _byte_bpe(texts: list[str], suffix: str = "") -> dict[str, Any]:
    """Byte-level BPE, trained by counting; with a suffix each byte is twice there."""
    words = Counter(
        (*word[:-1], word[-1] + suffix)
        for text in texts
        for word, _ in tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)
    )
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokens, merges = (
        [*SPECIAL, *alphabet, *([letter + suffix for letter in alphabet] if suffix else [])],
        _merges(words),
    )
    return _bpe(tokens, merges, end_of_word_suffix=suffix or None, unk_token="<unk>" if suffix else None)


def _piece_bpe(texts: list[str], bytes_too: bool = True) -> dict[str, Any]:
    """BPE of characters, with the space as a character of its own; letters beyond Latin have no token."""
    words = Counter(
        tuple(f"{SPACE}{word}")
        for text in texts
        for word in text.split()
        if max(word) < "\u0250" and word.isprintable()
    )
    tokens = [
        *SPECIAL,
        *(BYTES if bytes_too else ()),
        SPACE,
        *sorted({letter for word in words for letter in word} - {SPACE}),
    ]
    return _bpe(tokens, _merges(words), unk_token="<unk>", end_of_word_suffix=None)


def _bpe(tokens: list[str], merges: list[tuple[str, str]], **more: Any) -> dict[str, Any]:
    tokens = list(dict.fromkeys([*tokens, *(first + second for first, second in merges)]))
    return {
        "type": "BPE",
        "dropout": None,
        "continuing_subword_prefix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        **more,
        "vocab": {token: number for number, token in enumerate(tokens)},
        "merges": [" ".join(merge) for merge in merges],
    }


def _merges(words: Counter[tuple[str, ...]], count: int = 60) -> list[tuple[str, str]]:
    """The most frequent pair, time after time; of equal ones the first by code points."""
    merges = []
    for _ in range(count):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, times in words.items():
            for pair in pairwise(word):
                pairs[pair] += times
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = Counter({_merged(word, best): times for word, times in words.items()})
    return merges


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    made: list[str] = []
    for piece in word:
        if made and (made[-1], piece) == pair and len(made[-1]) == len(pair[0]):
            made[-1] += piece
        else:
            made.append(piece)
    return tuple(made)


def _scores(texts: list[str]) -> list[list[Any]]:
    """Tokens with scores: characters, and parts of words that are frequent; the longer, the likelier they are."""
    counts: Counter[str] = Counter()
    for word in (f"{SPACE}{word}" for text in texts for word in text.split() if max(word) < "\u0400"):
        counts.update(word[i : i + size] for size in range(1, 7) for i in range(len(word) - size + 1))
    tokens = sorted(counts, key=lambda token: (-counts[token] * len(token), token))[:150]
    letters = sorted({letter for token in counts for letter in token if counts[letter] > 1} - set(tokens))
    known = [token for token in [*tokens, *letters] if token not in SPECIAL]
    return [*([name, 0.0] for name in SPECIAL), *([t, -2.0 - 0.25 * (n % 37) - n / 64] for n, t in enumerate(known))]


def _charsmap() -> str:
    """A map of SentencePiece: characters of NFKC, white space, marks that join, texts of several characters."""
    entries = {
        "\u00a0": " ", "\u3000": " ", "\t": " ", "\n": " ", "\u200b": " ", "\u200d": " ", "\u2460": "1", "\ufb01": "fi",
        "e\u0301": "\u00e9", "a\u0301\u0323": "\u00e1", "\u00bd": "1\u20442", "\uff21": "A", "\u00ad": "", "\u0007": "",
        "\u1e9b\u0323": "\u1e69", "\ufdfa": "\u0635\u0644\u0649 \u0627\u0644\u0644\u0647", "\u0600": "#", "I": "i",
        "\ufeff": "", "\u00e9": "e", "\U0001d400": "A", "\u212b": "\u00c5", "\u1112": "h",
    }  # fmt: skip
    blob, places = b"", {}
    for key, value in entries.items():
        places[key.encode()] = len(blob)
        blob += value.encode() + b"\0"
    units = _double_array(places)
    return base64.b64encode(struct.pack("<I", 4 * len(units)) + struct.pack(f"<{len(units)}I", *units) + blob).decode()


def _double_array(values: dict[bytes, int]) -> list[int]:
    """A trie whose node at x has its child by byte c at x ^ offset ^ c, and its value at x ^ offset (Aoe 1989)."""
    units, used = [0] * 8192, {0}

    def place(node: int, prefix: bytes) -> None:
        after = sorted({key[len(prefix)] for key in values if key.startswith(prefix) and len(key) > len(prefix)})
        labels = [*([0] if prefix in values else []), *after]
        base = next(b for b in range(1, len(units)) if not used & {b ^ label for label in labels})
        used.update(base ^ label for label in labels)
        units[node] |= (node ^ base) << 10 | (prefix in values) << 8
        if prefix in values:
            units[base] = values[prefix]
        for label in after:
            units[base ^ label] = label
            place(base ^ label, prefix + bytes([label]))

    place(0, b"")
    return units[: (max(used) // 256 + 1) * 256]
