"""From single times of the speech benchmark to its rows, and rows as tables and as a picture."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.intervals import prediction_interval, span
from edgeformer_runtime.bench.contender import Contender

SHORT_SECONDS = 4.0
FEW_TOKENS = 4
"""Where a second run of the reference clip stops, from which the time of a token is found."""
PAIRS = 5
"""How often it is found in each round: it is a small difference of two times."""

HEADERS = (
    "",
    "precision",
    "size",
    "memory",
    "reference clip",
    "ratio",
    "short clips",
    "token",
    "real-time factor",
    "word errors",
)

Results = dict[str, Any]


@dataclass(frozen=True)
class Clip:
    """The name of a recording's file, and its length in seconds."""

    file: str
    seconds: float


@dataclass(frozen=True)
class Run:
    """One clip transcribed once: seconds of wall clock, processor seconds of all threads, and tokens of text."""

    wall_s: float
    cpu_s: float
    tokens: int


@dataclass(frozen=True)
class Times:
    """What was measured of a contender.

    Attributes:
        rounds: for each round, a run for each clip.
        pairs: the reference clip whole, and at once again but stopped after `FEW_TOKENS`; `PAIRS` for each round.
        load_ms: from the factory's call to the model.
        peak_rss_bytes: of the whole process.
        word_errors: over all clips.
    """

    contender: Contender
    rounds: tuple[tuple[Run, ...], ...]
    pairs: tuple[tuple[Run, Run], ...]
    load_ms: float
    peak_rss_bytes: int
    word_errors: int


def rows(times: Sequence[Times], clips: Sequence[Clip], reference_clip: int, reference: int) -> list[dict[str, Any]]:
    """A row of JSON values for each contender, its medians over the rounds.

    Ratios are of processor time to the reference contender's in the same round: other processes of the machine change
    that far less than the wall clock, and both contenders alike.

    Args:
        times: of each contender.
        clips: in the order of the rounds' runs.
        reference_clip: index of the clip whose ratio and time per token are reported.
        reference: index of the contender that ratios refer to.
    """
    return [_row(each, times[reference], clips, reference_clip) for each in times]


def _row(times: Times, reference: Times, clips: Sequence[Clip], reference_clip: int) -> dict[str, Any]:
    by_clip = list(zip(*times.rounds, strict=True))
    walls = [statistics.median(run.wall_s for run in runs) for runs in by_clip]
    cpus = [statistics.median(run.cpu_s for run in runs) for runs in by_clip]
    by_round = [
        [run.cpu_s / other.cpu_s for run, other in zip(runs, others, strict=True)]
        for runs, others in zip(by_clip, zip(*reference.rounds, strict=True), strict=True)
    ]
    pairs = zip(_reference_seconds(times, reference_clip), _reference_seconds(reference, reference_clip), strict=True)
    by_round[reference_clip] = [own / other for own, other in pairs]
    ratios = [statistics.median(values) for values in by_round]
    short = [ratio for ratio, clip in zip(ratios, clips, strict=True) if clip.seconds < SHORT_SECONDS]
    contender = times.contender
    return {
        "name": contender.name,
        "engine": contender.engine,
        "precision": contender.precision,
        "size_bytes": contender.size_bytes,
        "load_ms": round(times.load_ms, 1),
        "peak_rss_mb": round(times.peak_rss_bytes / (1 << 20), 1),
        "wall_s": [round(value, 4) for value in walls],
        "cpu_s": [round(value, 4) for value in cpus],
        "tokens": [runs[0].tokens for runs in by_clip],
        "reference_clip_ratio": round(ratios[reference_clip], 4),
        "ratio_interval": None if times is reference else prediction_interval(by_round[reference_clip]),
        "short_clips_ratio": round(statistics.median(short), 4) if short else None,
        "token_ms": _token_ms(times.pairs),
        "real_time_factor": round(sum(cpus) / sum(clip.seconds for clip in clips), 4),
        "word_errors": times.word_errors,
    }


def _reference_seconds(times: Times, clip: int) -> list[float]:
    """Processor seconds of the reference clip in each round: the median of a round's runs that transcribed it whole."""
    each = len(times.pairs) // len(times.rounds)
    whole = [run.cpu_s for run, _ in times.pairs]
    return [
        statistics.median([runs[clip].cpu_s, *whole[number * each : (number + 1) * each]])
        for number, runs in enumerate(times.rounds)
    ]


def _token_ms(pairs: Sequence[tuple[Run, Run]]) -> float | None:
    """Processor ms that a token more of the same clip takes; None where the clip has no more tokens."""
    slopes = [
        (whole.cpu_s - cut.cpu_s) / (whole.tokens - cut.tokens) * 1e3
        for whole, cut in pairs
        if whole.tokens > cut.tokens
    ]
    return round(statistics.median(slopes), 3) if slopes else None


def terminal_table(results: Results) -> Table:
    """One row per contender, for the terminal."""
    table = Table(*HEADERS, title=_caption(results))
    for row in results["rows"]:
        table.add_row(*_cells(row, results))
    return table


def markdown(results: Results) -> str:
    """The table in docs/benchmarks.md."""
    lines = [
        f"**{results['model']}, {len(results['clips'])} clips of speech**",
        "",
        _caption(results),
        "",
        "| " + " | ".join(HEADERS) + " |",
        "|---|---|" + "---:|" * (len(HEADERS) - 2),
    ]
    lines += ["| " + " | ".join(_cells(row, results)) + " |" for row in results["rows"]]
    return "\n".join(lines)


def _caption(results: Results) -> str:
    reference_clip = results["clips"][results["reference_clip"]]
    return (
        f"Processor seconds of one thread, mel to text, medians of {results['rounds']} interleaved rounds. "
        f"The reference clip has {reference_clip['seconds']:.1f} s, short clips less than {SHORT_SECONDS:.0f} s; "
        f"ratios are to {results['reference']}."
    )


def _cells(row: dict[str, Any], results: Results) -> tuple[str, ...]:
    return (
        row["name"],
        row["precision"],
        f"{row['size_bytes'] / 1e6:.1f} MB",
        f"{row['peak_rss_mb']:.0f} MiB",
        f"{row['cpu_s'][results['reference_clip']]:.3f} s",
        f"{row['reference_clip_ratio']:.2f}{span(row.get('ratio_interval'))}",
        "" if row["short_clips_ratio"] is None else f"{row['short_clips_ratio']:.2f}",
        "" if row["token_ms"] is None else f"{row['token_ms']:.1f} ms",
        f"{row['real_time_factor']:.3f}",
        f"{row['word_errors']} of {results['words']}",
    )


def plot(results: Results, file: Path) -> None:
    """Processor time against the clips' length, a line per contender, as a picture in the format of `file`'s name."""
    import logging

    import matplotlib

    # It tells of its cache of fonts; the conversion tools' log handlers write to a stream that is closed by then.
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    matplotlib.use("agg")
    from matplotlib import pyplot

    seconds = [clip["seconds"] for clip in results["clips"]]
    order = sorted(range(len(seconds)), key=seconds.__getitem__)
    figure, axes = pyplot.subplots(figsize=(9, 6))
    for place, row in enumerate(results["rows"]):
        axes.plot(
            [seconds[index] for index in order],
            [row["cpu_s"][index] for index in order],
            marker=".",
            color=pyplot.get_cmap("tab20")(place),
            linestyle="-" if row["name"].startswith("EdgeFormer") else "--",
            label=f"{row['name']} {row['precision']}",
        )
    axes.set(
        xlabel="length of the clip, s",
        ylabel="processor time, s",
        yscale="log",
        title=f"{results['model']}, one thread",
    )
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(file, dpi=120, bbox_inches="tight")
    pyplot.close(figure)
