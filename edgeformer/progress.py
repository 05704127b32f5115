"""Progress of a command with known steps, on stderr."""

from __future__ import annotations

import os
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Steps:
    """A bar that advances when the next step begins; where stderr is no terminal, a line per step.

    Such a line waits for the second step: an input that is refused while it is read gives its error's line alone.

    It writes to a duplicate of the descriptor, because converters hold back what their tools print to stderr.
    """

    def __init__(self, total: int) -> None:
        """`total`: how many steps there will be."""
        self._file = os.fdopen(os.dup(2), "w", encoding="utf-8")
        self._console = Console(file=self._file)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._begun = 0
        self._lines: list[str] = []
        self._task = self._progress.add_task("", total=total, completed=-1)

    def __call__(self, step: str) -> None:
        """Begin a step; what begins with "note: " is printed and is no step."""
        if step.startswith("note: "):
            self._lines.append(step)
        else:
            self._begun += 1
            self._progress.update(self._task, description=step, advance=1)
            if not self._console.is_terminal:
                self._lines.append(step)
        if self._begun > 1:
            for line in self._lines:
                self._console.print(line, highlight=False, soft_wrap=True)
            self._lines.clear()

    def __enter__(self) -> Steps:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._progress.stop()
        self._file.close()


def progress_bar(console: Console) -> Progress:
    """A bar with a note, such as the loss, and the remaining time; nothing where nobody watches a terminal."""
    return Progress(
        TextColumn("{task.description:<26}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
