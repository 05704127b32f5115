"""`eval` of speech: a bundle's word errors, its source model's, and how much time both take."""

from __future__ import annotations

import copy
import math
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, cast

from rich.table import Table

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import Checkpoint, load_module
from edgeformer.checkpoints.source_index import SOURCE_ATTENTION, TorchEngine
from edgeformer.data.annotated import Clip, SpeechData, read_speech_data
from edgeformer.evaluate.evaluate import Z_95, Answers, Asker, EvaluationResult
from edgeformer.models.family import FULL_WINDOW, ProgramOptions
from edgeformer.tasks.speech import ENGLISH, WORD_ERRORS
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.specs import HOST_STATE, AudioBucket, AudioPreprocessing, Transcription
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.interface import CountProgress
from edgeformer_runtime.isolation.pipeline import IsolatedPipeline
from edgeformer_runtime.pipelines import Pipeline, open_pipeline
from edgeformer_runtime.pipelines.transcript import Transcript
from edgeformer_runtime.registry import load_attribute


class Listener(Protocol):
    """What is evaluated: a `Transcriber`, or a stand-in."""

    def run(self, raw: Any) -> Transcript:
        """What is said in a recording."""


@dataclass(frozen=True)
class ClipHypothesis:
    """A model's transcript of a clip and what it cost.

    Attributes:
        text: the transcript.
        language: a code as "en", None where nobody speaks.
        sound_seconds: length of the clip.
        run_seconds: wall clock from the file to the text.
        simple: errors in words of lower case without punctuation.
        whisper: errors after Whisper's normaliser of English; None where that does not apply or is not installed.
    """

    text: str
    language: str | None
    sound_seconds: float
    run_seconds: float
    simple: WordErrors
    whisper: WordErrors | None


@dataclass(frozen=True)
class ClipRow:
    """One clip: its name, what is said in it, and what the bundle and its source (None: not at hand) wrote."""

    name: str
    said: str
    bundle: ClipHypothesis
    source: ClipHypothesis | None


@dataclass(frozen=True)
class Score:
    """Of one model over all clips.

    Attributes:
        simple: errors in words of lower case without punctuation.
        whisper: errors after Whisper's normaliser of English, None as in `ClipHypothesis`.
        real_time_factor: seconds of work per second of audio; below 1 is faster than speech.
    """

    simple: WordErrors
    whisper: WordErrors | None
    real_time_factor: float


@dataclass(frozen=True, repr=False)
class SpeechEvaluation(EvaluationResult):
    """What was found.

    Attributes:
        executed_by: what ran the bundle's programs.
        rows: the clips in the order of the data.
        bundle: of the bundle.
        source: of the source model: fp32 in torch, always over its whole window; None where it was not at hand.
        agreement: the fraction of clips to which both give the same words, None without a source.
    """

    executed_by: str
    rows: tuple[ClipRow, ...]
    bundle: Score
    source: Score | None
    agreement: float | None

    def to_json(self) -> dict[str, Any]:
        """The document that `eval --json` prints; rates are errors per word."""
        source = self.source
        return {
            "metric": "wer",
            "value": self.bundle.simple.rate,
            "n": len(self.rows),
            "source_value": None if source is None else source.simple.rate,
            "agreement": self.agreement,
            "words": self.bundle.simple.words,
            "wer_whisper_english": _rate(self.bundle),
            "source_wer_whisper_english": None if source is None else _rate(source),
            "real_time_factor": self.bundle.real_time_factor,
            "source_real_time_factor": None if source is None else source.real_time_factor,
            "executed_by": self.executed_by,
            "clips": [asdict(row) for row in self.rows],
        }

    def tables(self) -> list[Table]:
        """A row for the bundle and one for its source."""
        table = Table("model", "executed by", "WER", "WER, Whisper's words", "real-time factor", "same words", "clips")
        same = "-" if self.agreement is None else f"{self.agreement:.2%}"
        table.add_row(self.model, self.executed_by, *_cells(self.bundle), same, str(len(self.rows)))
        if self.source is not None:
            table.add_row(self.source_model, "torch, fp32", *_cells(self.source), "", "")
        return [table]

    @property
    def answers(self) -> Answers:
        """The bundle's, clip by clip."""
        return Answers(
            metric=WORD_ERRORS,
            value=self.bundle.simple.rate,
            examples=tuple(row.name for row in self.rows),
            truth=tuple(row.said for row in self.rows),
            given=tuple(row.bundle.text for row in self.rows),
        )


def evaluate_speech(asker: Asker, data: str, limit: int | None) -> SpeechEvaluation:
    """Have a speech recogniser and its source model transcribe clips whose text is known.

    Args:
        asker: whom to ask; isolated, tokenizer and decoder of audio are in the other process, too.
        data: see `read_speech_data`.
        limit: use so many clips, spread evenly; None: all.

    Raises:
        InputError: the data cannot be used, or `asker.source` is not the bundle's.
    """
    opened = read_speech_data(data)
    chosen = opened if limit is None else opened.limited(limit)
    notes: list[str] = []
    checkpoint = asker.open_source(notes)
    reference = None if checkpoint is None else _source_listener(asker.bundle, checkpoint)
    listener = _open_listener(asker)
    engine = listener.engine
    try:
        found = measure(cast(Listener, listener), reference, chosen, engine.executed_by, asker.progress)
    finally:
        engine.close()  # and not the listener, which would close the caller's bundle
    if engine.not_covered is not None:
        notes.append(engine.not_covered)
    return replace(found, notes=(*found.notes, *notes))


def transcripts(asker: Asker, data: str, limit: int | None) -> Answers:
    """The transcript of each clip; see `evaluate_speech`."""
    return evaluate_speech(asker, data, limit).answers


def same_words(text: str, other: str) -> bool:
    """Whether two transcripts say the same, punctuation aside."""
    return simple_words(text) == simple_words(other)


def word_error_interval(answers: Answers) -> tuple[float, float] | None:
    """What holds a word error rate with 95 %, as a ratio of sums over clips (Cochran 1977, 6.4); None of one clip."""
    each = [count_word_errors(*pair, simple_words) for pair in zip(answers.truth, answers.given, strict=True)]
    n, words = len(each), sum(one.words for one in each)
    if n < 2 or not words:
        return None
    rate = sum(one.errors for one in each) / words
    spread = sum((one.errors - rate * one.words) ** 2 for one in each) * n / (n - 1)
    reach = Z_95 * math.sqrt(spread) / words
    return max(0.0, rate - reach), rate + reach


def _open_listener(asker: Asker) -> Pipeline[Any, Any]:
    """What is evaluated."""
    if asker.isolated:
        return IsolatedPipeline(asker.bundle, asker.threads)
    return open_pipeline(asker.bundle, asker.open_engine())


def measure(
    listener: Listener,
    reference: Listener | None,
    data: SpeechData,
    executed_by: str,
    progress: CountProgress | None = None,
) -> SpeechEvaluation:
    """Score a listener, and a reference where there is one, over clips.

    Each transcribes the first clip once before, so that what happens only once is not measured.

    Args:
        listener: what is evaluated.
        reference: what it should agree with.
        data: the clips.
        executed_by: what runs the listener.
        progress: called after each clip.

    Raises:
        InputError: a clip cannot be read; the message names it.
    """
    normalised, note = _normaliser()
    listeners = [listener, *([] if reference is None else [reference])]
    for each in listeners:
        _transcribe(each, data.clips[0], normalised)
    rows = []
    for number, clip in enumerate(data.clips, 1):
        hypotheses = [_transcribe(each, clip, normalised) for each in listeners]
        rows.append(ClipRow(clip.name, clip.text, hypotheses[0], hypotheses[1] if reference is not None else None))
        if progress is not None:
            progress(number, len(data.clips))
    sources = [row.source for row in rows if row.source is not None]
    same = [same_words(row.bundle.text, row.source.text) for row in rows if row.source is not None]
    return SpeechEvaluation(
        executed_by=executed_by,
        rows=tuple(rows),
        bundle=_score([row.bundle for row in rows]),
        source=_score(sources) if sources else None,
        agreement=sum(same) / len(same) if same else None,
        notes=(*data.notes, *note),
    )


def _cells(score: Score) -> tuple[str, str, str]:
    whisper = "-" if score.whisper is None else _percent(score.whisper)
    return _percent(score.simple), whisper, f"{score.real_time_factor:.3f}"


def _percent(found: WordErrors) -> str:
    return f"{found.rate:.2%} ({found.errors} of {found.words})"


def _rate(score: Score) -> float | None:
    return None if score.whisper is None else score.whisper.rate


def _normaliser() -> tuple[Words | None, tuple[str, ...]]:
    """Whisper's words of English; None and a note where its package is missing."""
    try:
        return whisper_english_words(), ()
    except InputError as error:
        return None, (str(error),)


def _transcribe(listener: Listener, clip: Clip, normalised: Words | None) -> ClipHypothesis:
    start = time.perf_counter()
    try:
        found = listener.run(clip.path)
    except InputError as error:
        raise InputError(f"{shorten(clip.name, 200)[1:-1]}: {error}") from None
    seconds = time.perf_counter() - start
    english = found.language in (None, ENGLISH)
    return ClipHypothesis(
        text=found.text,
        language=found.language,
        sound_seconds=found.duration,
        run_seconds=seconds,
        simple=count_word_errors(clip.text, found.text, simple_words),
        whisper=count_word_errors(clip.text, found.text, normalised) if normalised and english else None,
    )


def _score(hypotheses: Sequence[ClipHypothesis]) -> Score:
    whisper = [each.whisper for each in hypotheses if each.whisper is not None]
    return Score(
        simple=total(each.simple for each in hypotheses),
        whisper=total(whisper) if len(whisper) == len(hypotheses) else None,
        real_time_factor=sum(each.run_seconds for each in hypotheses)
        / max(sum(each.sound_seconds for each in hypotheses), 1e-9),
    )


def _source_listener(bundle: Bundle, checkpoint: Checkpoint) -> Listener:
    """The source model in torch as it was published: always with its whole window, without stand-ins for silence.

    All else, from audio to mel and from logits to text, is the bundle's.
    """
    spec = cast(Transcription, bundle.manifest.postprocessing)
    audio = cast(AudioPreprocessing, bundle.manifest.preprocessing)
    module, _ = load_module(checkpoint, KERNELS[SOURCE_ATTENTION])
    options = ProgramOptions(window=FULL_WINDOW, prefill_tokens=spec.prefill_tokens, decoder_state=HOST_STATE)
    programs = checkpoint.family.programs(module, checkpoint.config, options)
    encode, prefill, decode = programs
    rows = next(tensor.shape[0] for tensor in decode.inputs if tensor.name == "mask")
    positions = audio.window_seconds * audio.sample_rate // audio.samples_per_position
    window = AudioBucket(positions, 0, rows, encode.name, prefill.name, decode.name)
    whole = copy.copy(bundle)
    whole.manifest = replace(bundle.manifest, postprocessing=replace(spec, state=HOST_STATE, buckets=(window,)))
    return cast(Listener, open_pipeline(whole, TorchEngine(programs)))


# Word error rate: how much of a transcript differs from what was said.


Words = Callable[[str], list[str]]
"""What the words of a text are, so that spelling alone is no error."""

_NO_PART_OF_A_WORD = re.compile(r"[^\w\s']")


@dataclass(frozen=True)
class WordErrors:
    """Errors in one transcript, or in many together.

    Attributes:
        errors: words that were replaced, left out or made up, as few as explain the transcript.
        words: that were said.
    """

    errors: int
    words: int

    @property
    def rate(self) -> float:
        """Errors per word; it may exceed 1. Made-up words count as if one word had been said where none was."""
        return self.errors / max(1, self.words)


def count_word_errors(reference: str, hypothesis: str, words: Words) -> WordErrors:
    """The edit distance (Levenshtein 1966) between the words of two texts."""
    expected, found = words(reference), words(hypothesis)
    distances = list(range(len(found) + 1))  # from the reference's words so far to each start of the hypothesis
    for count, word in enumerate(expected, 1):
        diagonal, distances[0] = distances[0], count
        for index, other in enumerate(found, 1):
            replaced = diagonal + (word != other)
            diagonal = distances[index]
            distances[index] = min(replaced, diagonal + 1, distances[index - 1] + 1)
    return WordErrors(distances[-1], len(expected))


def total(each: Iterable[WordErrors]) -> WordErrors:
    """Errors in all transcripts together: long ones weigh more."""
    found = list(each)
    return WordErrors(sum(one.errors for one in found), sum(one.words for one in found))


def simple_words(text: str) -> list[str]:
    """Lower case, without punctuation but for apostrophes; for any language that writes spaces."""
    return _NO_PART_OF_A_WORD.sub(" ", text.lower()).split()


def whisper_english_words() -> Words:
    """Words after Whisper's normaliser of English (Radford et al. 2022, appendix C): numbers, spelling, contractions.

    Raises:
        InputError: the package that has it is not installed.
    """
    try:
        normalise = load_attribute("whisper_normalizer.english:EnglishTextNormalizer")()
    except ImportError:
        raise InputError(
            "Whisper's normaliser of English needs the package whisper-normalizer: pip install 'edgeformer[speech]'"
        ) from None
    return lambda text: str(normalise(text)).split()
