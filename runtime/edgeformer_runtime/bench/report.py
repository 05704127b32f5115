"""What a benchmark found on one machine, as records and as JSON: the same for every machine, wherever it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgeformer_runtime.bench.device import Device, State
from edgeformer_runtime.bench.energy import Energy
from edgeformer_runtime.bench.estimates import CONFIDENCE, Interval, Quantiles
from edgeformer_runtime.bundle.strict_json import check, from_data, to_data

FORMAT_VERSION = 1
SCHEMA = "bench.schema.json"
MAX_BYTES = 16 << 20

LOCAL = "local"


@dataclass(frozen=True)
class Row:
    """What was measured of a contender.

    Attributes:
        name, engine, precision, program, batch, size_bytes, bundle_sha256: see `Contender`.
        threads: how many it may use.
        latency_ms: wall clock of single runs.
        cpu_ms: processor time of all threads, of the same runs; None: unknown.
        load_ms: from the factory's call to a model that can run.
        peak_rss_mb: the largest resident memory of the whole process, in MiB; None: unknown.
        private_mb: by how much loading and running it let the memory grow that no file backs, in MiB: packed weights,
            heap and the arena of activations; None: unknown.
        arena_mb: what activations take at most, by the program's graph, in MiB; None: nobody looked into the graph.
        energy: what it took; None: the device does not tell.
        ratio_to_first: the median over rounds of its turn's median over that of the cell's first contender.
        ratio_interval: low and high end; None: too few rounds, or it is the first.
    """

    name: str
    engine: str
    precision: str
    program: str | None
    threads: int
    batch: int
    size_bytes: int
    bundle_sha256: str | None
    latency_ms: Quantiles
    cpu_ms: Quantiles | None
    load_ms: float
    peak_rss_mb: float | None
    private_mb: float | None
    arena_mb: float | None
    energy: Energy | None
    ratio_to_first: float
    ratio_interval: Interval | None


@dataclass(frozen=True)
class Report:
    """A run of the benchmark on one machine.

    Attributes:
        on: which machine, as it was asked for: "local", "ssh://pi@raspberrypi", "adb://SERIAL".
        device: what it is.
        versions: of the packages that took part.
        before: how the machine was before the first contender was loaded.
        after: how it was after the last turn.
        rounds: how many turns each contender got; 0: turns were not interleaved.
        confidence: of all intervals.
        rows: cell by cell.
        notes: what a reader should know before believing it, a sentence each.
    """

    on: str
    device: Device
    versions: dict[str, str]
    before: State
    after: State
    rounds: int
    confidence: float
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def named(self, on: str) -> Report:
        """The same, of a machine that is known here by another name."""
        return replace(self, on=on)


def new_report(
    device: Device, versions: dict[str, str], states: tuple[State, State], rounds: int, rows: Sequence[Row]
) -> Report:
    """A report of this machine, with the notes that follow from what was seen.

    Args:
        device: this machine.
        versions: of its packages.
        states: before and after.
        rounds: turns per contender.
        rows: of all cells.
    """
    before, after = states
    notes = tuple(_notes(device, before, after, rows))
    return Report(LOCAL, device, versions, before, after, rounds, CONFIDENCE, tuple(rows), notes)


def to_json(reports: Sequence[Report]) -> dict[str, Any]:
    """What `bench --json` prints."""
    return {"format_version": FORMAT_VERSION, "reports": [to_data(report) for report in reports]}


def from_json(value: Any, where: str) -> list[Report]:
    """The reports of what `to_json` gave.

    Args:
        value: parsed JSON.
        where: it came from, for messages.

    Raises:
        BundleError: it does not follow `bench.schema.json`.
    """
    check(value, SCHEMA, where)
    return [from_data(Report, report, where) for report in value["reports"]]


_BUSY_LOAD = 0.5
_WAITING = 1.2


def _notes(device: Device, before: State, after: State, rows: Sequence[Row]) -> list[str]:
    found = []
    if before.load_average is not None and before.load_average > _BUSY_LOAD * device.cores:
        found.append(f"other processes were busy: a load of {before.load_average:.1f} on {device.cores} cores before")
    waiting = [row.name for row in rows if row.cpu_ms and row.latency_ms.median > _WAITING * row.cpu_ms.median]
    if waiting:
        found.append(f"{', '.join(dict.fromkeys(waiting))} waited for the processor: compare processor times")
    if device.governor not in (None, "performance"):
        found.append(f"the clock's governor is {device.governor}: performance gives steadier times")
    now = [limit for limit in after.limits if not limit.endswith("since boot")]
    if now:
        found.append(f"the board holds its clock down: {', '.join(now)}")
    if any(row.threads > device.cores for row in rows):
        found.append(f"more threads than the {device.cores} cores that there are")
    return found
