"""The terminal: answers and tables on stdout, everything else on stderr, and errors as one line."""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from edgeformer_runtime.errors import EdgeFormerError

EXIT_FAILED_CHECK = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130

_LATE_SECONDS = 2.0
_WIDTH_OF_FILES = 160  # where there is no terminal whose width could be asked for


def _console(stderr: bool) -> Console:
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(
        stderr=stderr, markup=False, highlight=False, soft_wrap=True, width=None if terminal else _WIDTH_OF_FILES
    )


out = _console(stderr=False)
err = _console(stderr=True)


def print_json(value: Any) -> None:
    """Print a value as strict JSON on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False) + "\n")


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, gone when it is done; the block calls what it gets with (finished, total)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(description, total=None)

        def report(finished: int, total: int) -> None:
            bar.update(task, completed=finished, total=total)

        yield report


@contextmanager
def late_progress(description: str) -> Iterator[Callable[[int], None]]:
    """A count on stderr of what is finished, shown where it takes longer than a moment and answers go elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=err, transient=True, disable=not err.is_terminal or sys.stdout.isatty())
    task = bar.add_task(description, total=None)
    begin = time.monotonic()
    is_shown = False

    def report(finished: int) -> None:
        nonlocal is_shown
        bar.update(task, completed=finished)
        if not is_shown and time.monotonic() - begin > _LATE_SECONDS:
            bar.start()
            is_shown = True

    try:
        yield report
    finally:
        if is_shown:
            bar.stop()


def run_app(app: typer.Typer, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and exit: 0 done, 1 a check failed, 2 bad arguments or input, 130 interrupted.

    Errors are one line on stderr. `--debug`, accepted anywhere before a `--`, adds the traceback.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    end = given.index("--") if "--" in given else len(given)
    debug = "--debug" in given[:end]
    given = [argument for argument in given[:end] if argument != "--debug"] + given[end:]
    try:
        code = typer.main.get_command(app).main(args=given or ["--help"], standalone_mode=False)
        if code == EXIT_INTERRUPTED:  # newer versions of typer catch Ctrl-C themselves
            _fail("interrupted", code, debug=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has gone, as `| head` does: not our error, and nothing more can be said there.
        sys.stdout = None
        code = 0
    except (KeyboardInterrupt, typer.Abort):
        code = _fail("interrupted", EXIT_INTERRUPTED, debug)
    except EdgeFormerError as error:
        code = _fail(str(error), EXIT_BAD_INPUT, debug)
    except Exception as error:
        code = _fail(_explain(error), EXIT_BAD_INPUT, debug)
    if not debug and "ai_edge_litert" in sys.modules:
        atexit.register(_silence_native_exit)
    raise SystemExit(code if isinstance(code, int) else 0)


def _silence_native_exit() -> None:
    """LiteRT logs from static destructors, after all of Python, and has no switch for it."""
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _explain(error: Exception) -> str:
    """One line for an error that is none of ours."""
    if hasattr(error, "format_message"):  # click's usage errors, whose module depends on typer's version
        return f"{error.format_message()} Try --help."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"unexpected {type(error).__name__}: {error} (--debug shows where; please report it)"


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    line = " ".join(message.split())
    # Surrogates come from arguments that are no UTF-8; they could not be printed as they are.
    printable = line.encode("utf-8", "backslashreplace").decode("utf-8")
    print(f"error: {printable}", file=sys.stderr)
    return code
