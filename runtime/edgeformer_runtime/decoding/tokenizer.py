"""A model's tokens as text, text as tokens, and text split into words; text as it is written; chats as prompts."""

from __future__ import annotations

import codecs
import json
import re
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from edgeformer_runtime.bundle.strict_json import loads, shorten
from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.preprocess.tokenizer import MAX_TEXT_CHARACTERS, Tokenizer, check_text

_WITHOUT_SPACES = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x2E80, 0x312F),  # ideographs' parts and punctuation, hiragana, katakana
    (0x3190, 0x9FFF),  # ideographs, without Hangul
    (0xF900, 0xFAFF),
    (0xFE30, 0xFE4F),
    (0xFF00, 0xFF9F),  # the same and Latin in full width
    (0x20000, 0x3FFFF),
)
"""Code points of the scripts that put no spaces between words: there, whatever is a whole character is a word."""


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

        Bytes at the end that are only the start of a character are held back; others that are no UTF-8 become
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

    def words(self, tokens: Sequence[int]) -> list[TextPiece]:
        """Text tokens in groups that are words, each with the space before it; punctuation is a word of its own."""
        words: list[TextPiece] = []
        for piece in self.characters(tokens):
            if (
                not words
                or piece.text.startswith(" ")
                or piece.text in string.punctuation
                or not has_spaces(words[-1].text, piece.text)
            ):
                words.append(piece)
                continue
            joined = words.pop()
            # Inside a word, as in 3.5 and well-known.
            if words and joined.text in string.punctuation and has_spaces(words[-1].text, piece.text):
                joined = _join(words.pop(), joined)
            words.append(_join(joined, piece))
        return words

    def bytes_of(self, token: int) -> bytes:
        """The bytes of a text that a text token stands for; several tokens may make one character."""
        return self._bytes[token]


def has_spaces(before: str, after: str) -> bool:
    """Whether the scripts in which one text ends and another begins put spaces between words."""
    return not any(
        first <= ord(character) <= last for character in before[-1:] + after[:1] for first, last in _WITHOUT_SPACES
    )


def join_texts(texts: Iterable[str]) -> str:
    """Texts as one, with spaces between them where their scripts have spaces; a translation has its own script's."""
    joined = ""
    for text in texts:
        joined += (" " if joined and text and has_spaces(joined, text) else "") + text
    return joined


def _join(first: TextPiece, second: TextPiece) -> TextPiece:
    return TextPiece(first.text + second.text, first.tokens + second.tokens)


def _utf8_decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")(errors="replace")


# The bytes that the tokens of a byte-level BPE stand for (Radford et al. 2019, section 2.2).


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
        found = self.get(token)
        if not found:
            raise BundleError(f"the tokenizer's token {token} stands for no bytes: expected byte-level BPE")
        return found

    def get(self, token: int) -> bytes:
        """The bytes of a token; none of one that the vocabulary does not have, or not as bytes."""
        start, end = self._ends[token : token + 2]
        return bytes(self._bytes[start:end])


class TextTokens:
    """The bytes of every token that a model may generate. Thread-safe: nothing changes after init."""

    def __init__(self, tokenizer_json: str, count: int) -> None:
        """Read the tokens 0 to count - 1; errors as of `TokenBytes`."""
        self._bytes = TokenBytes(tokenizer_json, count)
        added = json.loads(tokenizer_json).get("added_tokens") or []
        self._added = {int(each["id"]): b"" if each["special"] else str(each["content"]).encode() for each in added}
        self.special = tuple(str(each["content"]) for each in added if each["special"])
        """The special tokens as they are written."""

    def bytes_of(self, token: int) -> bytes:
        """What a token writes: nothing, if it is special or stands for nothing."""
        return self._added[token] if token in self._added else self._bytes.get(token)


class TextStream:
    """Bytes of tokens to whole characters, as they come, up to the first stop string.

    What may be the start of a stop string is held back until the next bytes tell.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        """Start a text; none of the stops is empty."""
        self.stopped = False
        """A stop string was found: the text ends before it."""
        self._stops = stops
        self._decoder = _utf8_decoder()
        self._held = ""

    def feed(self, written: bytes) -> str:
        """The text that is sure after more bytes; those that are no UTF-8 become U+FFFD."""
        self._held += self._decoder.decode(written)
        places = [place for place in map(self._held.find, self._stops) if place >= 0]
        if places:
            self.stopped = True
            return self._released(min(places))
        longest = max((self._overlap(stop) for stop in self._stops), default=0)
        return self._released(len(self._held) - longest)

    def finish(self) -> str:
        """What was held back, as no more bytes come; a character of which some are missing is left out."""
        return self._released(len(self._held))

    def _released(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        return text

    def _overlap(self, stop: str) -> int:
        """How many characters at the end of what is held may be the beginning of a stop string."""
        most = min(len(stop) - 1, len(self._held))
        return next((size for size in range(most, 0, -1) if self._held.endswith(stop[:size])), 0)


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


# A chat as the prompt that its model was trained on: a template of Jinja's language, as checkpoints have it.


MAX_TEMPLATE_BYTES = 1 << 20
_PRIVATE_USE = range(0xE000, 0xF900)


class ChatTemplate:
    """Turns messages into a prompt, as transformers' `apply_chat_template` does. Thread-safe.

    The template is a stranger's program: Jinja's sandbox runs it, which changes nothing outside and counts to at most
    100,000 in one loop. What it writes is bounded here; its time is, where the bundle has a process of its own.
    """

    def __init__(self, text: str, special: Sequence[str]) -> None:
        """Compile a template.

        Args:
            text: of the bundle's file.
            special: the tokenizer's special tokens as they are written.

        Raises:
            BundleError: it is no template, or jinja2 is not installed.
        """
        try:
            import jinja2
            from jinja2 import ext, nodes, parser, sandbox
        except ImportError:
            raise BundleError(
                "a chat needs jinja2, which renders its template: pip install 'edgeformer-runtime[chat]'"
            ) from None

        class Generation(ext.Extension):
            """Of templates for training: what stands between its tags is the model's own text, and only written."""

            tags = {"generation"}  # noqa: RUF012  (as the base class has it)

            def parse(self, parser: parser.Parser) -> list[nodes.Node]:
                next(parser.stream)
                return parser.parse_statements(("name:endgeneration",), drop_needle=True)

        environment = sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals |= {"raise_exception": _refuse, "strftime_now": _now}
        try:
            self._template = environment.from_string(text)
        except (jinja2.TemplateError, RecursionError) as error:
            raise BundleError(f"the chat template is none: {shorten(str(error), 200)[1:-1]}") from None
        self._text = text
        longest_first = sorted(filter(None, special), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def prompt(self, messages: Sequence[Mapping[str, Any]], continued: bool = True) -> list[tuple[str, bool]]:
        """A chat as parts of a prompt, each with whether a special token in it is that token.

        A special token that somebody wrote into a message is text, so that nobody ends a message or starts another
        role: while the template runs, a mark stands in its place.

        Args:
            messages: each with "role" and "content", both texts.
            continued: the prompt ends where the assistant's answer begins.

        Raises:
            InputError: it is no chat, or the template refuses it or fails.
        """
        check_messages(messages)
        contents = "".join(str(value) for message in messages for value in message.values())
        mark = next((chr(code) for code in _PRIVATE_USE if chr(code) not in contents + self._text), None)
        if mark is None:
            raise InputError("a chat has every private character of Unicode in it: expected texts")
        typed: list[str] = []

        def hide(found: re.Match[str]) -> str:
            typed.append(found[0])
            return f"{mark}{len(typed) - 1}{mark}"

        hidden = [{key: self._special.sub(hide, value) for key, value in message.items()} for message in messages]
        parts = "".join(self._rendered(hidden, continued)).split(mark)
        shown = ((part, True) if place % 2 == 0 else (typed[int(part)], False) for place, part in enumerate(parts))
        return [part for part in shown if part[0]]

    def _rendered(self, messages: Sequence[Mapping[str, str]], continued: bool) -> Iterator[str]:
        size = 0
        try:
            for part in self._template.generate(messages=list(messages), add_generation_prompt=continued):
                size += len(part)
                if size > MAX_TEXT_CHARACTERS:
                    raise InputError(f"the chat's prompt has more than {MAX_TEXT_CHARACTERS} characters: shorten it")
                yield part
        except InputError:
            raise
        except Exception as error:  # whatever a stranger's program may raise
            raise InputError(f"the chat template refuses this chat: {shorten(str(error), 200)[1:-1]}") from None


def is_chat(raw: Any) -> bool:
    """Whether a prompt is a list of messages."""
    return isinstance(raw, list) and bool(raw) and all(isinstance(each, Mapping) for each in raw)


def check_messages(messages: Sequence[Mapping[str, Any]]) -> None:
    """Raises InputError: a message is more, less or else than the texts "role" and "content"."""
    for number, message in enumerate(messages):
        if set(message) != {"role", "content"} or not all(isinstance(value, str) for value in message.values()):
            found = ", ".join(f"{shorten(key)} as {type(value).__name__}" for key, value in message.items())
            raise InputError(f"message {number} of a chat: expected role and content as texts, found {found or 'none'}")
        for value in message.values():
            check_text(value)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **more: Any) -> str:
    """Without the escapes of HTML that Jinja's own has."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)


def _refuse(message: str) -> None:
    raise InputError(f"the chat template refuses this chat: {shorten(str(message), 200)[1:-1]}")


def _now(form: str) -> str:
    import datetime

    return datetime.datetime.now().strftime(form)
