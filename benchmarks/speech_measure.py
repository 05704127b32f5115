"""Times contenders of the speech benchmark in turns, each in a process of its own with one thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from benchmarks.speech_clips import Audio
from benchmarks.speech_results import FEW_TOKENS, PAIRS, Clip, Run, Times
from edgeformer.evaluate.speech import WordErrors, count_word_errors, simple_words, total
from edgeformer_runtime.bench.contender import Contender
from edgeformer_runtime.bench.measure import Child

WORKER = "benchmarks.speech_worker"
REFERENCE_CLIP = "jfk.wav"


@dataclass(frozen=True)
class Measured:
    """The times in the contenders' order, what was transcribed, and how many words it has."""

    times: tuple[Times, ...]
    clips: tuple[Clip, ...]
    words: int


class Entry:
    """A contender in its process, and what it has done so far."""

    def __init__(self, contender: Contender, child: Child) -> None:
        """Load the model."""
        self._contender = contender
        self._child = child
        self._load_ms = child.load()
        self._rounds: list[tuple[Run, ...]] = []
        self._pairs: list[tuple[Run, Run]] = []
        self._errors = WordErrors(0, 0)

    def read(self, recordings: Sequence[Audio]) -> list[float]:
        """Read the recordings; their lengths in seconds."""
        parts = [[str(audio.file), audio.start, audio.end] for audio in recordings]
        seconds: list[float] = self._child.ask({"clips": {"parts": parts}})["seconds"]
        return seconds

    def score(self, texts: Sequence[str]) -> int:
        """Transcribe every clip once, untimed, and count the errors; how many words the texts have."""
        heard = [str(self._hear(clip)["text"]) for clip in range(len(texts))]
        self._errors = total(
            count_word_errors(said, text, simple_words) for said, text in zip(texts, heard, strict=True)
        )
        return self._errors.words

    def run(self, clip: int, max_tokens: int | None = None) -> Run:
        """Transcribe one clip, timed."""
        heard = self._hear(clip, max_tokens)
        return Run(float(heard["wall_s"]), float(heard["cpu_s"]), int(heard["tokens"]))

    def keep(self, runs: tuple[Run, ...], clip: int) -> None:
        """Note a round: all clips, then one of them whole and cut short by turns, for the time of a token."""
        self._rounds.append(runs)
        self._pairs += [(self.run(clip), self.run(clip, FEW_TOKENS)) for _ in range(PAIRS)]

    def finish(self) -> Times:
        """All that was found."""
        return Times(
            contender=self._contender,
            rounds=tuple(self._rounds),
            pairs=tuple(self._pairs),
            load_ms=self._load_ms,
            peak_rss_bytes=int(self._child.finish()),
            word_errors=self._errors.errors,
        )

    def _hear(self, clip: int, max_tokens: int | None = None) -> dict[str, Any]:
        return self._child.ask({"hear": {"clip": clip, "max_tokens": max_tokens}})


def measure(
    contenders: Sequence[Contender],
    recordings: Sequence[Audio],
    rounds: int,
    report: Callable[[str], None],
    worker: str = WORKER,
) -> Measured:
    """Time all contenders on all clips.

    Args:
        contenders: each gets a process.
        recordings: the clips.
        rounds: how often each clip is transcribed, after a first time that is not timed.
        report: called with a line before each step.
        worker: the module of the processes.

    Raises:
        EngineError: a contender failed; the message names it.
    """
    texts = [audio.text for audio in recordings]
    cut = reference_clip([audio.file.name for audio in recordings])
    with ExitStack() as stack:
        entries = []
        for contender in contenders:
            report(f"loading {contender.name} {contender.precision}")
            entries.append(Entry(contender, stack.enter_context(Child(contender, 1, worker))))
        report("warming up and counting word errors")
        lengths, *_ = [entry.read(recordings) for entry in entries]
        words, *_ = [entry.score(texts) for entry in entries]
        for finished in range(rounds):
            report(f"round {finished + 1} of {rounds}")
            # Clip by clip, so that a noisy moment of the machine meets all contenders alike.
            turns = [[entry.run(clip) for entry in entries] for clip in range(len(recordings))]
            for entry, runs in zip(entries, zip(*turns, strict=True), strict=True):
                entry.keep(runs, cut)
        times = tuple(entry.finish() for entry in entries)
    named = tuple(Clip(audio.file.name, seconds) for audio, seconds in zip(recordings, lengths, strict=True))
    return Measured(times, named, words)


def reference_clip(names: Sequence[str]) -> int:
    """The index of `REFERENCE_CLIP`, or where that is missing, of the first clip."""
    return names.index(REFERENCE_CLIP) if REFERENCE_CLIP in names else 0
