"""What a decoder is fed before it speaks: previous text, language, task (Radford et al. 2022, figure 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeformer_runtime.bundle.specs import SpeechTokens
from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.engines.decoder import SEEN, Floats, SpeechDecoder, hidden_rows
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.registry import did_you_mean


@dataclass(frozen=True)
class Prompt:
    """Tokens to feed; `start` is where the one that starts a transcript stands."""

    tokens: tuple[int, ...]
    start: int


@dataclass(frozen=True, eq=False)
class Context:
    """A decoder that has been fed a prompt. Its arrays are its own, and no search changes them.

    Attributes:
        position: of the next token, which is also how many rows the prompt takes.
        mask: (L,) float32, sees the prompt's rows.
        logits: (V,) float32, what may come first.
        alignment: (A, T) float32, where the prompt's last token looks in the audio.
        start_logits: (V,) float32, what may follow the token that starts a transcript.
    """

    position: int
    mask: Floats
    logits: Floats
    alignment: Floats
    start_logits: Floats


def check_language(options: TranscribeOptions, tokens: SpeechTokens) -> None:
    """Refuse a language or task that the model does not know.

    Raises:
        InputError: with what the model knows.
    """
    if not tokens.languages:
        if options.language not in (None, "en"):
            raise InputError(f"language {options.language!r}: this model knows English only; expected none or 'en'")
        if options.task != "transcribe":
            raise InputError("task 'translate': this model knows English only; translation needs a multilingual model")
        return
    if options.language is not None and options.language not in tokens.languages:
        raise InputError(f"language {options.language!r}: {_known(options.language, tokens)}")
    if options.task == "translate" and tokens.translate is None:
        raise InputError("task 'translate': this model was not made to translate")


def _known(language: str, tokens: SpeechTokens) -> str:
    """What a model knows in place of a language, and what to do where its bundle was made for one."""
    known = sorted(tokens.languages)
    if len(known) == 1:
        return f"this bundle was made for {known[0]} alone; convert the model again with --language any for all"
    guess = did_you_mean(language, known, {name: (code,) for name, code in LANGUAGE_CODES.items()})
    return f"{guess}this model knows {', '.join(known)}"


def previous_room(rows: int) -> int:
    """How many tokens of previous text a cache of L rows has room for."""
    return max(0, rows // 2 - 1)


def build_prompt(
    tokens: SpeechTokens, rows: int, options: TranscribeOptions, language: str, previous: Sequence[int] = ()
) -> Prompt:
    """The tokens before a transcript.

    Args:
        tokens: of the manifest.
        rows: L of the decoder's cache: previous text gets at most half of it, and loses its beginning.
        options: task and timestamps.
        language: of the audio, as "en".
        previous: text tokens of what came before.

    Raises:
        InputError: there is previous text and the model has no token for it.
    """
    fed: list[int] = []
    room = previous_room(rows)
    if previous and room > 0:
        if tokens.start_of_previous is None:
            raise InputError("initial_prompt, condition_on_previous_text: this model takes no previous text")
        fed += [tokens.start_of_previous, *previous[-room:]]
    start = len(fed)
    fed.append(tokens.start)
    if tokens.languages:
        fed.append(tokens.languages[language])
        task = tokens.translate if options.task == "translate" else tokens.transcribe
        fed += [] if task is None else [task]
    if not options.timestamps:
        fed.append(tokens.no_timestamps)
    return Prompt(tuple(fed), start)


def feed(decoder: SpeechDecoder, prompt: Prompt) -> Context:
    """Feed a prompt, from the first row on.

    The call that feeds a part of it also gives the logits after `start`, where that is in the part. A short part
    comes first, so that the last calls are full ones.
    """
    count = len(prompt.tokens)
    mask = hidden_rows(decoder.rows)
    start_logits: Floats | None = None
    done = 0
    while done < count:
        size = (count - done) % decoder.prefill_tokens or decoder.prefill_tokens
        part = list(prompt.tokens[done : done + size])
        start = prompt.start - done if done <= prompt.start < done + size else size - 1
        if size == 1:
            last = decoder.step(part[0], done, done, mask)
            at_start = last
        else:
            at_start, last = decoder.prefill(part, done, done, mask, (start, size - 1))
        if done <= prompt.start < done + size:
            start_logits = at_start.logits.copy()
        mask[done : done + size] = SEEN
        done += size
    assert start_logits is not None  # every prompt holds its start
    return Context(count, mask, last.logits.copy(), last.alignment.copy(), start_logits)


def token_probability(logits: Floats, token: int | None) -> float | None:
    """A token's probability among all of logits (V,); None without a token.

    Raises:
        EngineError: the logits hold NaN or infinity.
    """
    if token is None:
        return None
    exponents = np.exp(logits - logits.max())
    probability = float(exponents[token] / exponents.sum())
    if not np.isfinite(probability):
        raise EngineError("the decoder's logits hold NaN or infinity: run verify, or convert at a higher precision")
    return probability


def detect_language(decoder: SpeechDecoder, tokens: SpeechTokens) -> dict[str, float]:
    """How probable each of a multilingual model's languages is, the likeliest first; they sum to 1.

    The decoder has encoded a recording and is fed the start alone, into its first row.
    """
    logits = decoder.step(tokens.start, 0, 0, hidden_rows(decoder.rows)).logits
    codes = sorted(tokens.languages, key=lambda code: float(-logits[tokens.languages[code]]))
    chosen = logits[[tokens.languages[code] for code in codes]].astype(np.float64)
    exponents = np.exp(chosen - chosen.max())
    return dict(zip(codes, (exponents / exponents.sum()).tolist(), strict=True))


LANGUAGE_CODES = {
    "english": "en", "chinese": "zh", "german": "de", "spanish": "es", "russian": "ru", "korean": "ko",
    "french": "fr", "japanese": "ja", "portuguese": "pt", "turkish": "tr", "polish": "pl", "catalan": "ca",
    "dutch": "nl", "arabic": "ar", "swedish": "sv", "italian": "it", "indonesian": "id", "hindi": "hi",
    "finnish": "fi", "vietnamese": "vi", "hebrew": "he", "ukrainian": "uk", "greek": "el", "malay": "ms",
    "czech": "cs", "romanian": "ro", "danish": "da", "hungarian": "hu", "tamil": "ta", "norwegian": "no",
    "thai": "th", "urdu": "ur", "croatian": "hr", "bulgarian": "bg", "lithuanian": "lt", "latin": "la",
    "maori": "mi", "malayalam": "ml", "welsh": "cy", "slovak": "sk", "telugu": "te", "persian": "fa",
    "latvian": "lv", "bengali": "bn", "serbian": "sr", "azerbaijani": "az", "slovenian": "sl", "kannada": "kn",
    "estonian": "et", "macedonian": "mk", "breton": "br", "basque": "eu", "icelandic": "is", "armenian": "hy",
    "nepali": "ne", "mongolian": "mn", "bosnian": "bs", "kazakh": "kk", "albanian": "sq", "swahili": "sw",
    "galician": "gl", "marathi": "mr", "punjabi": "pa", "sinhala": "si", "khmer": "km", "shona": "sn",
    "yoruba": "yo", "somali": "so", "afrikaans": "af", "occitan": "oc", "georgian": "ka", "belarusian": "be",
    "tajik": "tg", "sindhi": "sd", "gujarati": "gu", "amharic": "am", "yiddish": "yi", "lao": "lo", "uzbek": "uz",
    "faroese": "fo", "haitian creole": "ht", "pashto": "ps", "turkmen": "tk", "nynorsk": "nn", "maltese": "mt",
    "sanskrit": "sa", "luxembourgish": "lb", "myanmar": "my", "tibetan": "bo", "tagalog": "tl", "malagasy": "mg",
    "assamese": "as", "tatar": "tt", "hawaiian": "haw", "lingala": "ln", "hausa": "ha", "bashkir": "ba",
    "javanese": "jw", "sundanese": "su", "cantonese": "yue", "burmese": "my", "valencian": "ca", "flemish": "nl",
    "haitian": "ht", "letzeburgesch": "lb", "pushto": "ps", "panjabi": "pa", "moldavian": "ro", "moldovan": "ro",
    "sinhalese": "si", "castilian": "es", "mandarin": "zh",
}  # fmt: skip
"""The code of each language, by its English names."""
