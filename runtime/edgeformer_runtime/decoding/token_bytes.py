"""The bytes that the tokens of a byte-level BPE stand for (Radford et al. 2019, section 2.2)."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeformer_runtime.bundle.strict_json import loads, shorten
from edgeformer_runtime.errors import BundleError

MAX_BYTES = 64 << 20
"""Of a tokenizer's file."""


class TokenBytes:
    """What each token stands for, in one block of memory.

    A transcript needs no more of a tokenizer. The vocabulary of Whisper takes half a megabyte here, and 25 in the
    tokenizers library, which is a tenth of what transcribing takes in all.
    """

    def __init__(self, tokenizer_json: str, count: int) -> None:
        """Read the tokens 0 to count - 1 from the text of a file of the `tokenizers` library.

        Raises:
            BundleError: the text is no such file.
        """
        written = _vocabulary(tokenizer_json, count)
        byte_of = _byte_of_character()
        self._bytes = bytearray()
        self._ends = np.zeros(count + 1, np.uint32)
        for token in range(count):
            characters = written.get(token, "")
            # A token that is not there, or is no byte-level one, stands for nothing: `[]` says so when it is needed.
            if all(character in byte_of for character in characters):
                self._bytes += bytes(byte_of[character] for character in characters)
            self._ends[token + 1] = len(self._bytes)

    def __getitem__(self, token: int) -> bytes:
        """The bytes of a token; several tokens may make one character.

        Raises:
            BundleError: the vocabulary has no such token of bytes.
        """
        start, end = self._ends[token : token + 2]
        if start == end:
            raise BundleError(f"the tokenizer's token {token} stands for no bytes: expected byte-level BPE")
        return bytes(self._bytes[start:end])


def _vocabulary(tokenizer_json: str, count: int) -> dict[int, str]:
    document: Any = loads(tokenizer_json.encode("utf-8", "replace"), "the tokenizer", MAX_BYTES)
    model = document.get("model") if isinstance(document, dict) else None
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocabulary, dict):
        raise BundleError(f"the tokenizer: expected a BPE's vocabulary, found {shorten(vocabulary)}")
    for token in vocabulary.values():
        if type(token) is not int:
            raise BundleError(f"the tokenizer: expected a number for each token, found {shorten(token)}")
    return {token: written for written, token in vocabulary.items() if 0 <= token < count}


def _byte_of_character() -> dict[str, int]:
    """The byte that each character of byte-level BPE's alphabet stands for.

    Printable characters of Latin-1 stand for themselves; the other bytes, in order, for the characters from U+0100 on.
    """
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    moved = sorted(set(range(256)) - set(own))
    return {chr(byte): byte for byte in own} | {chr(256 + number): byte for number, byte in enumerate(moved)}
