"""The command line `edgeformer-runtime`: run, verify, bench, inspect and serve with only the thin package installed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeformer_runtime import __version__
from edgeformer_runtime.cli.console import AllowRefused, Bars, out, print_json, print_result, progress_bar, run_app
from edgeformer_runtime.cli.console import BenchBatches as BenchBatches
from edgeformer_runtime.cli.console import BenchPrograms as BenchPrograms
from edgeformer_runtime.cli.console import BenchThreads as BenchThreads
from edgeformer_runtime.cli.console import BundlePath as BundlePath
from edgeformer_runtime.cli.console import Isolated as Isolated
from edgeformer_runtime.cli.console import Json as Json
from edgeformer_runtime.cli.console import RequiredKeys as RequiredKeys
from edgeformer_runtime.cli.console import RequiredName as RequiredName
from edgeformer_runtime.cli.console import RequiredVersion as RequiredVersion
from edgeformer_runtime.cli.console import Rounds as Rounds
from edgeformer_runtime.cli.console import Threads as Threads
from edgeformer_runtime.cli.console import new_app as new_app
from edgeformer_runtime.cli.console import print_verification as print_verification
from edgeformer_runtime.cli.console import required_of as required_of
from edgeformer_runtime.cli.console import sweep_of as sweep_of
from edgeformer_runtime.cli.listen import listen

app = new_app()


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
            help="Texts; or - for a text per line of stdin, answered line by line; or paths of images or audio files.",
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
        str | None, typer.Option(help="With --input: column or key of the texts.", show_default="text or sentence")
    ] = None,
    pair_column: Annotated[str | None, typer.Option(help="With --input: column or key of second texts.")] = None,
    pair: Annotated[str | None, typer.Option(help="Text: second text of each input.")] = None,
    token_ids: Annotated[
        bool, typer.Option("--token-ids", help="Text: the inputs are token ids, as 101,2054,102.")
    ] = False,
    top: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Text and images: number of labels, answers, objects or tokens for a mask, best first.",
            show_default="labels and objects: 3 in the table, all in JSON; answers: 1; tokens: 5",
        ),
    ] = None,
    unanswerable: Annotated[
        bool, typer.Option("--unanswerable", help="Questions: an answer may be that the text has none.")
    ] = False,
    aggregation: Annotated[
        str | None,
        typer.Option(help="Entities: of tokens, none, simple, first, average or max.", show_default="the bundle's"),
    ] = None,
    targets: Annotated[
        str | None, typer.Option(help="Masks: the only words that are wanted, as cat,dog.", show_default="all tokens")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Images beside texts, and text by natural language inference: labels to choose from, as cat,dog.",
            show_default="the bundle's",
        ),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(help="With --labels: a sentence with {} for the label.", show_default="that of transformers"),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Objects: what their score is above, 0 to 1.", show_default="the bundle's")
    ] = None,
    masks: Annotated[Path | None, typer.Option(metavar="DIR", help="Segments: folder for a PNG of each label.")] = None,
    multi_label: Annotated[
        bool, typer.Option("--multi-label", help="With --labels: any number of them may hold.")
    ] = False,
    query: Annotated[str | None, typer.Option(help="Images beside texts: a text, to score each image by.")] = None,
    texts: Annotated[bool, typer.Option("--texts", help="Images beside texts: the inputs are texts.")] = False,
    language: Annotated[
        str | None, typer.Option(help="Speech: language, as en. Default: the model detects it.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Speech: transcribe, or translate (into English).")] = None,
    beam_size: Annotated[
        int | None, typer.Option(min=1, help="Speech: number of hypotheses; 1 is greedy and fastest.")
    ] = None,
    timestamps: Annotated[
        bool | None,
        typer.Option(
            "--timestamps/--no-timestamps",
            help="Speech: segments with timestamps from the model, or one for each 30 s at most.",
            show_default="timestamps",
        ),
    ] = None,
    words: Annotated[bool, typer.Option("--words", help="Speech: timestamps of words.")] = False,
    vad: Annotated[bool, typer.Option("--vad", help="Speech: transcribe only where a detector hears a voice.")] = False,
    hotwords: Annotated[str | None, typer.Option(help="Speech: words to expect everywhere, as names.")] = None,
    clip_timestamps: Annotated[
        str | None, typer.Option(help="Speech: seconds from and to which to transcribe, as 0,30,60,90.")
    ] = None,
    max_line_width: Annotated[int | None, typer.Option(min=1, help="Subtitles: characters of a line (42).")] = None,
    max_line_count: Annotated[int | None, typer.Option(min=1, help="Subtitles: lines at once (2).")] = None,
    prompt: Annotated[str | None, typer.Option(help="Speech: text that precedes, for names and style.")] = None,
    file_format: Annotated[
        str | None, typer.Option("--format", help="Speech: format of the transcript, txt, srt, vtt or json.")
    ] = None,
    folder: Annotated[Path | None, typer.Option("--out", help="Speech: folder to write a file per input to.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Prompts: longest text that follows, in tokens.", show_default="64")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Prompts: above 0, tokens are drawn.", show_default="0: the likeliest")
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=0, help="Prompts: draw among so many of the likeliest.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Prompts: draw among the likeliest of this share.")] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="Prompts: above 1, what was said becomes less likely.")
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Prompts: end before TEXT. Repeat the option for several.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Prompts: of what is drawn.", show_default="0")] = None,
    special_tokens: Annotated[
        bool, typer.Option("--special-tokens", help="Prompts: special tokens written out in them are no plain text.")
    ] = False,
    chat: Annotated[
        bool, typer.Option("--chat", help="Prompts: each is what a user says; the model's chat template surrounds it.")
    ] = False,
    suggest: Annotated[
        int | None, typer.Option(min=1, help="Prompts: in place of a text, so many of the likeliest next words.")
    ] = None,
    require_signature: RequiredKeys = None,
    require_name: RequiredName = None,
    require_version: RequiredVersion = None,
    isolated: Isolated = False,
    allow_refused: AllowRefused = False,
    threads: Threads = 1,
    as_json: Json = False,
) -> None:
    """Answer inputs.

    --json prints a list of {"input", ...} with "labels" and "scores", "embedding", "text" and "segments", or "text",
    "tokens" and "finish_reason". With - and --input each line is answered by an object, with its number as "line", and
    "error" if it cannot be used.
    """
    from edgeformer_runtime import load
    from edgeformer_runtime.cli.run import RunOptions, answer_inputs

    options = RunOptions(
        pair=pair,
        token_ids=token_ids,
        top=top,
        unanswerable=unanswerable,
        aggregation=aggregation,
        targets=targets,
        labels=labels,
        template=template,
        threshold=threshold,
        masks=masks,
        multi_label=multi_label,
        query=query,
        texts=texts,
        language=language,
        task=task,
        beam_size=beam_size,
        timestamps=timestamps,
        words=words,
        vad=vad,
        hotwords=hotwords,
        clip_timestamps=clip_timestamps,
        max_line_width=max_line_width,
        max_line_count=max_line_count,
        prompt=prompt,
        file_format=file_format,
        folder=folder,
        file=file,
        column=column,
        pair_column=pair_column,
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        stop=stop,
        seed=seed,
        special_tokens=special_tokens,
        chat=chat,
        suggest=suggest,
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
    from edgeformer_runtime.verify.verify import verify_file

    required = required_of(require_signature, require_name, require_version)
    with progress_bar("verifying") as report:
        verification = verify_file(bundle, threads, required, isolated, report)
    print_verification(bundle, verification, as_json)


@app.command()
def bench(
    bundles: Annotated[list[Path], typer.Argument(metavar="BUNDLE...", help="Bundles. Ratios refer to the first.")],
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
    from edgeformer_runtime.bench.measure import measure_cells
    from edgeformer_runtime.bench.report import BenchmarkResult

    required = required_of(require_signature, require_name, require_version)
    cells = bundle_cells(bundles, sweep_of(program, batch, threads), required, isolated)
    with progress_bar("measuring") as report:
        result = BenchmarkResult((measure_cells(cells, rounds, report),))
    print_result(result, as_json)


@app.command()
def inspect(
    bundle: BundlePath,
    require_signature: RequiredKeys = None,
    require_name: RequiredName = None,
    require_version: RequiredVersion = None,
    as_json: Json = False,
) -> None:
    """Check a bundle, and show what it holds."""
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
                    "manifest": opened.manifest.to_data(),
                }
            )
        else:
            out.print(bundle_table(opened))


@app.command()
def pack(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a bundle.")],
    file: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Zip to write; an existing one is replaced. Default: FOLDER.zip."),
    ] = None,
) -> None:
    """Make the zip of a bundle. The same files give the same bytes, and a signature stays valid."""
    from edgeformer_runtime.bundle.bundle import pack as pack_bundle

    place = file or folder.resolve().with_name(f"{folder.resolve().name}.zip")
    pack_bundle(folder, place)
    out.print(f"{place}: {place.stat().st_size:,} bytes")


@app.command()
def fetch(
    url: Annotated[str, typer.Argument(help="Address of a published bundle, https://HOST/FOLDER/NAME.")],
    require_signature: RequiredKeys = None,
    require_name: RequiredName = None,
    require_version: RequiredVersion = None,
    isolated: Isolated = False,
    as_json: Json = False,
) -> None:
    """Download the newest release of a published bundle, try it, and print its folder. Exit code 1: it is refused."""
    from edgeformer_runtime import fetch as fetching

    with Bars() as bars:
        required = required_of(require_signature, require_name, require_version)
        fetched = fetching.fetch(url, required, isolated=isolated, progress=bars)
    print_result(fetched, as_json)
    if fetched.refused:
        raise typer.Exit(1)


@app.command()
def serve(
    bundle: BundlePath,
    host: Annotated[str, typer.Option(help="Address to listen at. The default is reached from this machine alone.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0: any free one.")] = 8642,
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Number of copies of the model that answer side by side.")
    ] = 1,
    max_body_mb: Annotated[int, typer.Option(min=1, max=1024, help="Largest request in MiB.")] = 16,
    max_waiting: Annotated[
        int, typer.Option(min=1, help="Largest number of waiting requests. More get status 503.")
    ] = 256,
    max_connections: Annotated[
        int, typer.Option(min=1, help="Largest number of connections. Idle ones are closed first.")
    ] = 512,
    answer_timeout: Annotated[
        float | None,
        typer.Option(help="Seconds that an answer may take, waiting included.", show_default="60, for speech 600"),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Name that requests may have as their Host, as pi.local. Repeat the option for several.",
        ),
    ] = None,
    wyoming: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=0,
            max=65535,
            help="Speech: answer Home Assistant's Wyoming protocol, too; usually 10300.",
        ),
    ] = None,
    fallback: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Service to ask when the bundle is not sure, as http://host/v1/answer."),
    ] = None,
    fallback_below: Annotated[
        float, typer.Option(help="Confidence, 0 to 1, below which the bundle is not sure.")
    ] = 0.5,
    fallback_timeout: Annotated[
        float, typer.Option(help="Seconds to wait for that service. After them the bundle's answer is taken.")
    ] = 5.0,
    require_signature: RequiredKeys = None,
    require_name: RequiredName = None,
    require_version: RequiredVersion = None,
    isolated: Annotated[
        bool | None,
        typer.Option(
            "--isolated/--no-isolated",
            help="Open the bundle in processes with limits, without network and other files. Default: if no key is "
            "required.",
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
    serve_bundle(bundle, host, port, options, threads, required, isolated, wyoming)


@app.command("build-executorch")
def build_executorch(
    wheel: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Wheel of executorch, or its folder. Default: the installed one, or else pip's."
        ),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder to make. Default: in this user's cache.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Build the library that runs ExecuTorch bundles without torch, with this system's C++ compiler (or CXX)."""
    from edgeformer_runtime.engines.executorch_shim.build import build_shim

    with progress_bar("building") as report:
        build = build_shim(wheel, folder, report)
    if as_json:
        print_json(build.to_json())
    else:
        out.print(f"{build.folder}: executorch {build.record.executorch} for {build.record.machine}, without torch")


app.command()(listen)


def main() -> None:
    """Entry point: user errors end in one line on stderr and exit code 2."""
    run_app(app)
