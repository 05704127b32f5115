"""A speech model's tokens as text, text as tokens, and text split into words."""

from __future__ import annotations

import codecs
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from edgeformer_runtime.decoding.token_bytes import TokenBytes
from edgeformer_runtime.preprocess.tokenizer import Tokenizer

LANGUAGES_WITHOUT_SPACES = ("zh", "ja", "th", "lo", "my", "yue")
"""Languages that put no spaces between words: there, whatever is a whole character is a word."""


@dataclass(frozen=True)
class TextPiece:
    """Tokens that belong together, and their text."""

    text: str
    tokens: tuple[int, ...]


class SpeechTokenizer:
    """Reads and writes the text tokens of a bundle: those below `end`; all others are special. Thread-safe."""

    def __init__(self, tokenizer_json: str, end: int) -> None:
        """Open a tokenizer.

        Args:
            tokenizer_json: the text of a file of the `tokenizers` library.
            end: the id of the token that ends a transcript; Whisper's text tokens are those below it.

        Raises:
            BundleError: the text is no such file.
        """
        self._json = tokenizer_json
        self._end = end
        self._bytes = TokenBytes(tokenizer_json, end)

    def text(self, tokens: Iterable[int]) -> str:
        """The text of tokens; special ones have none.

        Bytes at the end that are only the beginning of a character are held back; others that are no UTF-8 become
        U+FFFD.
        """
        decoder = _utf8_decoder()
        return "".join(decoder.decode(self._bytes[token]) for token in tokens if token < self._end)

    def tokens(self, text: str) -> list[int]:
        """The tokens of text as it stands inside a transcript, where words begin with a space. Never special ones."""
        ids = self._library.text_tokens(" " + text.strip())
        return [token for token in ids if token < self._end]

    @cached_property
    def _library(self) -> Tokenizer:
        """The tokenizers library's own tokenizer, for those who have text to give: an initial prompt."""
        return Tokenizer(self._json, "the tokenizer")

    def characters(self, tokens: Sequence[int]) -> list[TextPiece]:
        """Tokens in the smallest groups that are whole characters; a cut off character at the end is dropped text."""
        pieces = []
        decoder = _utf8_decoder()
        text, group = "", list[int]()
        for token in tokens:
            text += decoder.decode(self._bytes[token])
            group.append(token)
            if not decoder.getstate()[0]:
                pieces.append(TextPiece(text, tuple(group)))
                text, group = "", []
        if group:
            pieces.append(TextPiece(text, tuple(group)))
        return pieces

    def words(self, tokens: Sequence[int], language: str) -> list[TextPiece]:
        """Tokens in groups that are words, each with the space before it; punctuation is a word of its own.

        Args:
            tokens: text tokens.
            language: a code as "en".
        """
        pieces = self.characters(tokens)
        if language in LANGUAGES_WITHOUT_SPACES:
            return pieces
        words: list[TextPiece] = []
        for piece in pieces:
            if not words or piece.text.startswith(" ") or piece.text in string.punctuation:
                words.append(piece)
                continue
            joined = words.pop()
            if words and joined.text in string.punctuation:  # inside a word, as in 3.5 and well-known
                joined = _join(words.pop(), joined)
            words.append(_join(joined, piece))
        return words

    def bytes_of(self, token: int) -> bytes:
        """The bytes of a text that a text token stands for; several tokens may make one character."""
        return self._bytes[token]


def _join(first: TextPiece, second: TextPiece) -> TextPiece:
    return TextPiece(first.text + second.text, first.tokens + second.tokens)


def _utf8_decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")(errors="replace")
