"""Text generation pipeline: a prompt to the text that follows, as it is written, and the likeliest next words."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, cast

import numpy as np

from edgeformer_runtime.bundle import strict_json
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.decoding.logit_rules import (
    Branch,
    Branches,
    Sampler,
    Suggestion,
    Vocabulary,
    check_finite,
    next_words,
    split_typed,
)
from edgeformer_runtime.decoding.options import GenerateOptions
from edgeformer_runtime.decoding.tokenizer import ChatTemplate, TextStream, TextTokens, is_chat
from edgeformer_runtime.engines import Engine
from edgeformer_runtime.engines.decoder import SEEN, Floats, TokenDecoder, hidden_rows
from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.interface import AudioProgress
from edgeformer_runtime.pipelines import IsCancelled, Pipeline, check, never
from edgeformer_runtime.pipelines.results import Statistics, header_of
from edgeformer_runtime.preprocess.tokenizer import Tokenizer
from edgeformer_runtime.process import peak_rss_bytes
from edgeformer_runtime.tasks.generation import Generation, PromptPreprocessing, TextBucket

STOP, LENGTH, FULL = "stop", "length", "full"
FINISH_REASONS = (STOP, LENGTH, FULL)
FEWEST_AT_ONCE = 3
"""Tokens for which one run of `prefill`, which always computes P, takes less time than a run of `decode` for each."""

RawPrompt = str | list[int] | Sequence[Mapping[str, str]]
"""A text, token ids as they are, or a chat: messages, each with the texts "role" and "content"."""


@dataclass(frozen=True)
class TextPiece:
    """A part of a text that is being generated.

    Attributes:
        text: whole characters; empty where a token is only a part of one, or may be the start of a stop string.
        token: what was chosen; None in the last piece.
        finish_reason: None until the last piece. "stop": the model ended the text, or a stop string did; "length": it
            has `max_tokens`; "full": the cache has no slot left.
    """

    text: str
    token: int | None = None
    finish_reason: str | None = None


@dataclass(frozen=True)
class GenerationResult:
    """What follows a prompt.

    Attributes:
        text: without the prompt; characters of which the text's end has only some bytes are left out.
        tokens: their ids, without a token that ended the text.
        finish_reason: see `TextPiece`.
        suggestions: the next words in place of a text, where they were asked for; else None.
        truncated: never: a prompt that is too long is refused.
        prompt_tokens: how many the prompt has.
        statistics: what the answer cost; None where it was not measured.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: str
    suggestions: tuple[Suggestion, ...] | None = None
    truncated: bool = False
    prompt_tokens: int = 0
    statistics: Statistics | None = None

    def to_json(self) -> dict[str, Any]:
        """{"text", "tokens", "finish_reason"}, or {"suggestions": [{"word", "probability"}]}, likeliest first."""
        if self.suggestions is not None:
            return {"suggestions": [vars(each).copy() for each in self.suggestions]}
        return {"text": self.text, "tokens": list(self.tokens), "finish_reason": self.finish_reason}

    def to_frame(self) -> tuple[dict[str, Any], bytes]:
        """See `Result.to_frame`."""
        return header_of(self)

    @classmethod
    def from_frame(cls, header: dict[str, Any], body: bytes, head: Generation) -> GenerationResult:  # noqa: ARG003
        """See `Result.from_frame`: its tokens are the bundle's, and its probabilities are some."""
        result = strict_json.from_data(cls, header["result"], "answer")
        if result.finish_reason not in FINISH_REASONS or not all(0 <= each < head.vocab_size for each in result.tokens):
            raise ValueError("its tokens are not the bundle's")
        if not all(math.isfinite(each.probability) and 0 <= each.probability <= 1 for each in result.suggestions or ()):
            raise ValueError("a probability is none")
        return result


class PromptCache:
    """What a decoder's cache holds: the tokens of the last prompt and text, so that only what is new is computed."""

    def __init__(self, decoder: TokenDecoder) -> None:
        """Start with an empty cache."""
        self.decoder = decoder
        self.computed = 0
        """Tokens that were fed since the cache was made."""
        self._tokens: list[int] = []
        self._mask = hidden_rows(decoder.rows)
        self._logits: Floats | None = None

    def logits_after(self, tokens: Sequence[int], is_cancelled: IsCancelled = never) -> Floats:
        """The logits (V,) float32 behind some tokens, at least one; the cache holds these tokens then.

        Raises:
            InputError: they are more than the cache has slots.
            EngineError: the model failed, or gave NaN or infinity.
            Cancelled: nobody wants them any more.
        """
        if len(tokens) > self.decoder.rows:
            raise InputError(f"expected at most {self.decoder.rows} tokens, found {len(tokens)}")
        kept = next((i for i, pair in enumerate(zip(self._tokens, tokens)) if pair[0] != pair[1]), None)  # noqa: B905
        kept = min(len(self._tokens), len(tokens)) if kept is None else kept
        if kept == len(tokens) == len(self._tokens) and self._logits is not None:
            return self._logits
        kept = min(kept, len(tokens) - 1)
        self._logits = None
        del self._tokens[kept:]
        self._mask[:] = hidden_rows(self.decoder.rows)
        self._mask[:kept] = SEEN
        logits = None
        while (rest := len(tokens) - len(self._tokens)) > 0:
            check(is_cancelled)
            size = min(rest, self.decoder.prefill_tokens) if rest >= FEWEST_AT_ONCE else 1
            logits = self._feed(tokens[len(self._tokens) : len(self._tokens) + size])
        assert logits is not None
        check_finite(logits)
        self._logits = logits.copy()
        return self._logits

    def forget(self) -> None:
        """The next tokens are computed from the first one on."""
        self._tokens.clear()
        self._logits = None

    def branches(self) -> Branches:
        """What may follow the tokens that the cache holds, whose logits are known."""
        assert self._logits is not None
        return Branches(self.decoder, len(self._tokens), Branch((), b"", 1.0, self._mask.copy(), self._logits))

    def _feed(self, part: Sequence[int]) -> Floats:
        place = len(self._tokens)
        if len(part) == 1:
            logits = self.decoder.step(part[0], place, place, self._mask).logits
        else:
            last = len(part) - 1
            logits = self.decoder.prefill(list(part), place, place, self._mask, (last, last))[1].logits
        self._mask[place : place + len(part)] = SEEN
        self._tokens += part
        self.computed += len(part)
        return logits


class TextGenerator(Pipeline[RawPrompt, GenerationResult]):
    """Goes on with prompts. Each bucket's cache keeps the last prompt and text: a call computes only what is new.

    Calls from several threads take turns, token by token.
    """

    def __init__(self, bundle: Bundle, engine: Engine, owned: bool = False) -> None:
        """Use `edgeformer_runtime.load`."""
        super().__init__(bundle, engine, owned)
        self.head = cast(Generation, bundle.manifest.postprocessing)
        self._file = cast(PromptPreprocessing, bundle.manifest.preprocessing).tokenizer
        self._caches: dict[TextBucket, PromptCache] = {}
        self._lock = threading.Lock()

    def run(
        self,
        raw: RawPrompt,
        options: GenerateOptions | None = None,
        progress: AudioProgress | None = None,
        is_cancelled: IsCancelled = never,
        on_text: Callable[[str], None] | None = None,
    ) -> GenerationResult:
        """Go on with a prompt, or suggest the next words where the options ask for them.

        Args:
            raw: a text, token ids, or a chat.
            options: None: the likeliest token each time.
            progress: called after each token, with their number and `max_tokens`.
            is_cancelled: asked before each run of the model.
            on_text: called with each part of the text.

        Raises:
            InputError: the prompt is too long, is empty and the model has no token for that, or cannot be used.
            EngineError: the model failed, or gave NaN or infinity.
            Cancelled: nobody wants the text any more.
        """
        asked = options or GenerateOptions()
        start = time.perf_counter()
        if asked.suggest:
            found = self._suggested(raw, asked, is_cancelled)
            return replace(found, statistics=_statistics(start))
        prompt = self.prompt_tokens(raw, asked.special_tokens, asked.chat)
        text, tokens, reason = "", list[int](), LENGTH
        with closing(self.stream(prompt, replace(asked, chat=False), is_cancelled)) as pieces:
            for piece in pieces:
                text += piece.text
                if piece.token is not None:
                    tokens.append(piece.token)
                reason = piece.finish_reason or reason
                if on_text is not None and piece.text:
                    on_text(piece.text)
                if progress is not None:
                    progress(len(tokens), asked.max_tokens)
        found = GenerationResult(text, tuple(tokens), reason, prompt_tokens=len(prompt))
        return replace(found, statistics=_statistics(start))

    def stream(
        self, raw: RawPrompt, options: GenerateOptions | None = None, is_cancelled: IsCancelled = never
    ) -> Generator[TextPiece, None, None]:
        """The text piece by piece, as it is written; arguments and errors as of `run`.

        ```python
        for piece in pipeline.stream("Once upon a time", GenerateOptions(max_tokens=20)):
            print(piece.text, end="", flush=True)
        ```
        """
        asked = options or GenerateOptions()
        tokens = self.prompt_tokens(raw, asked.special_tokens, asked.chat)
        # The last token of a text is not fed, so it needs no slot.
        cache = self.cache_for(len(tokens) + asked.max_tokens - 1)
        self._check_room(tokens, cache)
        sampler, written = Sampler(asked), TextStream(asked.stop)
        for count in range(asked.max_tokens):
            if len(tokens) > cache.decoder.rows:
                yield TextPiece(written.finish(), finish_reason=FULL)
                return
            with self._lock:  # another call may have used the cache in between: it computes what is not there any more
                token = sampler.choose(cache.logits_after(tokens, is_cancelled), tokens)
            if token in self.head.ends:
                yield TextPiece(written.finish(), finish_reason=STOP)
                return
            tokens.append(token)
            text = written.feed(self.text_tokens.bytes_of(token))
            if written.stopped:
                yield TextPiece(text, token, STOP)
                return
            last = count + 1 == asked.max_tokens
            yield TextPiece(text + written.finish() if last else text, token, LENGTH if last else None)

    def suggest(self, text: str, n: int = 3) -> list[Suggestion]:
        """The likeliest next words, which a keyboard offers: `n` at most, likeliest first.

        A text that ends inside of a word, as "see you tom", is completed: every word begins with what is typed. A space
        at its end, or nothing, asks for whole words.

        Returns:
            Words without spaces, each with its probability among all words that begin with what is typed.

        Raises:
            InputError, EngineError: as of `run`.
        """
        return list(self.run(text, GenerateOptions(suggest=n)).suggestions or ())

    def _suggested(self, raw: RawPrompt, options: GenerateOptions, is_cancelled: IsCancelled) -> GenerationResult:
        if not isinstance(raw, str):
            raise InputError("suggestions follow a text, found token ids")
        context, typed = split_typed(raw)
        tokens = self.prompt_tokens(context, options.special_tokens)
        cache = self.cache_for(len(tokens) + 4 * options.suggest)
        self._check_room(tokens, cache)
        with self._lock:
            cache.logits_after(tokens, is_cancelled)
            words = next_words(cache.branches(), self._vocabulary, typed, options.suggest, partial(check, is_cancelled))
        return GenerationResult("", (), STOP, tuple(words))

    def prompt_tokens(self, raw: RawPrompt, special_tokens: bool = False, chat: bool = False) -> list[int]:
        """The tokens of a prompt, as the model's own tokenizer gives them.

        Args:
            raw: a text, a chat, or ids, which are only checked.
            special_tokens, chat: see `GenerateOptions`.

        Raises:
            InputError: an id that the model does not have, text that is no Unicode, or nothing, and no token for it; a
                chat, and the bundle has no template for it, or the template refuses it.
        """
        if chat and isinstance(raw, str):
            raw = [{"role": "user", "content": raw}]
        if is_chat(raw):
            parts = self._chat_template.prompt(cast("Sequence[Mapping[str, str]]", raw))
            tokens = [
                token
                for part, has_special in parts
                for token in (self._special if has_special else self._literal).text_tokens(part)
            ]
        elif isinstance(raw, str):
            tokens = (self._special if special_tokens else self._literal).encode(raw).ids
        elif isinstance(raw, (list, np.ndarray)):
            tokens = [int(cast(int, each)) for each in raw]
        else:
            raise InputError(f"expected a text, a list of token ids or a chat, found {type(raw).__name__}")
        wrong = next((each for each in tokens if not 0 <= each < self.head.vocab_size), None)
        if wrong is not None:
            raise InputError(f"expected token ids from 0 to {self.head.vocab_size - 1}, found {wrong}")
        if not tokens and self.head.start is None:
            raise InputError("the prompt is empty, and the model has no token that starts a text: give it a beginning")
        return list(tokens) or [cast(int, self.head.start)]

    def cache_for(self, tokens: int) -> PromptCache:
        """The cache of the smallest bucket with so many slots, or of the largest; its decoder is opened once."""
        bucket = self.head.bucket_for(tokens)
        with self._lock:
            if bucket not in self._caches:
                self._caches[bucket] = PromptCache(self.engine.open_decoder(bucket, self.head))
            return self._caches[bucket]

    def forget(self) -> None:
        """Empty the caches: the next call computes its whole prompt."""
        with self._lock:
            for cache in self._caches.values():
                cache.forget()

    def _check_room(self, tokens: Sequence[int], cache: PromptCache) -> None:
        if len(tokens) > cache.decoder.rows:
            raise InputError(
                f"the prompt has {len(tokens)} tokens, and the bundle's cache {cache.decoder.rows} slots: shorten it, "
                "or convert with a longer --seq-len"
            )

    @cached_property
    def text_tokens(self) -> TextTokens:
        """What each token stands for."""
        return TextTokens(self._json, self.head.vocab_size)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(self.text_tokens, self.head.vocab_size, self.head.ends)

    @cached_property
    def _chat_template(self) -> ChatTemplate:
        name = cast(PromptPreprocessing, self.bundle.manifest.preprocessing).chat_template
        if name is None:
            raise InputError("the bundle has no chat template: expected a text or token ids as the prompt")
        return ChatTemplate(self._read(name), self.text_tokens.special)

    @cached_property
    def _literal(self) -> Tokenizer:
        """Takes special tokens that somebody typed for text."""
        return Tokenizer(self._json, self._file, known=self.bundle.known, literal=True)

    @cached_property
    def _special(self) -> Tokenizer:
        return Tokenizer(self._json, self._file, known=self.bundle.known)

    @property
    def _json(self) -> str:
        return self._read(self._file)

    def _read(self, name: str) -> str:
        try:
            return self.bundle.path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(f"{name}: cannot be read: {error}") from None

    def close(self) -> None:
        """Release the caches, and the engine and the bundle, if they are the pipeline's own."""
        with self._lock:
            for cache in self._caches.values():
                cache.decoder.close()
        super().close()


def _statistics(start: float) -> Statistics:
    return Statistics(0.0, (time.perf_counter() - start) * 1e3, 0.0, peak_rss_bytes())
