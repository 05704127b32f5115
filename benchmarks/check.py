"""Measures again and says which ratios of docs/benchmarks.md are found inside the intervals that it states.

    python -m benchmarks.check [sentences] [text] [vision] [speech] [footprint] [--new FILE]

Exit code 1: a ratio lies outside of its interval. Ratios are compared, not times: those are another machine's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.tables import RESULTS
from edgeformer_runtime.cli.console import err, out

SCRIPTS = {
    "sentences": "benchmarks.sentences",
    "text": "benchmarks.text_peers",
    "vision": "benchmarks.vision_peers",
    "speech": "benchmarks.whisper_peers",
    "footprint": "benchmarks.footprint",
}
Ratio = tuple[tuple[str, str], float, list[float] | None]
"""Model and row, the ratio, its interval."""

_EXIT_OUTSIDE, _EXIT_NOTHING = 1, 2


@dataclass(frozen=True)
class Checked:
    """A ratio of the stored results, and what another run found.

    Attributes:
        model: whose row it is.
        row: its name and precision.
        stated: the stored ratio.
        interval: in which other runs are to find it.
        found: the other run's ratio; None: it has no such row.
    """

    model: str
    row: str
    stated: float
    interval: tuple[float, float]
    found: float | None

    @property
    def inside(self) -> bool:
        """Whether the other run agrees."""
        return self.found is not None and self.interval[0] <= self.found <= self.interval[1]


def compare(stored: dict[str, Any], new: dict[str, Any]) -> list[Checked]:
    """Every stored ratio that has an interval, beside the other run's."""
    found = {key: ratio for key, ratio, _ in _ratios(new)}
    return [
        Checked(*key, ratio, (interval[0], interval[1]), found.get(key))
        for key, ratio, interval in _ratios(stored)
        if interval is not None
    ]


def _ratios(results: dict[str, Any]) -> Iterator[Ratio]:
    """Of whatever benchmark made the results."""
    return _of_cold_starts(results["contenders"]) if "contenders" in results else _of_models(results)


def _of_models(results: dict[str, Any]) -> Iterator[Ratio]:
    """Of text and vision in models, of speech of the reference clip."""
    for model in results.get("models", [results]):
        title = model.get("title") or model["model"]
        for row in model["rows"]:
            ratio = row.get("ratio_to_first", row.get("reference_clip_ratio"))
            name = row["name"].removeprefix(f"model.{row['engine']}.")
            key = row["engine"] if name == row["precision"] else name
            yield (title, f"{key} {row['precision']}"), ratio, row.get("ratio_interval")


def _of_cold_starts(contenders: list[dict[str, Any]]) -> Iterator[Ratio]:
    for contender in contenders:
        for cold in contender["cold"]:
            row = f"{contender['name']} {cold['precision']}"
            yield (f"first answer, {cold['task']}", row), cold["ratio"], cold["ratio_interval"]


def measure(what: str, folder: Path) -> dict[str, Any]:
    """Run a benchmark again, by its own script."""
    file = folder / f"{what}.json"
    subprocess.run([sys.executable, "-m", SCRIPTS[what], "--json", str(file)], check=True, stdout=sys.stderr)
    return _read(file)


def table(checked: list[Checked]) -> Table:
    """One row per ratio."""
    shown = Table("model", "row", "stated", "interval", "found", "")
    for each in checked:
        found = "missing" if each.found is None else f"{each.found:.3f}"
        interval = f"{each.interval[0]:.3f} to {each.interval[1]:.3f}"
        shown.add_row(each.model, each.row, f"{each.stated:.3f}", interval, found, "" if each.inside else "OUTSIDE")
    return shown


def main() -> int:
    """Compare what was asked for; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=[*SCRIPTS, []], help="default: all")
    parser.add_argument("--new", type=Path, help="another run's JSON, of one benchmark; none is made then")
    options = parser.parse_args()
    names = options.what or [name for name in SCRIPTS if (RESULTS / f"{name}.json").exists()]
    if options.new is not None and len(names) != 1:
        parser.error(f"--new is the run of one benchmark: name it, of {', '.join(SCRIPTS)}")
    checked: list[Checked] = []
    with tempfile.TemporaryDirectory() as work:
        for name in names:
            stored = _read(RESULTS / f"{name}.json")
            if not any(interval for _, _, interval in _ratios(stored)):
                err.print(f"{name}: the stored results state no intervals: make bench measures them")
                return _EXIT_NOTHING
            checked += compare(stored, _read(options.new) if options.new else measure(name, Path(work)))
    out.print(table(checked))
    outside = sum(not each.inside for each in checked)
    err.print(f"{len(checked) - outside} of {len(checked)} ratios are inside the interval that is stated")
    return _EXIT_OUTSIDE if outside else 0


def _read(file: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return value


if __name__ == "__main__":
    sys.exit(main())
