"""The border to the `tokenizers` library: what it is given is checked, and how it fails is one line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.engines.native_output import held_back
from edgeformer_runtime.errors import BundleError, EdgeFormerError, InputError
from edgeformer_runtime.lazy import load_attribute
from edgeformer_runtime.preprocess.text_cut import TextCut
from edgeformer_runtime.preprocess.tokenizer_file import read_tokenizer_file, steps

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


class Tokenizer:
    """A tokenizer from a stranger's file. Calls from several threads are safe: nothing changes after init.

    The library is written in Rust. Where that panics, Python sees a PanicException, which is no Exception, and the
    process's stderr a report of its own: neither leaves this class.
    """

    def __init__(self, text: str | bytes, where: str, truncation: int | None = None) -> None:
        """Check and load a tokenizer.

        Args:
            text: the file's text. Its own truncation and padding are not used.
            where: the file's name, for messages.
            truncation: the most tokens of an encoding, special ones included; None: all are kept.

        Raises:
            BundleError: it is no tokenizers file, asks for more than BUNDLE.md allows, or its special tokens leave no
                room.
        """
        settings = read_tokenizer_file(text, where)
        self._where = where
        self._vocabulary_size: int | None = None
        kinds = {step["type"] for part in ("normalizer", "pre_tokenizer") for step in steps(part, settings.get(part))}
        self._quiet = kinds <= _PLAIN
        with _one_line(f"{where}: not a tokenizers file", BundleError), held_back(shown_on_failure=False):
            self._library: Any = load_attribute("tokenizers:Tokenizer").from_str(_readable(text, settings))
            self._library.no_padding()
            self._library.no_truncation()
        self._longest = truncation
        if truncation is None:
            return
        special = self.special_tokens()
        if special >= truncation:
            raise BundleError(f"{where}: {special} special tokens leave no room in {truncation} positions")
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

    def special_tokens(self, pair: bool = False) -> int:
        """How many tokens surround a text, or two."""
        with self._calls():
            count: int = self._library.num_special_tokens_to_add(pair)
        return count

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


def _readable(text: str | bytes, settings: dict[str, Any]) -> str:
    """The file's text, without truncation and padding of its own, whose values can make the library panic."""
    if settings.get("truncation") is None and settings.get("padding") is None:
        return text if isinstance(text, str) else text.decode("utf-8")
    return json.dumps(settings | {"truncation": None, "padding": None}, ensure_ascii=False)


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
