"""What a Whisper checkpoint says beside its weights: tokens, suppressed ones, languages, alignment, the audio it takes.

Published checkpoints say it in generation_config.json, preprocessor_config.json and the tokenizer; older ones and
CTranslate2's have parts of it in config.json; those of fine-tuners often lack some files. What can be known from the
others is taken from there, and what cannot be is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeformer.models import config as fields
from edgeformer.models.config import read_object
from edgeformer.models.whisper.model import Head, WhisperConfig, with_alignment_heads
from edgeformer_runtime.bundle.specs import FRAMES_PER_POSITION, SpeechTokens
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.decoding.prompt import LANGUAGE_CODES
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.registry import did_you_mean

SECONDS_PER_TIMESTAMP = 0.02

_START, _END = "<|startoftranscript|>", "<|endoftext|>"
_NO_TIMESTAMPS, _FIRST_TIMESTAMP = "<|notimestamps|>", "<|0.00|>"
_PREVIOUS, _LANGUAGE_MODEL = "<|startofprev|>", "<|startoflm|>"
_TRANSCRIBE, _TRANSLATE = "<|transcribe|>", "<|translate|>"
_NO_SPEECH = ("<|nospeech|>", "<|nocaptions|>")
_SPACE = "Ġ"
"""A space in byte-level BPE."""

_LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")
_FEWEST_MULTILINGUAL = 51865
"""Whisper's own criterion: the multilingual vocabulary has 51865 tokens or more, the English one has 51864."""

_INITIAL_TIMESTAMPS = 50
"""The latest first timestamp, in steps, where nobody states it: one second (openai/whisper, DecodingOptions)."""


GENERATION_FILE = "generation_config.json"
ANY_LANGUAGE = "any"
"""In place of a language that a checkpoint fixes: the bundle knows all, and finds out which is spoken."""


@dataclass(frozen=True)
class SpeechSettings:
    """What surrounds a Whisper's weights, as a manifest needs it.

    Attributes:
        tokens: the ids that steer the decoder.
        suppress: ids that are never an answer, rising.
        suppress_at_start: ids that are no first answer, rising.
        seconds_per_timestamp: from one timestamp token to the next.
        max_initial_timestamp: the latest first timestamp of a window, in seconds.
        sample_rate: of the audio, in Hz.
        n_fft, hop_length: samples of a frame, and from one to the next.
        window_seconds: the longest audio that the encoder takes.
    """

    tokens: SpeechTokens
    suppress: tuple[int, ...]
    suppress_at_start: tuple[int, ...]
    seconds_per_timestamp: float
    max_initial_timestamp: float
    sample_rate: int
    n_fft: int
    hop_length: int
    window_seconds: int


@dataclass(frozen=True)
class SpeechDescription:
    """A checkpoint's settings, its config with the alignment heads that it states, and notes for the user."""

    config: WhisperConfig
    settings: SpeechSettings
    notes: tuple[str, ...]


def read_speech(
    folder: Path,
    config: WhisperConfig,
    raw: Mapping[str, Any],
    tokenizer_json: str | None,
    language: str | None = None,
) -> SpeechDescription:
    """Everything about a checkpoint's speech.

    Args:
        folder: with generation_config.json and preprocessor_config.json, or without.
        config: the parsed config.
        raw: config.json, which older checkpoints and CTranslate2's keep some settings in.
        tokenizer_json: a tokenizers file's text.
        language: the one that the bundle transcribes, or "any"; None: as generation_config.json says.

    Raises:
        InputError: files that contradict one another, ids beyond the vocabulary, or too little to go by.
    """
    if tokenizer_json is None:
        raise InputError("speech-recognition needs a tokenizer: expected tokenizer.json, or vocab.json and merges.txt")
    # What generation_config.json leaves open may be in config.json.
    stated = {**_stated(raw), **_stated(_read(folder / GENERATION_FILE))}
    ids = _token_ids(tokenizer_json)
    if language is not None:
        stated = _with_language(stated, ids, language)
    config, notes = with_alignment_heads(config, _alignment_heads(stated))
    tokens = _tokens(ids, stated, config)
    if language is None and len(tokens.languages) == 1 and len(_languages(ids, stated)) > 1:
        notes += (
            f"generation_config.json fixes the language {next(iter(tokens.languages))}, so the bundle knows no other: "
            f"convert with --language {ANY_LANGUAGE} for all",
        )
    if tokens.languages and _forced(stated, ids) == (None, None):
        notes += ("generation_config.json states no task: a bundle transcribes, and transformers leaves the task open",)
    suppress, suppress_notes = _suppressed(ids, stated, tokens)
    at_start, start_notes = _suppressed_at_start(ids, stated, tokens)
    rate, n_fft, hop_length, seconds = _audio(folder, config)
    initial = fields.read_int(stated, "max_initial_timestamp_index", _INITIAL_TIMESTAMPS)
    settings = SpeechSettings(
        tokens=tokens,
        suppress=_ids(suppress, "suppress_tokens", config),
        suppress_at_start=_ids(at_start, "begin_suppress_tokens", config),
        seconds_per_timestamp=SECONDS_PER_TIMESTAMP,
        max_initial_timestamp=initial * SECONDS_PER_TIMESTAMP,
        sample_rate=rate,
        n_fft=n_fft,
        hop_length=hop_length,
        window_seconds=seconds,
    )
    return SpeechDescription(config, settings, notes + suppress_notes + start_notes)


def _read(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}


def _stated(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without those that are null."""
    return {name: value for name, value in raw.items() if value is not None}


def _token_ids(tokenizer_json: str) -> dict[str, int]:
    """Ids of the tokenizer's texts, added ones included. The text was checked when it was read."""
    spec = json.loads(tokenizer_json)
    added = {str(token["content"]): int(token["id"]) for token in spec.get("added_tokens", [])}
    return {**spec["model"]["vocab"], **added}


def _tokens(ids: Mapping[str, int], stated: Mapping[str, Any], config: WhisperConfig) -> SpeechTokens:
    start = _agreed(ids, _START, stated, "decoder_start_token_id")
    end = _agreed(ids, _END, stated, "eos_token_id")
    no_timestamps = _agreed(ids, _NO_TIMESTAMPS, stated, "no_timestamps_token_id")
    first = ids.get(_FIRST_TIMESTAMP, no_timestamps + 1)
    seconds = config.max_source_positions * SECONDS_PER_TIMESTAMP
    last = first + config.max_source_positions
    if last >= config.vocab_size:
        raise InputError(
            f"timestamps up to {seconds:g} s need the ids {first} to {last}, and vocab_size is {config.vocab_size}"
        )
    languages = _languages(ids, stated) if _is_multilingual(stated, config) else {}
    if languages:
        _check_tasks(stated, ids)
    fixed = _fixed_language(stated, ids, languages)
    if fixed is not None and languages:
        languages = {fixed: languages[fixed]}
    return SpeechTokens(
        start=start,
        end=end,
        start_of_previous=_agreed(ids, _PREVIOUS, stated, "prev_sot_token_id") if _PREVIOUS in ids else None,
        no_speech=next((ids[token] for token in _NO_SPEECH if token in ids), None),
        no_timestamps=no_timestamps,
        first_timestamp=first,
        transcribe=_task(ids, _TRANSCRIBE) if languages else None,
        translate=_task(ids, _TRANSLATE) if languages else None,
        languages=languages,
    )


def _agreed(ids: Mapping[str, int], token: str, stated: Mapping[str, Any], field: str) -> int:
    """A token's id, which the tokenizer knows and the configs may repeat."""
    if token not in ids:
        raise InputError(f"the tokenizer has no {token}: expected the tokenizer of a Whisper")
    if stated.get(field, ids[token]) not in (ids[token], [ids[token]]):
        raise InputError(f"the tokenizer's {token} is {ids[token]}, and the config's {field} is {stated[field]!r}")
    return ids[token]


def _task(ids: Mapping[str, int], token: str) -> int:
    if token not in ids:
        raise InputError(f"the tokenizer has no {token}, which a multilingual Whisper needs")
    return ids[token]


def _check_tasks(stated: Mapping[str, Any], ids: Mapping[str, int]) -> None:
    """Refuse ids of tasks that the tokenizer gives to other tokens."""
    for task, number in dict(stated.get("task_to_id", {})).items():
        if ids.get(f"<|{task}|>") != number:
            raise InputError(f"task_to_id: the tokenizer has no task {task!r} with the id {number!r}")


def _is_multilingual(stated: Mapping[str, Any], config: WhisperConfig) -> bool:
    if "is_multilingual" in stated:
        return fields.read_bool(stated, "is_multilingual", False)
    return bool(stated.get("lang_to_id")) or config.vocab_size >= _FEWEST_MULTILINGUAL


def _languages(ids: Mapping[str, int], stated: Mapping[str, Any]) -> dict[str, int]:
    """Ids by language code: as the config lists them, or every token of the tokenizer that names a language."""
    listed = stated.get("lang_to_id")
    if listed is None:
        listed = {token: number for token, number in ids.items() if _LANGUAGE.fullmatch(token)}
    languages = {}
    for token, number in dict(listed).items():
        named = _LANGUAGE.fullmatch(str(token))
        if named is None or ids.get(token) != number:
            raise InputError(f"lang_to_id: the tokenizer has no language {token!r} with the id {number!r}")
        languages[named.group(1)] = int(number)
    if not languages:
        raise InputError("the tokenizer names no language, which a multilingual Whisper needs")
    return dict(sorted(languages.items(), key=lambda pair: pair[1]))


def _fixed_language(stated: Mapping[str, Any], ids: Mapping[str, int], languages: Mapping[str, int]) -> str | None:
    """The code of the language that the checkpoint transcribes whatever it transcribes; None: it finds out.

    Raises:
        InputError: a language that the model does not know, or a task that is not transcription.
    """
    language, task = _forced(stated, ids)
    if task not in (None, "transcribe"):
        raise InputError(
            f"generation_config.json: the task is {task!r}, and a bundle transcribes unless its caller wants else: "
            "set the task to transcribe, and call with the task translate"
        )
    if language is None:
        return None
    name = str(language).lower()
    code = name.removeprefix("<|").removesuffix("|>") if name.startswith("<|") else LANGUAGE_CODES.get(name, name)
    if code not in languages and (languages or code != "en"):
        known = sorted(languages) or ["en"]
        guess = did_you_mean(name, known, {name: (code,) for name, code in LANGUAGE_CODES.items()})
        raise InputError(f"the model has no language {language!r}: {guess}expected one of {', '.join(known)}")
    return code


def _with_language(stated: Mapping[str, Any], ids: Mapping[str, int], language: str) -> dict[str, Any]:
    """Settings with another language than the checkpoint fixes; its task stays."""
    _, task = _forced(stated, ids)
    kept = {name: value for name, value in stated.items() if name not in ("language", "task", "forced_decoder_ids")}
    chosen = {"language": None if language == ANY_LANGUAGE else language, "task": task}
    return {**kept, **_stated(chosen)}


def _forced(stated: Mapping[str, Any], ids: Mapping[str, int]) -> tuple[Any, Any]:
    """The language and the task; older files force their tokens, which transformers reads where both are missing.

    Raises:
        InputError: other tokens are forced, or these in another order.
    """
    language, task = stated.get("language"), stated.get("task")
    if language is not None or task is not None:
        return language, task
    names = {number: token for token, number in ids.items()}
    forced = _forced_tokens(stated, names)
    for token in forced:
        if token in (_TRANSCRIBE, _TRANSLATE):
            task = token[2:-2]
        elif token != _NO_TIMESTAMPS:
            language = token or None
    return language, task


def _forced_tokens(stated: Mapping[str, Any], names: Mapping[int, str]) -> list[str]:
    """The tokens that are fed behind the start; "" where a language is left open."""
    forced = stated.get("forced_decoder_ids", [])
    pairs = isinstance(forced, list) and all(
        isinstance(entry, list) and len(entry) == 2 and all(number is None or type(number) is int for number in entry)
        for entry in forced
    )
    tokens = [names.get(entry[1], "?") if entry[1] is not None else "" for entry in forced] if pairs else ["?"]
    places = [entry[0] for entry in forced] if pairs else []
    rest = tokens[1:] if tokens and (tokens[0] == "" or _LANGUAGE.fullmatch(tokens[0])) else tokens
    rest = rest[1:] if rest and rest[0] in (_TRANSCRIBE, _TRANSLATE) else rest
    if places != list(range(1, len(tokens) + 1)) or rest not in ([], [_NO_TIMESTAMPS]):
        raise InputError(
            "forced_decoder_ids: expected the language, the task and <|notimestamps|> at the places 1, 2 and 3, "
            f"found {shorten(forced, 80)}: state language and task in generation_config.json in their place"
        )
    return tokens


def _suppressed(ids: Mapping[str, int], stated: Mapping[str, Any], tokens: SpeechTokens) -> tuple[Any, tuple[str, ...]]:
    """The ids that are never an answer. Where nobody lists them: those that are no text, with a note."""
    if "suppress_tokens" in stated:
        return stated["suppress_tokens"], ()
    control = (tokens.start, tokens.no_speech, *(ids.get(text) for text in (_TRANSCRIBE, _TRANSLATE)))
    control += (tokens.start_of_previous, ids.get(_LANGUAGE_MODEL))
    note = "the checkpoint lists no suppressed tokens: only its control tokens are kept out of transcripts"
    return [number for number in control if number is not None], (note,)


def _suppressed_at_start(
    ids: Mapping[str, int], stated: Mapping[str, Any], tokens: SpeechTokens
) -> tuple[Any, tuple[str, ...]]:
    """The ids that are no first answer. Where nobody lists them: those of openai/whisper, with a note."""
    if "begin_suppress_tokens" in stated:
        return stated["begin_suppress_tokens"], ()
    note = "the checkpoint does not list what no transcript starts with: the end of the text and a space are kept out"
    return [tokens.end] + ([ids[_SPACE]] if _SPACE in ids else []), (note,)


def _ids(value: Any, field: str, config: WhisperConfig) -> tuple[int, ...]:
    whole = isinstance(value, list) and all(isinstance(item, int) and not isinstance(item, bool) for item in value)
    if not whole or not all(0 <= item < config.vocab_size for item in value):
        raise InputError(f"{field} must be a list of ids below vocab_size {config.vocab_size}")
    return tuple(sorted(set(value)))


def _alignment_heads(stated: Mapping[str, Any]) -> tuple[Head, ...]:
    value = stated.get("alignment_heads", [])
    pairs = isinstance(value, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(type(number) is int for number in pair) for pair in value
    )
    if not pairs:
        raise InputError("alignment_heads must be a list of [layer, head]")
    return tuple((pair[0], pair[1]) for pair in value)


_AUDIO = (("sampling_rate", 16_000, 192_000), ("n_fft", 400, 16_384), ("hop_length", 160, 16_384))
"""Fields of the preprocessor, what they are where it leaves them out, and at most in a bundle's manifest."""


def _audio(folder: Path, config: WhisperConfig) -> tuple[int, int, int, int]:
    """Rate in Hz, n_fft and hop_length in samples, and the window in seconds."""
    # Newer versions of transformers keep the same settings inside of processor_config.json.
    raw = _read(folder / "preprocessor_config.json") or _read(folder / "processor_config.json").get(
        "feature_extractor", {}
    )
    rate, n_fft, hop_length = (fields.read_int(raw, field, default) for field, default, _ in _AUDIO)
    for (field, _, most), found in zip(_AUDIO, (rate, n_fft, hop_length), strict=True):
        if found > most:
            raise InputError(f"preprocessor: {field} is {shorten(found)}: expected {most} at most")
    samples = config.max_source_positions * FRAMES_PER_POSITION * hop_length
    bands = fields.read_int(raw, "feature_size", config.num_mel_bins)
    if bands != config.num_mel_bins:
        raise InputError(f"preprocessor: feature_size must be num_mel_bins {config.num_mel_bins}, found {bands}")
    if samples % rate or fields.read_int(raw, "chunk_length", samples // rate) != samples // rate:
        raise InputError(
            f"preprocessor: {config.max_source_positions} positions are a window of {samples / rate:g} s, which must "
            f"be whole seconds and chunk_length, found {shorten(raw.get('chunk_length'))}"
        )
    return rate, n_fft, hop_length, samples // rate
