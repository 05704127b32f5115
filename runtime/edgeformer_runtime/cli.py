"""The command line `edgeformer-runtime`: run, verify, bench and inspect with only the thin package installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeformer_runtime.console import EXIT_FAILED_CHECK, err, out, print_json, progress_bar, run_app

if TYPE_CHECKING:
    from edgeformer_runtime.bench import Contender
    from edgeformer_runtime.bundle import Bundle
    from edgeformer_runtime.engines.base import Engine
    from edgeformer_runtime.verify import Verification

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
RequiredKey = Annotated[
    Path | None,
    typer.Option(
        "--require-signature", metavar="PUBKEY", help="Refuse the bundle unless this public key (PEM) signed it."
    ),
]


@app.callback()
def edgeformer_runtime() -> None:
    """Run, verify, measure and inspect EdgeFormer bundles."""


@app.command()
def run(
    bundle: BundlePath,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...", help="Texts, where - reads one per line from stdin; or paths of images or sound."
        ),
    ],
    pair: Annotated[str | None, typer.Option(help="Text: a second text for each text.")] = None,
    token_ids: Annotated[
        bool, typer.Option("--token-ids", help="Text: the inputs are token ids, as 101,2054,102.")
    ] = False,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Text and images: how many labels the table shows; JSON has all.", show_default="3"),
    ] = None,
    language: Annotated[str | None, typer.Option(help="Sound: its language, as en; default: found out.")] = None,
    task: Annotated[str | None, typer.Option(help="Sound: transcribe, or translate into English.")] = None,
    beam_size: Annotated[int | None, typer.Option(min=1, help="Sound: hypotheses to follow; 1 is fastest.")] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="Sound: the model's times of segments.")] = False,
    words: Annotated[bool, typer.Option("--words", help="Sound: the times of words.")] = False,
    prompt: Annotated[str | None, typer.Option(help="Sound: text before it, for names and style.")] = None,
    file_format: Annotated[str | None, typer.Option("--format", help="Sound: txt, srt, vtt or json.")] = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Sound: write a file per input there.")] = None,
    require_signature: RequiredKey = None,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Answer inputs. JSON: a list of {"input", ...}: "labels" and "scores", "embedding", or "text" and "segments"."""
    from edgeformer_runtime import load
    from edgeformer_runtime.run_command import RunOptions, answer_inputs

    options = RunOptions(
        pair, token_ids, top, language, task, beam_size, timestamps, words, prompt, file_format, folder
    )
    with load(bundle, threads, require_signature=require_signature) as pipeline:
        answer_inputs(pipeline, inputs, options, as_json)


@app.command()
def verify(
    bundle: BundlePath, require_signature: RequiredKey = None, threads: Threads = 1, as_json: Json = False
) -> None:
    """Replay a bundle's recorded vectors and name the first stage that diverges. Exit code 1: one does."""
    verify_bundle(bundle, None, threads, as_json, require_signature)


@app.command()
def bench(
    bundles: Annotated[list[Path], typer.Argument(metavar="BUNDLE...", help="The first is what ratios refer to.")],
    program: Annotated[str | None, typer.Option(help="Which program to run; default: the largest.")] = None,
    require_signature: RequiredKey = None,
    threads: Threads = 1,
    rounds: Rounds = 30,
    as_json: Json = False,
) -> None:
    """Measure bundles, interleaved, each in a process of its own: latency, load time, peak memory."""
    from edgeformer_runtime.bench import bundle_contender

    contenders = [bundle_contender(path, program, require_signature) for path in bundles]
    bench_contenders(contenders, threads, rounds, as_json)


@app.command()
def inspect(bundle: BundlePath, require_signature: RequiredKey = None, as_json: Json = False) -> None:
    """Show what a bundle holds, after checking all of it."""
    from edgeformer_runtime import records
    from edgeformer_runtime.bundle import Bundle
    from edgeformer_runtime.tables import bundle_table

    with Bundle.open(bundle, require_signature) as opened:
        if as_json:
            print_json(
                {
                    "size_bytes": opened.size_bytes,
                    "signature": opened.signature.to_json(),
                    "manifest": records.to_data(opened.manifest),
                }
            )
        else:
            out.print(bundle_table(opened))


def verify_bundle(
    path: Path,
    engine_for: Callable[[Bundle], Engine | None] | None,
    threads: int,
    as_json: bool,
    require_signature: Path | None = None,
    refine: Callable[[Bundle, Verification], Verification] | None = None,
) -> None:
    """Verify a bundle, print the outcome, and exit with 1 if it is not ok.

    Args:
        path: the bundle's folder or zip.
        engine_for: an engine in place of the target's own, or None where that is to be used.
        threads: for the target's own engine.
        as_json: print JSON instead of a table.
        require_signature: the public key that must have signed the bundle, or None.
        refine: looks closer at what was found, or None.
    """
    from edgeformer_runtime.bundle import Bundle
    from edgeformer_runtime.engines import open_engine
    from edgeformer_runtime.tables import verification_table
    from edgeformer_runtime.verify import verify as replay

    with Bundle.open(path, require_signature) as bundle:
        engine = (None if engine_for is None else engine_for(bundle)) or open_engine(bundle, threads)
        try:
            with progress_bar("verifying") as report:
                verification = replay(bundle, engine, report)
        finally:
            engine.close()
        if refine is not None:
            verification = refine(bundle, verification)
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
