"""Progress: what a long call tells of itself, and what commands show of that on stderr."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeAlias

from rich.console import Console

from edgeformer_runtime.cli.console import err, new_bar

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with a step, how much of it is finished and how much there is; or with a line to read, 0 and 0."""


def silent(step: str, finished: int, total: int) -> None:
    """Tell nobody."""


class Steps:
    """A bar that advances when the next step starts; where stderr is no terminal, a line per step.

    Such a line waits for the second step: an input that is refused while it is read gives its error's line alone.

    It writes to a duplicate of the descriptor, because converters hold back what their tools print to stderr.
    """

    def __init__(self, total: int | None = None) -> None:
        """`total`: how many steps there will be; None: `at` will tell."""
        self._file = os.fdopen(os.dup(2), "w", encoding="utf-8")
        self._console = Console(file=self._file)
        self._bar = new_bar(self._console)
        self._begun = 0
        self._lines: list[str] = []
        self._task = self._bar.add_task("", total=total, completed=-1, note="")

    def __call__(self, step: str) -> None:
        """Begin a step; what starts with "note: " is printed and is no step."""
        if step.startswith("note: "):
            self._lines.append(step)
        else:
            self._begun += 1
            self._bar.update(self._task, description=step, advance=1)
            if not self._console.is_terminal:
                self._lines.append(step)
        if self._begun > 1:
            for line in self._lines:
                self._console.print(line, highlight=False, soft_wrap=True)
            self._lines.clear()

    def at(self, step: str, finished: int, total: int) -> None:
        """The same as a `Progress`; `total` of 0: a note."""
        if total:
            self._bar.update(self._task, total=total)
        if finished < total or not total:
            self(step)

    def __enter__(self) -> Steps:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        self._file.close()


class Bars:
    """Shows a `Progress` on stderr: a bar that is gone at the end, and lines; without a terminal the lines alone."""

    def __init__(self) -> None:
        self._bar = new_bar(err)
        self._task = self._bar.add_task("", total=None, note="")
        self._finished = 0

    def __call__(self, step: str, finished: int, total: int) -> None:
        """Move the bar; a `total` of 0: print a line."""
        if not total:
            err.print(step)
            return
        if finished < self._finished:  # another step, whose speed is its own
            self._bar.reset(self._task)
        self._finished = finished
        self._bar.update(self._task, description=step, completed=finished, total=total)

    def __enter__(self) -> Bars:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
