# ruff: noqa: RUF001
"""Writes byte_level.json: token ids of byte-level BPE as text, whole characters only."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import tokenizers
from tokenizers import Tokenizer

from edgeformer_runtime.decoding.tokenizer import SpeechTokenizer
from tests.checkpoint_factory import whisper_tokenizer
from tests.golden.golden_files import document

TEXTS = (
    "",
    " the lights are on and the music is off.",
    " Ünïcödé, naïve café",
    " 你好，世界",
    " 👍🏽 and 👨‍👩‍👧",
    " שלום مرحبا नमस्ते",
    "\n\t a  b\u00a0c \u0000\u001f\u007f\u00ad",
)
RANDOM_CASES = 60
EDGES = (0x41, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC1, 0xC3, 0xE0, 0xE4, 0xED, 0xEF, 0xF0, 0xF4, 0xF5, 0xFF)
"""Bytes at which UTF-8 changes its mind; what a cut leaves of the texts above is tested with them."""
REPLACEMENT = "\ufffd"


def files() -> dict[str, bytes]:
    """The golden file by name."""
    made = whisper_tokenizer(multilingual=False)
    text = _without_timestamps(made)
    tokenizer = Tokenizer.from_str(text)
    end = tokenizer.token_to_id("<|endoftext|>")
    reader = SpeechTokenizer(text, end)
    cases = []
    for ids in _sequences(tokenizer, end):
        found = reader.text(ids)
        whole = tokenizer.decode([token for token in ids if token < end], skip_special_tokens=False)
        # The library writes U+FFFD for a character that is cut off at the end; there it is held back.
        assert whole in (found, found + REPLACEMENT), (ids, found, whole)
        cases.append({"ids": ids, "text": found})
    return {"byte_level.json": document(f"tokenizers {tokenizers.__version__}", cases, tokenizer=text, end=end)}


def _without_timestamps(made: Tokenizer) -> str:
    """The tokenizer's file with few of its 1501 timestamps, to keep it small."""
    spec = json.loads(made.to_str())
    spec["added_tokens"] = spec["added_tokens"][:20]
    return json.dumps(spec, ensure_ascii=False, separators=(",", ":"))


def _sequences(tokenizer: Tokenizer, end: int) -> Iterator[list[int]]:
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        yield ids
        yield [end + 1, end + 3, *ids, end]
        yield ids[:-1]
        yield ids[:-2]
    generator = random.Random(2)
    byte_ids = [tokenizer.token_to_id(character) for character in _alphabet()]
    for index in range(RANDOM_CASES):
        if index % 2:
            yield [*(generator.randrange(end) for _ in range(12)), byte_ids[ord("A")]]
        else:  # bytes that begin and continue characters
            yield [*(byte_ids[generator.choice(EDGES)] for _ in range(8)), byte_ids[ord("A")]]


def _alphabet() -> list[str]:
    """The character that stands for each byte: printable ones of Latin-1 themselves, others from U+0100 on."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = iter(range(0x100, 0x200))
    return [chr(byte) if byte in own else chr(next(moved)) for byte in range(256)]
