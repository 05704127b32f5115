"""Decoding a window until the result is good enough (Radford et al. 2022, section 4.5)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.decoding.prompt import token_probability
from edgeformer_runtime.decoding.search import (
    Hypothesis,
    Search,
    beam_search,
    compression_ratio,
    follow,
    likeliest,
    loop_period,
    repeats_phrase,
    sampler,
)
from edgeformer_runtime.decoding.segments import SPARSE_LETTERS_PER_SECOND, letters_of
from edgeformer_runtime.decoding.tokenizer import SpeechTokenizer


@dataclass(frozen=True, eq=False)
class Decoded:
    """A window's transcript and how good it seems.

    Attributes:
        hypothesis: the tokens; none where the window is silence.
        text: of the tokens.
        temperature: that it was found at.
        compression_ratio: of the text; high is repetitive.
        no_speech_probability: None where the model has no token for it.
        silent: nobody speaks: the text was improbable and its absence probable, or it was little for its audio.
        doubtful: no temperature gave a result that is good enough, and this is the best of them; or it is a sample that
            says one phrase again and again.
    """

    hypothesis: Hypothesis
    text: str
    temperature: float
    compression_ratio: float
    no_speech_probability: float | None
    silent: bool
    doubtful: bool = False


def decode_with_fallback(
    search: Search,
    tokenizer: SpeechTokenizer,
    options: TranscribeOptions,
    generator: np.random.Generator,
    sounding_seconds: float,
) -> Decoded:
    """Try the temperatures in turn; the first result that is good enough counts.

    Where none is, the likeliest counts of those that are not repetitive, or else of all (as in faster-whisper), and is
    marked as doubtful: a sample at a high temperature is often made up. So is a sample that is good enough and says one
    phrase again and again.

    Args:
        search: of the window.
        tokenizer: of its text.
        options: temperatures, and what is good enough.
        generator: of samples.
        sounding_seconds: of the window's audio, without its pauses.

    Raises:
        EngineError: the logits hold NaN or infinity.
    """
    no_speech = token_probability(search.context.start_logits, search.tokens.no_speech)
    tried: list[Decoded] = []
    for temperature in options.temperatures:
        found = _decode(search, options, temperature, generator)
        text = tokenizer.text(found.tokens)
        ratio = compression_ratio(text)
        decoded = Decoded(found, text, temperature, ratio, no_speech, silent=False)
        if _is_silent(decoded, options, sounding_seconds):
            return _silenced(decoded)
        if not (_is_repetitive(decoded, options, search) or _is_improbable(decoded, options)):
            words = [token for token in found.tokens if token < search.tokens.first_timestamp]
            is_made_up = temperature > 0 and repeats_phrase(words) and not search.is_said_repeatedly(found)
            return replace(decoded, doubtful=is_made_up)
        tried.append(decoded)
    candidates = [each for each in tried if not _is_repetitive(each, options, search)] or tried
    best = max(candidates, key=lambda each: each.hypothesis.mean_log_probability)
    best = replace(_without_loop(best, tokenizer, search.tokens.first_timestamp), doubtful=True)
    return _silenced(best) if _is_silent(best, options, sounding_seconds) else best


def _decode(
    search: Search, options: TranscribeOptions, temperature: float, generator: np.random.Generator
) -> Hypothesis:
    if temperature == 0 and options.beam_size == 1:
        return follow(search, likeliest)
    if temperature == 0:
        found = beam_search(search, options.beam_size, options.patience)
    else:
        found = [follow(search, sampler(temperature, generator)) for _ in range(options.best_of)]
    return max(found, key=lambda hypothesis: hypothesis.score(options.length_penalty))


def _is_repetitive(decoded: Decoded, options: TranscribeOptions, search: Search) -> bool:
    threshold, found = options.compression_ratio_threshold, decoded.hypothesis
    is_compressible = threshold is not None and decoded.compression_ratio > threshold
    return found.looped or (is_compressible and not search.is_said_repeatedly(found))


def _is_improbable(decoded: Decoded, options: TranscribeOptions) -> bool:
    threshold = options.log_probability_threshold
    return threshold is not None and decoded.hypothesis.mean_log_probability < threshold


def _is_silent(decoded: Decoded, options: TranscribeOptions, sounding_seconds: float) -> bool:
    """Whether text stands for no speech: where that is nearly certain, and where there is little text for the audio, it
    need not be as improbable as other text.

    Measured on music, noise, animals and machines: little text that is doubtful, or less than a letter a second, has a
    probability of no speech of 0.09 and more there, and other little text of 0.3; that of speech is mostly below 0.1.
    """
    threshold, improbable = options.no_speech_threshold, options.log_probability_threshold
    no_speech, likelihood = decoded.no_speech_probability, decoded.hypothesis.mean_log_probability
    if no_speech is None or threshold is None or improbable is None:
        return False
    if no_speech > threshold and likelihood < improbable:
        return True
    letters = letters_of(decoded.text)
    is_unlikely_text = decoded.doubtful or letters < sounding_seconds
    is_sparse = letters < SPARSE_LETTERS_PER_SECOND * sounding_seconds
    is_likely = is_sparse and no_speech > threshold / (12 if is_unlikely_text else 2)
    return likelihood < improbable / 2 and (is_likely or no_speech > (1 + threshold) / 2)


def _silenced(decoded: Decoded) -> Decoded:
    nothing = replace(decoded.hypothesis, tokens=(), log_probabilities=(), alignments=())
    return replace(decoded, hypothesis=nothing, text="", silent=True, doubtful=False)


def _without_loop(decoded: Decoded, tokenizer: SpeechTokenizer, first_timestamp: int) -> Decoded:
    """A result that ended in a loop, with the loop said once; timestamps are no part of loops."""
    found = decoded.hypothesis
    text = [index for index, token in enumerate(found.tokens) if token < first_timestamp]
    said = [found.tokens[index] for index in text]
    period = loop_period(said) if found.looped else 0
    if period == 0:
        return decoded
    kept = len(said)
    while kept > period and said[kept - 1] == said[kept - 1 - period]:
        kept -= 1
    end = text[kept - 1] + 1
    cut = replace(
        found,
        tokens=found.tokens[:end],
        log_probabilities=found.log_probabilities[:end],
        alignments=found.alignments[:end],
    )
    shortened = tokenizer.text(cut.tokens)
    return replace(decoded, hypothesis=cut, text=shortened, compression_ratio=compression_ratio(shortened))
