"""The command line `edgeformer-runtime`: run, verify, bench, inspect and serve with only the thin package installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from edgeformer_runtime.bundle.requirement import NO_REQUIREMENT, Requirement
from edgeformer_runtime.cli.console import EXIT_FAILED_CHECK, err, out, print_json, progress_bar, run_app
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.version import __version__

if TYPE_CHECKING:
    from edgeformer_runtime.bench.contender import Cell, Sweep
    from edgeformer_runtime.bench.report import Report
    from edgeformer_runtime.bundle.bundle import Bundle
    from edgeformer_runtime.engines.base import Engine
    from edgeformer_runtime.verify.verify import Verification


def new_app() -> typer.Typer:
    """A command line as all of ours are: no markup, -h, and --install-completion for the shell."""
    return typer.Typer(
        no_args_is_help=True,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="--debug, anywhere, shows the traceback of an error.",
    )


app = new_app()

Number = TypeVar("Number", int, float)

BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle: its folder or its zip.")]
Threads = Annotated[int, typer.Option(min=1, max=1024, help="How many threads the engine may use.")]
Rounds = Annotated[int, typer.Option(min=1, help="How many turns each gets; fewer than 6 give no intervals.")]
BenchThreads = Annotated[str, typer.Option(help="Numbers of threads to measure with, as 1,2,4.")]
BenchBatches = Annotated[str, typer.Option(help="How many inputs one run answers, as 1,4,16.")]
BenchPrograms = Annotated[
    str,
    typer.Option(
        help="Which programs to run, which stand for lengths of text and sound: names with commas, or all.",
        show_default="the largest",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
AllowRefused = Annotated[
    bool, typer.Option("--allow-refused", help="Take a bundle that the gates of its conversion refused, too.")
]
RequiredKeys = Annotated[
    list[Path] | None,
    typer.Option(
        "--require-signature",
        metavar="PUBKEY",
        help="Refuse the bundle unless this public key (PEM) signed it; repeatable, and one of them suffices.",
    ),
]
RequiredName = Annotated[
    str | None, typer.Option("--require-name", metavar="NAME", help="Refuse a bundle of another name.")
]
RequiredVersion = Annotated[
    int | None,
    typer.Option("--require-version", metavar="N", min=1, help="Refuse releases before this one, and bundles without."),
]
Isolated = Annotated[
    bool,
    typer.Option(
        "--isolated", help="For strangers' bundles: open it in a process without network and other files, with limits."
    ),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(f"edgeformer-runtime {__version__}")
        raise typer.Exit


@app.callback()
def edgeformer_runtime(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run, verify, measure and inspect EdgeFormer bundles."""


@app.command()
def run(
    bundle: BundlePath,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT...",
            help="Texts, or - for a text per line of stdin, answered line by line; or paths of images or sound.",
        ),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="FILE",
            help="Text: answer the rows of a .csv, .tsv, .jsonl or .txt file, or of stdin (-), as JSON Lines.",
        ),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="With --input: the column or key of the texts.", show_default="text or sentence")
    ] = None,
    pair_column: Annotated[str | None, typer.Option(help="With --input: that of second texts.")] = None,
    pair: Annotated[str | None, typer.Option(help="Text: a second text for each text.")] = None,
    token_ids: Annotated[
        bool, typer.Option("--token-ids", help="Text: the inputs are token ids, as 101,2054,102.")
    ] = False,
    top: Annotated[
        int | None,
        typer.Option(
            min=1, help="Text and images: how many labels, best first.", show_default="3 in the table, all in JSON"
        ),
    ] = None,
    language: Annotated[str | None, typer.Option(help="Sound: its language, as en; default: found out.")] = None,
    task: Annotated[str | None, typer.Option(help="Sound: transcribe, or translate into English.")] = None,
    beam_size: Annotated[int | None, typer.Option(min=1, help="Sound: hypotheses to follow; 1 is fastest.")] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="Sound: the model's times of segments.")] = False,
    words: Annotated[bool, typer.Option("--words", help="Sound: the times of words.")] = False,
    prompt: Annotated[str | None, typer.Option(help="Sound: text before it, for names and style.")] = None,
    file_format: Annotated[str | None, typer.Option("--format", help="Sound: txt, srt, vtt or json.")] = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Sound: write a file per input there.")] = None,
    require_signature: RequiredKeys = None,
    require_name: RequiredName = None,
    require_version: RequiredVersion = None,
    isolated: Isolated = False,
    allow_refused: AllowRefused = False,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Answer inputs. JSON: a list of {"input", ...}: "labels" and "scores", "embedding", or "text" and "segments".

    From - and --input an object per line as it is answered, with "line", and "error" where a line could not be used.
    """
    from edgeformer_runtime import load
    from edgeformer_runtime.cli.run import RunOptions, answer_inputs

    options = RunOptions(
        pair=pair,
        token_ids=token_ids,
        top=top,
        language=language,
        task=task,
        beam_size=beam_size,
        timestamps=timestamps,
        words=words,
        prompt=prompt,
        file_format=file_format,
        folder=folder,
        file=file,
        column=column,
        pair_column=pair_column,
    )
    required = required_of(require_signature, require_name, require_version)
    with load(bundle, threads, require_signature=required, isolated=isolated, allow_refused=allow_refused) as pipeline:
        answer_inputs(pipeline, inputs or [], options, as_json)


@app.command()
def verify(
    bundle: BundlePath,
    require_signature: RequiredKeys = None,
    require_name: RequiredName = None,
    require_version: RequiredVersion = None,
    isolated: Isolated = False,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Replay a bundle's recorded vectors and name the first stage that diverges. Exit code 1: one does."""
    required = required_of(require_signature, require_name, require_version)
    verify_bundle(bundle, None, threads, as_json, required, isolated=isolated)


@app.command()
def bench(
    bundles: Annotated[list[Path], typer.Argument(metavar="BUNDLE...", help="The first is what ratios refer to.")],
    program: BenchPrograms = "",
    require_signature: RequiredKeys = None,
    require_name: RequiredName = None,
    require_version: RequiredVersion = None,
    isolated: Isolated = False,
    threads: BenchThreads = "1",
    batch: BenchBatches = "1",
    rounds: Rounds = 30,
    as_json: Json = False,
) -> None:
    """Measure bundles, interleaved, each in a process of its own: latency with intervals, load time, memory, energy."""
    from edgeformer_runtime.bench.contender import bundle_cells

    required = required_of(require_signature, require_name, require_version)
    cells = bundle_cells(bundles, sweep_of(program, batch, threads), required, isolated)
    report = measured(cells, rounds)
    if as_json:
        print_json(bench_json([report]))
    else:
        print_reports([report])


@app.command()
def inspect(
    bundle: BundlePath,
    require_signature: RequiredKeys = None,
    require_name: RequiredName = None,
    require_version: RequiredVersion = None,
    as_json: Json = False,
) -> None:
    """Show what a bundle holds, after checking all of it."""
    from edgeformer_runtime.bundle import strict_json
    from edgeformer_runtime.bundle.bundle import Bundle
    from edgeformer_runtime.cli.tables import bundle_table

    required = required_of(require_signature, require_name, require_version)
    with Bundle.open(bundle, required, allow_refused=True) as opened:
        if as_json:
            print_json(
                {
                    "size_bytes": opened.size_bytes,
                    "signature": opened.signature.to_json(),
                    "release": opened.release,
                    "manifest": strict_json.to_data(opened.manifest),
                }
            )
        else:
            out.print(bundle_table(opened))


@app.command()
def pack(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A bundle's folder.")],
    file: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="The zip; one that is there is replaced; default: FOLDER.zip."),
    ] = None,
) -> None:
    """Make a bundle's zip, as readers take it: the same files give the same bytes, and a signature stays valid."""
    from edgeformer_runtime.bundle.bundle import pack as pack_bundle

    place = file or folder.resolve().with_name(f"{folder.resolve().name}.zip")
    pack_bundle(folder, place)
    out.print(f"{place}: {place.stat().st_size:,} bytes")


@app.command()
def serve(
    bundle: BundlePath,
    host: Annotated[str, typer.Option(help="Address to listen at; the default is reached from this machine only.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8642,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Copies of the model that answer side by side.")] = 1,
    max_body_mb: Annotated[int, typer.Option(min=1, max=1024, help="Largest request; more is refused.")] = 16,
    max_waiting: Annotated[int, typer.Option(min=1, help="Requests that may wait; more are refused for now.")] = 256,
    max_connections: Annotated[int, typer.Option(min=1, help="Connections at a time; idle ones go first.")] = 512,
    answer_timeout: Annotated[
        float | None,
        typer.Option(help="Seconds that an answer may take, waiting included.", show_default="60, for sound 600"),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A name of this service that requests may have as their Host, as pi.local; repeatable."
        ),
    ] = None,
    fallback: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Whom to ask when the bundle is not sure, as http://host/v1/answer."),
    ] = None,
    fallback_below: Annotated[float, typer.Option(help="Not sure: a confidence below this, 0 to 1.")] = 0.5,
    fallback_timeout: Annotated[float, typer.Option(help="Seconds that it has, or the bundle's answer counts.")] = 5.0,
    require_signature: RequiredKeys = None,
    require_name: RequiredName = None,
    require_version: RequiredVersion = None,
    isolated: Annotated[
        bool | None,
        typer.Option(
            "--isolated/--no-isolated",
            help="Open the bundle in processes without network and other files; default: where no key is required.",
        ),
    ] = None,
    threads: Threads = 1,
) -> None:
    """Answer over HTTP, with a page to try the bundle by hand. Needs edgeformer-runtime[serve]."""
    from edgeformer_runtime.errors import EngineError

    try:
        from edgeformer_runtime.serve.options import FallbackOptions, ServeOptions
        from edgeformer_runtime.serve.server import serve_bundle
    except ImportError as error:
        raise EngineError(f"serve needs the package {error.name}: pip install 'edgeformer-runtime[serve]'") from error

    options = ServeOptions(
        workers=workers,
        max_connections=max_connections,
        answer_s=answer_timeout,
        allow_hosts=tuple(allow_host or ()),
        max_body_bytes=max_body_mb << 20,
        max_waiting=max_waiting,
        max_waiting_bytes=max(max_body_mb << 20, ServeOptions.max_waiting_bytes),
        fallback=None if fallback is None else FallbackOptions(fallback, fallback_below, fallback_timeout),
    )
    required = required_of(require_signature, require_name, require_version)
    serve_bundle(bundle, host, port, options, threads, required, isolated)


@app.command("build-executorch")
def build_executorch(
    wheel: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="executorch's wheel, or its folder; default: the installed one, or pip's."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="A new folder; default: in this user's cache.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Build what runs ExecuTorch bundles without torch, with this system's C++ compiler (or CXX)."""
    from edgeformer_runtime.engines.executorch_shim.build import build_shim

    with progress_bar("building") as report:
        build = build_shim(wheel, folder, report)
    if as_json:
        print_json(build.to_json())
    else:
        out.print(f"{build.folder}: executorch {build.record.executorch} for {build.record.machine}, without torch")


def verify_bundle(
    path: Path,
    engine_for: Callable[[Bundle], Engine | None] | None,
    threads: int,
    as_json: bool,
    required: Requirement = NO_REQUIREMENT,
    refine: Callable[[Bundle, Verification], Verification] | None = None,
    isolated: bool = False,
) -> None:
    """Verify a bundle, print the outcome, and exit with 1 if it is not ok.

    Args:
        path: the bundle's folder or zip.
        engine_for: an engine in place of the target's own, or None where that is to be used.
        threads: for the target's own engine.
        as_json: print JSON instead of a table.
        required: what the bundle must be.
        refine: looks closer at what was found, or None.
        isolated: replay the vectors in a process of its own; `engine_for` is not asked.

    Raises:
        InputError: `isolated` with `refine`, which looks into the model in this process.
    """
    from edgeformer_runtime.bundle.bundle import Bundle
    from edgeformer_runtime.cli.tables import refusals, verification_table
    from edgeformer_runtime.engines import open_engine
    from edgeformer_runtime.verify.verify import verify as replay

    if isolated and refine is not None:
        raise InputError("--isolated: layers are compared in this process, expected one of the two options")
    with Bundle.open(path, required, allow_refused=True) as bundle:
        if isolated:
            from edgeformer_runtime.isolation.pipeline import verify_isolated

            with progress_bar("verifying") as report:
                verification = verify_isolated(bundle, threads, progress=report)
        else:
            engine = (None if engine_for is None else engine_for(bundle)) or open_engine(bundle, threads)
            try:
                with progress_bar("verifying") as report:
                    verification = replay(bundle, engine, report)
            finally:
                engine.close()
        if refine is not None:
            verification = refine(bundle, verification)
        for why in refusals(bundle):
            err.print(f"note: its conversion's gates refused this bundle: {why}")
    if as_json:
        print_json(verification.to_json())
    else:
        out.print(verification_table(verification))
        if verification.note:
            out.print(verification.note)
    if not verification.ok:
        reason = next((f": {stage.reason}" for stage in verification.stages if stage.reason is not None), "")
        err.print(f"{path}: diverges from the reference, first at the stage {verification.first_diverging}{reason}")
        raise typer.Exit(EXIT_FAILED_CHECK)


def required_of(keys: Sequence[Path] | None, name: str | None, version: int | None) -> Requirement:
    """The options --require-signature, --require-name and --require-version, as one value."""
    return Requirement(tuple(keys or ()), name, version)


def sweep_of(programs: str, batches: str, threads: str) -> Sweep:
    """What `bench` is asked to measure, from its options' texts with commas.

    Raises:
        InputError: numbers that are none, or out of range.
    """
    from edgeformer_runtime.bench.contender import Sweep

    names = tuple(dict.fromkeys(name for name in programs.split(",") if name))
    return Sweep(numbers(threads, int, "--threads", "1,2,4"), numbers(batches, int, "--batch", "1,2,4"), names)


def measured(cells: Sequence[Cell], rounds: int) -> Report:
    """Measure cells under a progress bar."""
    from edgeformer_runtime.bench.measure import measure_cells

    with progress_bar("measuring") as report:
        return measure_cells(cells, rounds, report)


def bench_json(reports: Sequence[Report]) -> dict[str, Any]:
    """What `bench --json` prints."""
    from edgeformer_runtime.bench.report import to_json

    return to_json(reports)


def print_reports(reports: Sequence[Report]) -> None:
    """Each report's table and what belongs under it; of several machines their medians side by side, too."""
    from edgeformer_runtime.bench.report import medians_table, remarks, report_table

    for report in reports:
        out.print(report_table(report))
        for remark in remarks(report):
            out.print(remark)
    if len(reports) > 1:
        out.print(medians_table(reports))


def numbers(text: str, kind: type[Number], option: str, example: str) -> tuple[Number, ...]:
    """Numbers from an option's text with commas: each once, in their order.

    Raises:
        InputError: something else stands between the commas; the message has the option's name and the example.
    """
    try:
        return tuple(dict.fromkeys(kind(number) for number in text.split(",")))
    except ValueError:
        raise InputError(f"expected {option} as numbers with commas, like {example}, found {text!r}") from None


def main() -> None:
    """Entry point: user errors end in one line on stderr and exit code 2."""
    run_app(app)
