"""Streams on a clock: how long after a word its text stays, what listening costs, and how often text is revised.

    python -m benchmarks.streams --bundle BUNDLE --audio FILE... [--partial-seconds 1.0]

Audio arrives in blocks of 0.1 s on a virtual clock, which a block's processor time moves on: the figures are those of
one core that does nothing else, whatever else this machine does. A word ends where the times of the whole recording's
transcript say so. Its text stays from the first update on behind which every update has it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime import load
from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.decoding.tokenizer import join_texts
from edgeformer_runtime.pipelines.speech import Transcriber
from edgeformer_runtime.pipelines.speech_stream import StreamOptions
from edgeformer_runtime.preprocess.audio import open_audio

BLOCK_SECONDS = 0.1


@dataclass(frozen=True)
class Shown:
    """The text that a stream shows at a time of the clock: all of it, and how many of its words are said to stay."""

    at: float
    words: tuple[str, ...]
    stable: int


@dataclass(frozen=True)
class StreamFigures:
    """One recording's figures.

    Attributes:
        seconds: of audio.
        words: that the stream's transcript has.
        lag_s: from the end of each word to the text that stays.
        stated_lag_s: from the end of each word to the text that the stream says will stay.
        real_time_factor: processor seconds for a second of audio.
        worst_late_s: the most that the clock was behind the audio.
        revised: words that were shown and changed later, for each word of the transcript.
    """

    seconds: float
    words: int
    lag_s: tuple[float, ...]
    stated_lag_s: tuple[float, ...]
    real_time_factor: float
    worst_late_s: float
    revised: float


def measure_stream(transcriber: Transcriber, samples: NDArray[np.float32], options: StreamOptions) -> StreamFigures:
    """Let a stream hear samples (N,) at the model's rate."""
    rate = transcriber.bundle.manifest.preprocessing.sample_rate  # type: ignore[union-attr]
    shown: list[Shown] = []
    clock = cost = worst = 0.0
    stream = transcriber.open_stream(None, options)
    stream.clock = time.process_time  # type: ignore[method-assign]

    final = ""
    size = round(BLOCK_SECONDS * rate)
    for end in [*range(size, len(samples), size), len(samples), None]:
        begin = time.process_time()
        if end is None:
            updates = stream.finish()
        else:
            updates = stream.feed(samples[end - size if end % size == 0 else end // size * size : end])
        spent = time.process_time() - begin
        arrived = (len(samples) if end is None else end) / rate
        clock = max(clock, arrived) + spent
        cost += spent
        worst = max(worst, clock - arrived)
        for update in updates:
            final = join_texts([final, *(segment.text for segment in update.final)])
            stable = len(_words(join_texts([final, update.stable])))
            shown.append(Shown(clock, _words(join_texts([final, update.partial])), stable))
    return _figures(shown, _word_ends(transcriber, samples), len(samples) / rate, cost, worst)


def _words(text: str) -> tuple[str, ...]:
    plain = ("".join(filter(str.isalnum, word.lower())) for word in text.split())
    return tuple(word for word in plain if word)


def _word_ends(transcriber: Transcriber, samples: NDArray[np.float32]) -> list[tuple[str, float]]:
    """The words of the whole recording, and where they end in seconds."""
    found = transcriber.run(samples, TranscribeOptions(word_timestamps=True))
    timed = [word for segment in found.segments for word in segment.words]
    return [(text, word.end) for word in timed for text in _words(word.text)]


def _figures(
    shown: Sequence[Shown], ends: Sequence[tuple[str, float]], seconds: float, cost: float, worst: float
) -> StreamFigures:
    last = shown[-1].words if shown else ()
    settled: list[float | None] = [None] * len(last)
    stated: list[float | None] = [None] * len(last)
    revised = 0
    for index, each in enumerate(shown):
        there = dict(_aligned(last, each.words))
        for place in range(len(last)):
            if place not in there:
                settled[place] = stated[place] = None
                continue
            settled[place] = each.at if settled[place] is None else settled[place]
            if there[place] < each.stable and stated[place] is None:
                stated[place] = each.at
        following = shown[index + 1].words if index + 1 < len(shown) else each.words
        revised += sum(a != b for a, b in zip(each.words, following, strict=False))
    pairs = list(_aligned(last, [text for text, _ in ends]))
    return StreamFigures(
        seconds,
        len(last),
        _lags(settled, pairs, ends),
        _lags(stated, pairs, ends),
        cost / seconds,
        worst,
        revised / max(1, len(last)),
    )


def _lags(
    times: Sequence[float | None], pairs: Sequence[tuple[int, int]], ends: Sequence[tuple[str, float]]
) -> tuple[float, ...]:
    found = ((times[mine], ends[theirs][1]) for mine, theirs in pairs)
    return tuple(round(at - end, 3) for at, end in found if at is not None)


def _aligned(mine: Sequence[str], theirs: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Places of words that two transcripts share, in order."""
    from difflib import SequenceMatcher

    for block in SequenceMatcher(None, mine, theirs, autojunk=False).get_matching_blocks():
        yield from ((block.a + offset, block.b + offset) for offset in range(block.size))


def summary(figures: Sequence[StreamFigures]) -> dict[str, Any]:
    """All recordings in one line of figures."""
    lags = sorted(lag for each in figures for lag in each.lag_s)
    stated = sorted(lag for each in figures for lag in each.stated_lag_s)
    seconds = sum(each.seconds for each in figures)
    return {
        "seconds": round(seconds, 1),
        "words": sum(each.words for each in figures),
        "lag_s": {"median": _at(lags, 0.5), "p90": _at(lags, 0.9), "worst": _at(lags, 1.0)},
        "stated_lag_s": {"median": _at(stated, 0.5), "p90": _at(stated, 0.9), "worst": _at(stated, 1.0)},
        "real_time_factor": round(sum(each.real_time_factor * each.seconds for each in figures) / seconds, 3),
        "worst_late_s": round(max(each.worst_late_s for each in figures), 2),
        "revised_words": round(statistics.fmean(each.revised for each in figures), 3),
    }


def _at(values: Sequence[float], share: float) -> float | None:
    return values[min(len(values) - 1, int(share * len(values)))] if values else None


def main() -> None:
    """Measure files, and print their figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--audio", type=Path, nargs="+", required=True)
    parser.add_argument("--partial-seconds", type=float, default=StreamOptions.partial_seconds)
    arguments = parser.parse_args()
    options = StreamOptions(partial_seconds=arguments.partial_seconds)
    with load(arguments.bundle) as opened:
        transcriber = cast(Transcriber, opened)
        rate = transcriber.bundle.manifest.preprocessing.sample_rate  # type: ignore[union-attr]
        recordings = []
        for path in arguments.audio:
            with open_audio(path, rate) as reader:
                recordings.append(reader.read(1 << 40))
        measure_stream(transcriber, recordings[0], options)  # engines load programs when they are first called
        silence = measure_stream(transcriber, np.zeros(60 * rate, np.float32), options)
        figures = [measure_stream(transcriber, samples, options) for samples in recordings]
    print(json.dumps(summary(figures) | {"silence_real_time_factor": round(silence.real_time_factor, 4)}))


if __name__ == "__main__":
    main()
