"""What a caller can ask of a transcription, and of generated text."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.registry import check_choice

TASKS = ("transcribe", "translate")
MAX_BEAMS = 64


@dataclass(frozen=True)
class TranscribeOptions:
    """How to transcribe. The defaults are those of Radford et al. 2022, section 4.5, but for greedy decoding.

    Attributes:
        language: a code as "en"; None: found out from the first audio that is no silence.
        task: "transcribe", or "translate" into English.
        timestamps: let the model say when its segments begin and end, which makes it skip less of long audio. Without,
            a segment is a window of audio.
        word_timestamps: time each word, from the decoder's attention to the audio.
        initial_prompt: text that comes before, to set names, spelling and style.
        condition_on_previous_text: what was transcribed last is the prompt of the next window.
        beam_size: hypotheses that the search follows at temperature 0; 1 is greedy.
        patience: the search ends when `patience * beam_size` hypotheses have ended.
        length_penalty: alpha of Wu et al. 2016, equation 14; None: mean log probability.
        best_of: samples that are drawn at temperatures above 0, of which the likeliest counts.
        temperatures: tried in turn until a result is good enough.
        compression_ratio_threshold: text that compresses better than this is repetitive, so not good enough.
        log_probability_threshold: a mean log probability of tokens below this is not good enough.
        no_speech_threshold: a probability of no speech above this makes an improbable text silence.
        max_tokens: the longest text of a window, in tokens.
        seed: of the samples; the same seed gives the same text.
        vad_filter: transcribe only where a voice activity detector hears somebody (Silero's, of the extra `vad`).
        vad_threshold: the probability of a voice from which on it does.
        hotwords: words to expect in every window, as names; `initial_prompt` gives way to what was said last.
        clip_timestamps: seconds at which parts to transcribe start and end in turn; the last may have no end. Empty:
            all of the recording.
    """

    language: str | None = None
    task: str = "transcribe"
    timestamps: bool = True
    word_timestamps: bool = False
    initial_prompt: str | None = None
    condition_on_previous_text: bool = False
    beam_size: int = 1
    patience: float = 1.0
    length_penalty: float | None = None
    best_of: int = 1
    temperatures: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    compression_ratio_threshold: float | None = 2.4
    log_probability_threshold: float | None = -1.0
    no_speech_threshold: float | None = 0.6
    max_tokens: int = 224
    seed: int = 0
    vad_filter: bool = False
    vad_threshold: float = 0.5
    hotwords: str | None = None
    clip_timestamps: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_choice(self.task, TASKS, "task")
        for name, value, highest in (
            ("beam_size", self.beam_size, MAX_BEAMS),
            ("best_of", self.best_of, MAX_BEAMS),
            ("max_tokens", self.max_tokens, 1 << 16),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= highest:
                raise InputError(f"{name}: expected 1 to {highest}, found {value!r}")
        if not 0 < self.patience <= MAX_BEAMS:
            raise InputError(f"patience: expected above 0 and at most {MAX_BEAMS}, found {self.patience!r}")
        if self.length_penalty is not None and not 0 <= self.length_penalty <= 1:
            raise InputError(f"length_penalty: expected 0 to 1 or None, found {self.length_penalty!r}")
        if not self.temperatures or any(not 0 <= temperature <= 10 for temperature in self.temperatures):
            raise InputError(f"temperatures: expected at least one, each 0 to 10, found {self.temperatures!r}")
        if not 0 < self.vad_threshold < 1:
            raise InputError(f"vad_threshold: expected above 0 and below 1, found {self.vad_threshold!r}")
        times = self.clip_timestamps
        if any(not 0 <= time < math.inf for time in times) or list(times) != sorted(times):
            raise InputError(f"clip_timestamps: expected seconds that never fall, found {times!r}")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise InputError(f"seed: expected an integer of at least 0, found {self.seed!r}")


MAX_STOPS = 16
MAX_STOP_CHARACTERS = 1000
MAX_SUGGESTIONS = 100


@dataclass(frozen=True)
class GenerateOptions:
    """How to go on with a prompt. The defaults are greedy: the likeliest token each time.

    Attributes:
        max_tokens: the longest text, in tokens.
        temperature: 0 is greedy; above, logits are divided by it and a token is drawn.
        top_k: draw among so many of the likeliest tokens; 0: among all.
        top_p: draw among the likeliest tokens whose probabilities sum to this (Holtzman et al. 2020, "The Curious Case
            of Neural Text Degeneration").
        repetition_penalty: above 1, what the prompt or the text has already becomes less likely (Keskar et al. 2019,
            "CTRL", section 4.1).
        stop: the text ends before the first of these strings.
        seed: of what is drawn; the same seed gives the same text.
        special_tokens: a special token that is written out in the prompt is that token; else it is text.
        suggest: in place of a text, so many of the likeliest next words; 0: a text.
        chat: the prompt is what a user says: the bundle's chat template surrounds it.
    """

    max_tokens: int = 64
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    special_tokens: bool = False
    suggest: int = 0
    chat: bool = False

    def __post_init__(self) -> None:
        for name, whole, lowest, highest in (
            ("max_tokens", self.max_tokens, 1, 1 << 16),
            ("top_k", self.top_k, 0, 1 << 24),
            ("seed", self.seed, 0, (1 << 63) - 1),
            ("suggest", self.suggest, 0, MAX_SUGGESTIONS),
        ):
            if not isinstance(whole, int) or isinstance(whole, bool) or not lowest <= whole <= highest:
                raise InputError(f"{name}: expected {lowest} to {highest}, found {whole!r}")
        for name, value, is_right, expected in (
            ("temperature", self.temperature, 0 <= self.temperature <= 100, "0 to 100"),
            ("top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("repetition_penalty", self.repetition_penalty, 0 < self.repetition_penalty <= 100, "above 0, at most 100"),
        ):
            if not is_right:
                raise InputError(f"{name}: expected {expected}, found {value!r}")
        if self.chat and self.suggest:
            raise InputError("chat and suggest exclude each other: suggestions follow a text as it is typed")
        if len(self.stop) > MAX_STOPS or not all(0 < len(text) <= MAX_STOP_CHARACTERS for text in self.stop):
            raise InputError(
                f"stop: expected at most {MAX_STOPS} texts of 1 to {MAX_STOP_CHARACTERS} characters, found "
                f"{shorten(self.stop)}"
            )
