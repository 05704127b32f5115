"""The terminal: answers and tables on stdout, the rest on stderr, errors as one line; options of several commands."""

from __future__ import annotations

import atexit
import gc
import io
import json
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, NoReturn, TextIO, TypeVar, cast

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.segment import Segment

from edgeformer_runtime.bundle.signature import Requirement
from edgeformer_runtime.errors import EdgeFormerError, InputError
from edgeformer_runtime.interface import CountProgress, Shown
from edgeformer_runtime.process import Stderr, open_standard_streams, stderr_may_be_unread

if TYPE_CHECKING:
    from edgeformer_runtime.bench.contender import Sweep
    from edgeformer_runtime.verify.verify import Verification

Number = TypeVar("Number", int, float)

EXIT_FAILED_CHECK = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130

_LATE_SECONDS = 2.0
_WIDTH_OF_FILES = 160  # where there is no terminal whose width could be asked for


_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal would obey or could not show: controls, marks that turn the direction of text, lone surrogates."""


def printable(text: str) -> str:
    """A text as it may be shown, with escapes in the place of what a terminal would obey."""
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


class _Terminal(Console):
    """A console on which strings from bundles and file names are shown and never obeyed."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Yield what is to be written; the console's own controls are segments of their own and pass."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text), style, control)

    def on_broken_pipe(self) -> None:
        """Go on: `run_app` sees to a reader who has gone. Rich would end the process with code 1."""
        raise BrokenPipeError


def _console(stream: TextIO | None, file: IO[str] | None) -> Console:
    terminal = stream is not None and stream.isatty()
    width = None if terminal else _WIDTH_OF_FILES
    return _Terminal(file=file, markup=False, highlight=False, soft_wrap=True, width=width)


out = _console(sys.stdout, None)
err = _console(sys.stderr, cast(IO[str], Stderr()))


def text_of(parts: Iterable[RenderableType], width: int) -> str:
    """What `out` would print, without colours, as text whose lines are at most so wide."""
    file = io.StringIO()
    console = _Terminal(file=file, markup=False, highlight=False, width=width, color_system=None)
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def print_result(result: Shown, as_json: bool) -> None:
    """Print a result on stdout, as its tables or as JSON."""
    if as_json:
        print_json(result.to_json())
        return
    for part in result.tables():
        out.print(part)


def print_json(value: Any) -> None:
    """Print a value as strict JSON on stdout, where nothing in it is more than ASCII that can be shown."""
    text = json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False)
    sys.stdout.write(text.replace("\x7f", "\\u007f") + "\n")


def print_text(text: str) -> None:
    """Print a document on stdout as it is, but for controls and what turns the direction of the text behind it."""
    sys.stdout.write(_OBEYED.sub(lambda found: f"\\u{ord(found.group()):04x}", text))


def new_bar(console: Console, *, transient: bool = True, disable: bool = False) -> Bar:
    """The bar that every command shows: what is done, how much of it, a note such as the loss, the time that it takes.

    Args:
        console: nothing is shown where it is no terminal.
        transient: the bar goes when it is done.
        disable: show nothing.
    """
    return Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=transient,
        redirect_stdout=False,
        redirect_stderr=False,  # rich would send stderr to `err`, which writes to stderr
        disable=disable or not console.is_terminal,
    )


@contextmanager
def progress_bar(description: str, console: Console | None = None) -> Iterator[CountProgress]:
    """A bar on a console (None: stderr), gone when it is done; the block calls what it gets with (finished, total)."""
    with new_bar(err if console is None else console) as bar:
        task = bar.add_task(description, total=None, note="")

        def report(finished: int, total: int) -> None:
            bar.update(task, completed=finished, total=total)

        yield report


@contextmanager
def late_progress(description: str) -> Iterator[Callable[[int], None]]:
    """A count on stderr of what is finished, shown where it takes longer than a moment and answers go elsewhere."""
    bar = new_bar(err, disable=sys.stdout.isatty())
    task = bar.add_task(description, total=None, note="")
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


class Steps:
    """A bar that advances when the next step starts; where stderr is no terminal, a line per step.

    Such a line waits for the second step: an input that is refused while it is read gives its error's line alone.

    It writes to a duplicate of the descriptor, because converters hold back what their tools print to stderr.
    """

    def __init__(self, total: int | None = None) -> None:
        """`total`: how many steps there will be; None: `at` will tell."""
        self._file = Stderr(duplicate=True)
        self._console = _console(sys.stderr, cast(IO[str], self._file))
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
                self._console.print(line)
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


def run_app(app: typer.Typer, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and exit: 0 done, 1 a check failed, 2 bad arguments or input, 130 interrupted.

    SIGTERM and SIGHUP end it as Ctrl-C does, with 128 and their number as the exit code (143, 129). Errors are one line
    on stderr. `--debug`, accepted anywhere before a `--`, adds the traceback.
    """
    open_standard_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    end = given.index("--") if "--" in given else len(given)
    debug = "--debug" in given[:end]
    given = [argument for argument in given[:end] if argument != "--debug"] + given[end:]
    told = _Told()
    try:
        with told:
            code = typer.main.get_command(app).main(args=given or ["--help"], standalone_mode=False)
        if code == EXIT_INTERRUPTED or told.ended:  # newer versions of typer catch Ctrl-C themselves
            code = _fail(told.words, told.code, debug=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has gone, as `| head` does: not our error, and nothing more can be said there.
        sys.stdout = None
        code = 0
    except (KeyboardInterrupt, typer.Abort):
        code = _fail(told.words, told.code, debug)
    except EdgeFormerError as error:
        code = _fail(str(error), EXIT_BAD_INPUT, debug)
    except Exception as error:
        code = _fail(_explain(error), EXIT_BAD_INPUT, debug)
    atexit.register(gc.freeze)  # the process ends: torch leaves what takes seconds to collect
    raise SystemExit(code if isinstance(code, int) else 0)


class _Told:
    """Turns the signals that ask a process to end into what Ctrl-C raises, so that all clears up as it does then.

    A signal that was ignored from the start, as under nohup, stays ignored.
    """

    words = "interrupted"
    code = EXIT_INTERRUPTED
    ended = False  # native code may have swallowed the exception

    def __enter__(self) -> None:
        self._before: dict[int, Any] = {}
        if threading.current_thread() is not threading.main_thread():
            return
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                self._before[number] = signal.signal(number, self._end)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _end(self, number: int, _: object) -> NoReturn:
        self.code = 128 + number
        self.words = f"ended by {signal.Signals(number).name}"
        self.ended = True
        raise KeyboardInterrupt


def _explain(error: Exception) -> str:
    """One line for an error that is none of ours."""
    if hasattr(error, "format_message"):  # click's usage errors, whose module depends on typer's version
        return f"{error.format_message()} Try --help."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"unexpected {type(error).__name__}: {error} (--debug shows where; please report it)"


_LONGEST_MESSAGE = 4000
"""What a file states may stand in it."""


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        with stderr_may_be_unread():
            traceback.print_exc()
    line = " ".join(message[:_LONGEST_MESSAGE].split()) + (" ..." if len(message) > _LONGEST_MESSAGE else "")
    # Surrogates come from arguments that are no UTF-8; they could not be printed as they are.
    with stderr_may_be_unread():
        print(f"error: {printable(line)}", file=sys.stderr, flush=True)
    return code


# What several commands have.


def new_app() -> typer.Typer:
    """A command line as all of ours are: no markup, -h, and --install-completion for the shell."""
    return typer.Typer(
        no_args_is_help=True,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="--debug, anywhere, shows the traceback of an error.",
    )


BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle: a folder or a zip.")]
Threads = Annotated[int, typer.Option(min=1, max=1024, help="Number of threads of the engine.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AllowRefused = Annotated[
    bool, typer.Option("--allow-refused", help="Take a bundle even if the gates of its conversion refused it.")
]
RequiredKeys = Annotated[
    list[Path] | None,
    typer.Option(
        "--require-signature",
        metavar="PUBKEY",
        help="Refuse a bundle that this public key (PEM) did not sign. Repeat the option: one of the keys suffices.",
    ),
]
RequiredName = Annotated[
    str | None, typer.Option("--require-name", metavar="NAME", help="Refuse a bundle of another name.")
]
RequiredVersion = Annotated[
    int | None,
    typer.Option(
        "--require-version", metavar="N", min=1, help="Refuse a bundle of an earlier release, or without a release."
    ),
]
Rounds = Annotated[int, typer.Option(min=1, help="Number of rounds. Fewer than 6 give no intervals.")]
BenchThreads = Annotated[str, typer.Option(help="Numbers of threads, as 1,2,4.")]
BenchBatches = Annotated[str, typer.Option(help="Numbers of inputs that one run answers, as 1,4,16.")]
BenchPrograms = Annotated[
    str,
    typer.Option(
        help="Programs to run, names with commas, or all. A program stands for a length of text or audio.",
        show_default="the largest",
    ),
]
Isolated = Annotated[
    bool,
    typer.Option(
        "--isolated",
        help="For untrusted bundles: open the bundle in a process with limits, without network and other files.",
    ),
]


def required_of(keys: Sequence[Path] | None, name: str | None, version: int | None) -> Requirement:
    """The options --require-signature, --require-name and --require-version, as one value."""
    return Requirement(tuple(keys or ()), name, version)


def print_verification(path: Path, verification: Verification, as_json: bool) -> None:
    """Print the outcome of a verification, and exit with 1 if it is not ok."""
    for why in verification.refusals:
        err.print(f"note: its conversion's gates refused this bundle: {why}")
    print_result(verification, as_json)
    if not verification.ok:
        reason = next((f": {stage.reason}" for stage in verification.stages if stage.reason is not None), "")
        err.print(f"{path}: diverges from the reference, first at the stage {verification.first_diverging}{reason}")
        raise typer.Exit(EXIT_FAILED_CHECK)


def sweep_of(programs: str, batches: str, threads: str) -> Sweep:
    """What `bench` is asked to measure, from its options' texts with commas.

    Raises:
        InputError: numbers that are none, or out of range.
    """
    from edgeformer_runtime.bench.contender import Sweep

    names = tuple(dict.fromkeys(name for name in programs.split(",") if name))
    return Sweep(numbers(threads, int, "--threads", "1,2,4"), numbers(batches, int, "--batch", "1,2,4"), names)


def numbers(text: str, kind: type[Number], option: str, example: str) -> tuple[Number, ...]:
    """Numbers from an option's text with commas: each once, in their order.

    Raises:
        InputError: something else stands between the commas; the message has the option's name and the example.
    """
    try:
        return tuple(dict.fromkeys(kind(number) for number in text.split(",")))
    except ValueError:
        raise InputError(f"expected {option} as numbers with commas, like {example}, found {text!r}") from None
