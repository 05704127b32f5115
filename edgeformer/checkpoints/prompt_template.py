"""A prompt before every text, built into a tokenizer: its tokens stand in the template behind the first special one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tokenizers import Tokenizer

from edgeformer.tasks.samples import TEXTS
from edgeformer_runtime.errors import InputError


def with_prompt(tokenizer_json: str, prompt: str) -> str:
    """A tokenizer that gives for a text what it gave for the prompt and the text in one.

    That is exact where no token can reach from the prompt into the text: WordPiece over BERT's words, and a prompt
    that ends in a space or a mark, and that no added token begins in. Of a pair, the first text gets it.

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
    """Whether an added token begins in the prompt and may end in a text."""
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
