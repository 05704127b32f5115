"""The command line `edgeformer-runtime`: run, verify, bench and inspect with only the thin package installed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeformer_runtime.console import EXIT_FAILED_CHECK, err, out, print_json, progress_bar, run_app
from edgeformer_runtime.errors import InputError

if TYPE_CHECKING:
    from edgeformer_runtime.bench import Contender
    from edgeformer_runtime.bundle import Bundle
    from edgeformer_runtime.engines.base import Engine
    from edgeformer_runtime.manifest import Manifest

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    epilog="--debug, anywhere, shows the traceback of an error.",
)

BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle: its folder or its zip.")]
Threads = Annotated[int, typer.Option(min=1, max=1024, help="How many threads the engine may use.")]
Rounds = Annotated[int, typer.Option(min=1, help="How many turns each gets.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


@app.callback()
def edgeformer_runtime() -> None:
    """Run, verify, measure and inspect EdgeFormer bundles."""


@app.command()
def run(
    bundle: BundlePath,
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Texts, where - reads one per line from stdin; or paths of images."),
    ],
    pair: Annotated[str | None, typer.Option(help="A second text for each text.")] = None,
    token_ids: Annotated[bool, typer.Option("--token-ids", help="The inputs are token ids, as 101,2054,102.")] = False,
    top: Annotated[int, typer.Option(min=1, help="How many of its best labels the table shows; JSON has all.")] = 3,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Answer inputs. JSON: a list of {"input", "labels", "scores"}, best first, or {"input", "embedding"}."""
    from edgeformer_runtime import load
    from edgeformer_runtime.tables import answers_table

    results = []
    with load(bundle, threads=threads) as pipeline, progress_bar("running") as report:
        given, raws = _raw_inputs(pipeline.bundle.manifest, inputs, pair, token_ids)
        for index, raw in enumerate(raws):
            results.append(pipeline.run(raw))
            report(index + 1, len(raws))
    for index, result in enumerate(results):
        if result.truncated:
            err.print(f"note: input {index} was too long for the bundle and lost its end")
    if as_json:
        print_json([{"input": raw} | result.to_json() for raw, result in zip(raws, results, strict=True)])
    else:
        out.print(answers_table(given, results, top))


@app.command()
def verify(bundle: BundlePath, threads: Threads = 1, as_json: Json = False) -> None:
    """Replay a bundle's recorded vectors and name the first stage that diverges. Exit code 1: one does."""
    verify_bundle(bundle, None, threads, as_json)


@app.command()
def bench(
    bundles: Annotated[list[Path], typer.Argument(metavar="BUNDLE...", help="The first is what ratios refer to.")],
    program: Annotated[str | None, typer.Option(help="Which program to run; default: the largest.")] = None,
    threads: Threads = 1,
    rounds: Rounds = 30,
    as_json: Json = False,
) -> None:
    """Measure bundles, interleaved, each in a process of its own: latency, load time, peak memory."""
    from edgeformer_runtime.bench import bundle_contender

    bench_contenders([bundle_contender(path, program) for path in bundles], threads, rounds, as_json)


@app.command()
def inspect(bundle: BundlePath, as_json: Json = False) -> None:
    """Show what a bundle holds, after checking all of it."""
    from edgeformer_runtime import records
    from edgeformer_runtime.bundle import Bundle
    from edgeformer_runtime.tables import bundle_table

    with Bundle.open(bundle) as opened:
        if as_json:
            print_json({"size_bytes": opened.size_bytes, "manifest": records.to_data(opened.manifest)})
        else:
            out.print(bundle_table(opened))


def verify_bundle(
    path: Path, engine_for: Callable[[Bundle], Engine | None] | None, threads: int, as_json: bool
) -> None:
    """Verify a bundle, print the outcome, and exit with 1 if it is not ok.

    Args:
        path: the bundle's folder or zip.
        engine_for: an engine in place of the target's own, or None where that is to be used.
        threads: for the target's own engine.
        as_json: print JSON instead of a table.
    """
    from edgeformer_runtime.bundle import Bundle
    from edgeformer_runtime.engines import open_engine
    from edgeformer_runtime.tables import verification_table
    from edgeformer_runtime.verify import verify as replay

    with Bundle.open(path) as bundle:
        engine = (None if engine_for is None else engine_for(bundle)) or open_engine(bundle, threads)
        try:
            with progress_bar("verifying") as report:
                verification = replay(bundle, engine, report)
        finally:
            engine.close()
    if as_json:
        print_json(verification.to_json())
    else:
        out.print(verification_table(verification))
        if verification.note:
            out.print(verification.note)
    if not verification.ok:
        err.print(f"{path}: diverges from the reference, first at the stage {verification.first_diverging}")
        raise typer.Exit(EXIT_FAILED_CHECK)


def bench_contenders(contenders: Sequence[Contender], threads: int, rounds: int, as_json: bool) -> None:
    """Measure contenders and print the outcome."""
    from edgeformer_runtime.bench import bench as measure
    from edgeformer_runtime.tables import bench_table

    with progress_bar("measuring") as report:
        rows = measure(contenders, threads, rounds, report)
    if as_json:
        print_json({"rows": [row.to_json() for row in rows]})
    else:
        out.print(bench_table(rows))


def main() -> None:
    """Entry point: user errors end in one line on stderr and exit code 2."""
    run_app(app)


def _raw_inputs(
    manifest: Manifest, inputs: Sequence[str], pair: str | None, token_ids: bool
) -> tuple[list[str], list[Any]]:
    """The inputs as they were given, with the lines of stdin in place of -, and what they are to the pipeline."""
    if manifest.preprocessing.kind == "image":
        given = {"--pair": pair is not None, "--token-ids": token_ids, "-": "-" in inputs}
        for option, is_given in given.items():
            if is_given:
                raise InputError(f"{manifest.name} takes images: expected their paths, found {option}")
        return list(inputs), list(inputs)
    if pair is not None and token_ids:
        raise InputError("--pair and --token-ids exclude each other")
    texts = [line for text in inputs for line in (_stdin_lines() if text == "-" else [text])]
    return texts, [_token_ids(text) if token_ids else text if pair is None else (text, pair) for text in texts]


def _stdin_lines() -> list[str]:
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"stdin: expected UTF-8 text, found byte {error.object[error.start]:#04x}") from None
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def _token_ids(text: str) -> list[int]:
    try:
        return [int(token) for token in text.split(",")]
    except ValueError:
        raise InputError(f"expected token ids with commas, like 101,2054,102, found {text!r}") from None
