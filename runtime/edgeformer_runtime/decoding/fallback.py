"""Decoding a window until the result is good enough (Radford et al. 2022, section 4.5)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgeformer_runtime.decoding.beam import beam_search
from edgeformer_runtime.decoding.greedy import Search, follow, likeliest, sampler
from edgeformer_runtime.decoding.hypothesis import Hypothesis
from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.decoding.prompt import token_probability
from edgeformer_runtime.decoding.repetition import compression_ratio, loop_period, repeats_phrase
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
        silent: nobody speaks: the text was improbable and its absence probable.
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
    search: Search, tokenizer: SpeechTokenizer, options: TranscribeOptions, generator: np.random.Generator
) -> Decoded:
    """Try the temperatures in turn; the first result that is good enough counts.

    Where none is, the likeliest counts of those that are not repetitive, or else of all (as in faster-whisper), and is
    marked as doubtful: a sample at a high temperature is often made up. So is a sample that is good enough and says one
    phrase again and again.

    Raises:
        EngineError: the logits hold NaN or infinity.
    """
    no_speech = token_probability(search.context.start_logits, search.tokens.no_speech)
    tried: list[Decoded] = []
    for temperature in options.temperatures:
        found = _decode(search, options, temperature, generator)
        text = tokenizer.text(found.tokens)
        ratio = compression_ratio(text)
        decoded = Decoded(found, text, temperature, ratio, no_speech, _is_silent(found, no_speech, options))
        if decoded.silent:
            return replace(decoded, hypothesis=replace(found, tokens=(), log_probabilities=(), alignments=()), text="")
        if not (_is_repetitive(decoded, options) or _is_improbable(decoded, options)):
            said = [token for token in found.tokens if token < search.tokens.first_timestamp]
            return replace(decoded, doubtful=temperature > 0 and repeats_phrase(said))
        tried.append(decoded)
    candidates = [each for each in tried if not _is_repetitive(each, options)] or tried
    best = max(candidates, key=lambda each: each.hypothesis.mean_log_probability)
    return replace(_without_loop(best, tokenizer, search.tokens.first_timestamp), doubtful=True)


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


def _is_repetitive(decoded: Decoded, options: TranscribeOptions) -> bool:
    threshold = options.compression_ratio_threshold
    return decoded.hypothesis.looped or (threshold is not None and decoded.compression_ratio > threshold)


def _is_improbable(decoded: Decoded, options: TranscribeOptions) -> bool:
    threshold = options.log_probability_threshold
    return threshold is not None and decoded.hypothesis.mean_log_probability < threshold


def _is_silent(found: Hypothesis, no_speech: float | None, options: TranscribeOptions) -> bool:
    threshold, improbable = options.no_speech_threshold, options.log_probability_threshold
    if no_speech is None or threshold is None or improbable is None:
        return False
    return no_speech > threshold and found.mean_log_probability < improbable


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
