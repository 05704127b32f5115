"""Byte-level BPE tokenizers (Radford et al. 2019, GPT-2) from vocab.json and merges.txt, as older Whispers come."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from edgeformer.bounded_files import MAX_VOCABULARY_BYTES, read_text
from edgeformer.models.json_files import MAX_VOCABULARY_JSON_BYTES, read_object
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError

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
