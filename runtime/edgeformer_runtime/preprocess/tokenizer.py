"""The border to the `tokenizers` library: what it is given is checked, and how it fails is one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, cached_property
from itertools import pairwise
from typing import Any, Protocol

from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import BundleError, EdgeFormerError, InputError
from edgeformer_runtime.preprocess.tokenizer_file import (
    MAX_TOKEN_CHARACTERS,
    MAX_WORD_CHARACTERS,
    read_tokenizer_file,
    settings_of_known_file,
    steps,
)
from edgeformer_runtime.process import held_back
from edgeformer_runtime.registry import load_attribute

MAX_TEXT_CHARACTERS = 1_000_000

MAX_PAIR_CHARACTERS = 100_000
"""Of the shorter of two texts: which one is longer, in tokens, decides where both are cut."""

MAX_PAIRS_OF_PARTS = 10_000

_PLAIN = {"BertNormalizer", "BertPreTokenizer", "ByteLevel", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents"}
"""Steps of a tokenizer whose Rust code has nothing in it that a file's own data could make fail."""


class Encoding(Protocol):
    """Token ids of a text or a pair, special ones among them."""

    @property
    def ids(self) -> list[int]:
        """The tokens."""

    @property
    def type_ids(self) -> list[int]:
        """0 or 1 for each token: which text of a pair it belongs to."""

    @property
    def overflowing(self) -> list[Any]:
        """What was cut off."""

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """For each token its first character and the one behind its last, in the text that was given."""

    @property
    def word_ids(self) -> list[int | None]:
        """For each token the number of its word in its text; None: a special token."""

    @property
    def sequence_ids(self) -> list[int | None]:
        """For each token 0 for the text or 1 for its pair; None: a special token."""


class Tokenizer:
    """A tokenizer from a stranger's file. Calls from several threads are safe: nothing changes after init.

    The library is written in Rust. Where that panics, Python sees a PanicException, which is no Exception, and the
    process's stderr a report of its own: neither leaves this class.
    """

    def __init__(
        self, text: str, where: str, truncation: int | None = None, known: bool = False, literal: bool = False
    ) -> None:
        """Check and load a tokenizer.

        Args:
            text: the file's text. Its own truncation and padding are not used.
            where: the file's name, for messages.
            truncation: the most tokens of an encoding, special ones included; None: all are kept.
            known: the file was checked before, as `Bundle.known` says.
            literal: a special token that is written out in a text is text.

        Raises:
            BundleError: it is no tokenizers file, asks for more than BUNDLE.md allows, or its special tokens leave no
                room.
        """
        settings = settings_of_known_file(text) if known else read_tokenizer_file(text, where)
        self._where = where
        self._vocabulary_size: int | None = None
        kinds = {step["type"] for part in ("normalizer", "pre_tokenizer") for step in steps(part, settings.get(part))}
        self._quiet = kinds <= _PLAIN
        with _one_line(f"{where}: not a tokenizers file", BundleError), held_back(shown_on_failure=False):
            self._library: Any = load_attribute("tokenizers:Tokenizer").from_str(_readable(text, settings))
            self._library.no_padding()
            self._library.no_truncation()
            self._library.encode_special_tokens = literal
        self._longest = truncation
        if truncation is None:
            return
        special = self.special_tokens()
        if special >= truncation:
            raise BundleError(f"{where}: {special} special tokens leave no room for text in {truncation} positions")
        self._library.enable_truncation(truncation, strategy="longest_first")
        self._cut = TextCut(settings, truncation, self._count)

    def encode(self, text: str, pair: str | None = None) -> Encoding:
        """The tokens of a text, or of two, with the special ones.

        Raises:
            InputError: the text is no Unicode, is too long, or the library cannot take it.
        """
        for given in (text, pair):
            if given is not None:
                check_text(given)
        with self._calls():
            if self._longest is not None:
                text, pair = (self._cut.single(text), None) if pair is None else self._cut_pair(text, pair)
            encoding: Encoding = self._library.encode(text, pair)
        if self._longest is not None and len(encoding.ids) > self._longest:
            raise InputError(f"{self._where}: it gave {len(encoding.ids)} tokens where {self._longest} were asked for")
        return encoding

    def text_tokens(self, text: str) -> list[int]:
        """The tokens of a text alone.

        Raises:
            InputError: as `encode`.
        """
        check_text(text)
        with self._calls():
            ids: list[int] = self._library.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones left out.

        Raises:
            InputError: the library cannot write them.
        """
        with self._calls():
            text: str = self._library.decode(list(tokens), skip_special_tokens=True)
        return text

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Tokens as the vocabulary has them, whatever of a text they stand for."""
        with self._calls():
            return [self._library.id_to_token(each) or "" for each in ids]

    def token_id(self, token: str) -> int | None:
        """The id of a token, by how the vocabulary has it; None: it has it not."""
        with self._calls():
            found: int | None = self._library.token_to_id(token)
        return found

    def token_text(self, token: int) -> str:
        """The text of one token, special ones too."""
        with self._calls():
            text: str = self._library.decode([token], skip_special_tokens=False)
        return text

    def special_tokens(self, pair: bool = False) -> int:
        """How many tokens surround a text, or two."""
        with self._calls():
            count: int = self._library.num_special_tokens_to_add(pair)
        return count

    @cached_property
    def continuation(self) -> str | None:
        """What stands before a token that continues a word, as ##; None: nothing does."""
        return getattr(self._library.model, "continuing_subword_prefix", None) or None

    @cached_property
    def unknown(self) -> str | None:
        """The token for a word that the vocabulary does not have; None: there is none."""
        return getattr(self._library.model, "unk_token", None)

    @property
    def vocabulary_size(self) -> int:
        """One more than the largest id that it can give; ids may have gaps."""
        if self._vocabulary_size is None:
            with self._calls():
                ids = self._library.get_vocab(with_added_tokens=True).values()
            self._vocabulary_size = max(ids, default=-1) + 1
        return self._vocabulary_size

    def _cut_pair(self, text: str, pair: str) -> tuple[str, str]:
        """Beginnings with the same tokens. The library keeps what it cuts off, each part with each of the other's."""
        if min(len(text), len(pair)) > MAX_PAIR_CHARACTERS:
            raise InputError(f"both texts of the pair have over {MAX_PAIR_CHARACTERS} characters: shorten one of them")
        text, pair = self._cut.pair(text, pair)
        if len(text) * len(pair) > MAX_PAIRS_OF_PARTS:
            parts = [len(each.overflowing) for each in self._library.encode_batch([text, pair])]
            if parts[0] * parts[1] > MAX_PAIRS_OF_PARTS:
                raise InputError(f"both texts of the pair are far longer than {self._longest} tokens: shorten one")
        return text, pair

    def _count(self, text: str) -> int:
        """How many tokens a text has alone; of a long one the parts that truncation sets aside are counted too."""
        encoding = self._library.encode(text, add_special_tokens=False)
        return len(encoding.ids) + sum(len(part.ids) for part in encoding.overflowing)

    @contextmanager
    def _calls(self) -> Iterator[None]:
        quiet: AbstractContextManager[None] = nullcontext() if self._quiet else held_back(shown_on_failure=False)
        with _one_line(f"{self._where}: the tokenizer cannot take this input", InputError), quiet:
            yield


def check_text(text: str) -> None:
    """Refuse text that the tokenizer cannot take: too long, or with lone surrogates, which have no UTF-8.

    Raises:
        InputError: says which.
    """
    if len(text) > MAX_TEXT_CHARACTERS:
        raise InputError(f"the text has {len(text)} characters: expected at most {MAX_TEXT_CHARACTERS}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"the text is not valid Unicode: half of a surrogate pair at character {error.start}"
        ) from None


def _readable(text: str, settings: Mapping[str, Any]) -> str:
    """The file's text, without truncation and padding of its own, whose values can make the library panic."""
    if settings.get("truncation") is None and settings.get("padding") is None:
        return text
    return json.dumps(json.loads(text) | {"truncation": None, "padding": None}, ensure_ascii=False)


@contextmanager
def _one_line(what: str, kind: type[EdgeFormerError]) -> Iterator[None]:
    """Turn the library's plain Exceptions, and its panics, into an error of ours."""
    try:
        yield
    except (EdgeFormerError, ImportError, MemoryError):
        raise
    except Exception as error:
        raise kind(f"{what}: {shorten(str(error))[1:-1]}") from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise kind(f"{what}: the tokenizers library failed: {shorten(str(error))[1:-1]}") from None


FIRST_CUT = 8
"""Characters per position of the model that are tried first: words of English have five to a token."""

MAX_UNCUT_CHARACTERS = 200_000
"""Of a text, or of the part of one, in which no place to cut is known: a tokenizer takes up to a second for it."""

_GROWTH = 4

_MARKS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"

_CHINESE = range(0x4E00, 0xA000)

_REWRITING = {"ByteLevel", "Nmt", "Prepend", "Replace", "Strip"}
"""Normalizers that may take a space away or that see where a text starts and ends."""


class TextCut:
    """Where texts may be cut for one tokenizer. Calls from several threads are safe: nothing changes after init."""

    def __init__(self, settings: Mapping[str, Any], longest: int, count: Callable[[str], int]) -> None:
        """Read from a tokenizer's settings whether there are places where a text may be cut.

        Args:
            settings: a tokenizers file's JSON, already checked.
            longest: the most tokens that a model takes.
            count: how many tokens a text has without special ones, at least whether it has more than `longest`.
        """
        self._settings = {key: settings.get(key) for key in ("added_tokens", "normalizer", "pre_tokenizer")}
        self._whole_words = _is_bert(settings)
        self._long_words = LongWords(settings)
        self._longest = longest
        self._count = count

    @cached_property
    def _places(self) -> re.Pattern[str] | None:
        return _places(self._settings)

    def single(self, text: str) -> str:
        """A text with the same tokens: a beginning with more than the model takes, or all where there are fewer.

        Raises:
            InputError: it is long, and nowhere is it known that it could be cut.
        """
        return self._beginning(self._long_words.shortened(text), least=0)

    def pair(self, text: str, other: str) -> tuple[str, str]:
        """Beginnings of two texts that are truncated, longest first, to the same tokens as the two."""
        text, other = self._long_words.shortened(text), self._long_words.shortened(other)
        # Of two texts that are both too long the longer gets the odd position: the beginnings must keep that order.
        first, second = self.single(text), self.single(other)
        if len(first) == len(text):
            return text, second if len(second) == len(other) else self._beginning(other, self._count(text) + 1)
        if len(second) == len(other):
            return self._beginning(text, self._count(other) + 1), other
        if self._all(text) <= self._all(other):
            return first, self._beginning(other, self._count(first))
        return self._beginning(text, self._count(second) + 1), second

    def _beginning(self, text: str, least: int) -> str:
        least = max(least, self._longest + 1)
        size = FIRST_CUT * least
        while size < len(text) and self._places is not None:
            place = self._places.search(text, size)
            if place is None:
                break
            if place.start() - size > MAX_UNCUT_CHARACTERS:
                raise _uncut(text)
            beginning = text[: place.start()]
            if self._count(beginning) >= least:
                return beginning
            size = _GROWTH * place.start()
        if len(text) > MAX_UNCUT_CHARACTERS and self._longest_piece(text) > MAX_UNCUT_CHARACTERS:
            raise _uncut(text)
        return text

    def _longest_piece(self, text: str) -> int:
        """The most characters between two places to cut, and all where none are known."""
        if self._places is None:
            return len(text)
        starts = [0, *(place.start() for place in self._places.finditer(text)), len(text)]
        return max(end - begin for begin, end in pairwise(starts))

    def _all(self, text: str) -> int:
        """The tokens of the whole text, counted part by part where a part starts as the text does."""
        if not self._whole_words:
            return self._count(text)
        total = position = 0
        while position < len(text):
            assert self._places is not None
            place = self._places.search(text, position + 1 + FIRST_CUT * self._longest)
            end = len(text) if place is None else place.start()
            total += self._count(text[position:end])
            position = end
        return total


def _uncut(text: str) -> InputError:
    return InputError(
        f"the text has {len(text)} characters, and too many without a place where it could be cut: expected at most "
        f"{MAX_UNCUT_CHARACTERS} between two, such as spaces between letters"
    )


def _places(settings: Mapping[str, Any]) -> re.Pattern[str] | None:
    """What a text may be cut before, None where nothing is known to be safe.

    BERT starts a word at each space, mark and Chinese character, the others at a space between letters. An added token
    that could reach over the cut, or that looks at what follows it, forbids it.
    """
    added = settings.get("added_tokens") or []
    inside = {character for token in added for character in token["content"]}
    if any(token.get("single_word") for token in added) or any(character.isspace() for character in inside):
        return None
    normalizers = list(steps("normalizer", settings.get("normalizer")))
    if any(step["type"] in _REWRITING for step in normalizers):
        return None
    if not _is_bert(settings):
        splits = steps("pre_tokenizer", settings.get("pre_tokenizer"))
        return re.compile("(?<=[A-Za-z]) (?=[A-Za-z])") if any(map(_splits_at_spaces, splits)) else None
    places = " \t\n\r" + "".join(mark for mark in _MARKS if mark not in inside)
    chinese = any(step["type"] == "BertNormalizer" and step.get("handle_chinese_chars") for step in normalizers)
    chinese = chinese and not any(ord(character) in _CHINESE for character in inside)
    return re.compile(f"[{re.escape(places)}{f'{chr(_CHINESE[0])}-{chr(_CHINESE[-1])}' if chinese else ''}]")


def _is_bert(settings: Mapping[str, Any]) -> bool:
    return [step["type"] for step in steps("pre_tokenizer", settings.get("pre_tokenizer"))] == ["BertPreTokenizer"]


def _splits_at_spaces(step: Mapping[str, Any]) -> bool:
    kind = step["type"]
    if kind == "ByteLevel":
        return step.get("use_regex", True) is True
    return kind in ("Whitespace", "WhitespaceSplit") or (kind == "Metaspace" and step.get("split", True) is True)


# Shortens words that WordPiece takes for unknown whatever follows in them, without changing a token.


SOLID = (
    (0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A),  # ASCII
    (0xC0, 0x24F),  # Latin
    (0x391, 0x3A1), (0x3A3, 0x3CE),  # Greek
    (0x400, 0x481), (0x48A, 0x4FF),  # Cyrillic
    (0x5D0, 0x5EA), (0x621, 0x63A), (0x641, 0x64A),  # Hebrew, Arabic
    (0x904, 0x939), (0xE01, 0xE30),  # Devanagari, Thai
    (0x3041, 0x3096), (0x30A1, 0x30FA), (0xAC00, 0xD7A3),  # kana, Hangul
    (0x1F300, 0x1F320), (0x1F400, 0x1F4F7), (0x1F600, 0x1F64F), (0x1F680, 0x1F6C5),  # emoji
)  # fmt: skip
"""Ranges of characters of which BERT's normalizer leaves one at least, and at none of which BERT starts a word."""

LOOSE = ((0x300, 0x34E), (0x350, 0x36F), (0x200D, 0x200D), (0xFE0F, 0xFE0F))
"""Marks and joiners that it leaves or removes, by its options; nor do they begin a word."""

_KEPT = 2 * MAX_TOKEN_CHARACTERS
"""Of a run's beginning and end: added tokens that reach into it end in the first half of that."""


def _class(ranges: tuple[tuple[int, int], ...]) -> str:
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


@cache
def _runs() -> re.Pattern[str]:
    """Compiled when a text is long: it takes 4 ms."""
    return re.compile(f"[{_class(SOLID + LOOSE)}]{{{2 * _KEPT + 1},}}")


@cache
def _solid() -> re.Pattern[str]:
    return re.compile(f"[{_class(SOLID)}]")


class LongWords:
    """Shortens runs inside of words. Calls from several threads are safe: nothing changes after init."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        """Read from a tokenizer's settings, already checked, whether long words are unknown to it.

        BERT's are, with a WordPiece model. An added token without a mark could stand anywhere in a word.
        """
        before = [step["type"] for step in steps("pre_tokenizer", settings.get("pre_tokenizer"))]
        normalizers = [step["type"] for step in steps("normalizer", settings.get("normalizer"))]
        added = [token["content"] for token in settings.get("added_tokens") or []]
        self._known = (
            (settings.get("model") or {}).get("type") == "WordPiece"
            and before == ["BertPreTokenizer"]
            and set(normalizers) <= {"BertNormalizer"}
            and all(any(mark in content for mark in _MARKS) for content in added)
        )

    def shortened(self, text: str) -> str:
        """A text of the same tokens."""
        return _runs().sub(self._ends, text) if self._known and len(text) > 2 * _KEPT else text

    def _ends(self, run: re.Match[str]) -> str:
        """A run's two ends, where these alone are too long for a word, or where none of it is more than a mark."""
        whole = run[0]
        middle = whole[MAX_TOKEN_CHARACTERS:_KEPT] + whole[-_KEPT:-MAX_TOKEN_CHARACTERS]
        long_enough = len(_solid().findall(middle)) > MAX_WORD_CHARACTERS
        return whole[:_KEPT] + whole[-_KEPT:] if long_enough or _solid().search(whole) is None else whole
