"""The public functions, `edgeformer.convert` and its siblings: each does what the command of its name does.

Options are refused before torch is imported, which takes seconds. Messages name them as commands do: `--seq-len`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from os import fspath
from pathlib import Path
from typing import TYPE_CHECKING

from edgeformer import arguments
from edgeformer_runtime.bundle.signature import Required, requirement_of
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.interface import Progress, StrPath, silent

if TYPE_CHECKING:
    from edgeformer.compress.budget.chain import Chain
    from edgeformer.compress.compress import Compressed
    from edgeformer.convert.result import ConversionResult
    from edgeformer.doctor.diagnosis import Diagnosis
    from edgeformer.evaluate.evaluate import EvaluationResult
    from edgeformer_runtime.bench.report import BenchmarkResult
    from edgeformer_runtime.verify.verify import Verification


def convert(
    source: StrPath,
    out: StrPath,
    *,
    target: str | Sequence[str] = "litert",
    precision: str | Sequence[str] = "fp32",
    seq_len: int | Sequence[int] | None = None,
    lengths_from: StrPath | None = None,
    column: str | None = None,
    lengths_budget: str | None = None,
    task: str | None = None,
    name: str | None = None,
    labels: StrPath | None = None,
    revision: str | None = None,
    calibration: StrPath | None = None,
    calibration_method: str = "min-max",
    eval_data: StrPath | None = None,
    keep_refused: bool = False,
    plan: StrPath | None = None,
    attention: str | None = None,
    min_ios: int | None = None,
    prompt: str | None = None,
    language: str | None = None,
    window: str = "tail",
    audio_seconds: float | Sequence[float] | None = None,
    zipped: bool = False,
    jobs: int = 1,
    progress: Progress | None = None,
) -> ConversionResult:
    """Convert a checkpoint into verified bundles `out/<name>.<target>.<precision>/`.

    A bundle appears under its name only when it is complete and its gates passed; one of that name is replaced. What a
    gate refuses is no error: look at `ok` and at each bundle's `problems`.

    Args:
        source: a checkpoint folder, a hub id, or a name in the zoo.
        out: the folder that the bundles go to.
        target: "litert", "coreml", "executorch" or "onnx", or several.
        precision: "fp32", "fp16", "dynamic-int8", "static-int8", "weight-int8", "int4", "mixed" (a format per layer) or
            for coreml "palette6" and "palette4"; or several.
        seq_len: sequence lengths of text models in tokens, a program for each; None: the target's own, up to 128.
        lengths_from, column, lengths_budget: for `seq_len`: a table or .txt of texts, its column, "300KB,20s" to spend.
        task: one that `edgeformer list` names; None: the checkpoint's own.
        name: of the bundles; None: after the source.
        labels: a file of label names, a JSON list or one per line; None: the checkpoint's own.
        revision: a hub id's branch, tag or commit.
        calibration: images (a folder) or texts (a file). "static-int8" needs it; int8, int4 weights are rounded by it.
        calibration_method: how "static-int8" finds ranges: "min-max", "percentile" or "entropy".
        eval_data: labelled data, as `evaluate` takes it, on which classifiers are judged, before and after.
        keep_refused: write what a gate refused, too, as `out/<bundle>.refused/`.
        plan: of "mixed": a JSON file of formats by layer; None: the checkpoint's own.
        attention: the attention kernel, "dense", "fused", "chunked" or "split_heads"; None: the target's own. For long
            texts, if the model was distilled into it: "sliding_window" or "linear".
        min_ios: of coreml: the oldest iOS to run on, 16, 17 or 18; None: 18.
        prompt: of embedders: name of the checkpoint's prompt before every text, or "none"; None: its default prompt.
        language: of speech: its code or English name, or "any"; None: the one that the checkpoint fixes, or all.
        window: of speech: "tail" computes only the audio that is there, "full" always the whole window.
        audio_seconds: of audio: lengths in seconds to make programs for; None: the target's or the model's own choice.
        zipped: write `out/<bundle>.zip` as well.
        jobs: how many targets to convert at once, in processes: a script then needs `if __name__ == "__main__":`.
        progress: called with each step, how many steps are finished and how many there are; None: nothing is told.

    Raises:
        InputError: a source, an option or a place for the output that cannot be used.
        EngineError: the target's tools are not installed.

    Example:
        >>> result = ef.convert("intents", "dist", target="onnx", precision=("fp32", "dynamic-int8"), seq_len=(16, 32))
        >>> result.ok
        True
        >>> [bundle.path.name for bundle in result]
        ['intents.onnx.fp32', 'intents.onnx.dynamic-int8']
    """
    from edgeformer.convert.layer_plan import LayerPlan
    from edgeformer.convert.options import ConvertOptions

    arguments.check_place(out)
    options = ConvertOptions(
        source=source,
        out=out,
        targets=arguments.at_least_one(target, "target"),
        precisions=arguments.at_least_one(precision, "precision"),
        seq_lens=None if seq_len is None else arguments.rising(seq_len, int, "--seq-len"),
        lengths_from=lengths_from,
        lengths_column=column,
        lengths_budget=lengths_budget,
        task=task,
        name=name,
        labels_file=labels,
        revision=revision,
        attention=attention,
        calibration=calibration,
        calibration_method=calibration_method,
        evaluation=None if eval_data is None else fspath(eval_data),
        keep_refused=keep_refused,
        plan=plan,
        min_ios=min_ios,
        prompt=prompt,
        language=language,
        zipped=zipped,
        jobs=jobs,
        window=window,
        audio_seconds=None if audio_seconds is None else arguments.rising(audio_seconds, float, "--audio-seconds"),
    )
    files = {"--labels": labels, "--plan": plan, "--calibration": calibration, "--lengths-from": lengths_from}
    arguments.check_files(files)
    if plan is not None:
        LayerPlan.read(plan)
    arguments.check_data(eval_data)
    arguments.check_source(source, revision)
    from edgeformer.convert.convert import convert as run
    from edgeformer_runtime.interface import silent

    return run(options, progress or silent)


def verify(
    bundle: StrPath,
    *,
    layers: bool = False,
    source: StrPath | None = None,
    require_signature: Required | None = None,
    require_name: str | None = None,
    require_version: int | None = None,
    isolated: bool = False,
    threads: int = 1,
    progress: Progress | None = None,
) -> Verification:
    """Replay a bundle's recorded vectors, stage by stage. Core ML bundles are interpreted where Core ML is missing.

    A stage that diverges is no error: look at `ok` and `first_diverging`.

    Args:
        bundle: the bundle's folder or zip.
        layers: compare each layer with the source model's as well, which needs the checkpoint.
        source: with `layers`: the checkpoint; None: the bundle's own, where it is known.
        require_signature: the public key of its signature, a PEM file or 32 bytes, or several; None: any is taken.
        require_name: the name that the bundle must have.
        require_version: the lowest release of it that is taken.
        isolated: replay in a process without network and other files, with limits: for untrusted bundles.
        threads: how many threads the engine may use.
        progress: called with "verifying", finished cases and all.

    Raises:
        BundleError: the bundle does not follow BUNDLE.md, or is not what is required.
        InputError: an option or a checkpoint that cannot be used.
        EngineError: the engine is not installed or does not run here.

    Example:
        >>> found = ef.verify("dist/intents.onnx.fp32")
        >>> found.ok
        True
        >>> [stage.name for stage in found.stages]
        ['preprocess', 'seq_16', 'seq_32', 'answer']
    """
    from edgeformer.convert.target import verification_engine

    if source is not None and not layers:
        raise InputError("--source is for --layers, which needs the checkpoint: add --layers")
    arguments.check_exists(bundle, "bundle")
    arguments.check_source(source)
    required = requirement_of(require_signature, require_name, require_version)
    refine = None
    if layers:
        from edgeformer.verify.layers import add_layers

        refine = partial(add_layers, source=None if source is None else fspath(source))
    from edgeformer_runtime.verify.verify import verify_file

    tell = arguments.at("verifying", progress)
    return verify_file(bundle, threads, required, isolated, tell, verification_engine, refine)


def evaluate(
    bundle: StrPath,
    data: StrPath,
    *,
    source: StrPath | None = None,
    limit: int | None = None,
    require_signature: Required | None = None,
    require_name: str | None = None,
    require_version: int | None = None,
    isolated: bool = False,
    threads: int = 1,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Measure a bundle's quality on labelled data, and how often the source model gives the same answer.

    Args:
        bundle: the bundle's folder or zip.
        data: of images: a folder per label, or a zip of it. Of texts: a .csv, .tsv, .json or .jsonl file with a text
            and its label, or labels with | between them; for embedders with two texts and a score. Of speech: a table
            of files and texts, or a folder of audio files with a .txt beside each. "FILE:KEY" names a folder in a zip
            or a list in a JSON file.
        source: the checkpoint to agree with; None: the bundle's own, where it is known.
        limit: use at most so many examples, spread evenly over the data; None: all.
        require_signature, require_name, require_version, isolated: see `verify`.
        threads: for the engine and for torch.
        progress: called with "evaluating", how many examples are finished and how many there are.

    Returns:
        Of classifiers `Evaluation` (accuracy; precision, recall and F1 by class; the confusion matrix), with several
        labels per text `LabelSetEvaluation`; of embedders `EmbeddingEvaluation` (rank correlation of cosines with
        scores); of speech `SpeechEvaluation` (word error rate).

    Raises:
        BundleError: the bundle does not follow BUNDLE.md, or is not what is required.
        InputError: the data or the source cannot be used.
        EngineError: the engine is not installed or does not run here.

    Example:
        >>> found = ef.evaluate("dist/intents.onnx.dynamic-int8", "intents.csv")
        >>> found.n
        6
        >>> 0 <= found.agreement <= 1
        True
    """
    from edgeformer_runtime.bundle.bundle import Bundle

    arguments.check_limit(limit)
    arguments.check_data(data)
    arguments.check_source(source)
    required = requirement_of(require_signature, require_name, require_version)
    with Bundle.open(bundle, required, allow_refused=True) as opened:
        from edgeformer.evaluate.evaluate import evaluate as run

        return run(opened, data, source, limit, threads, arguments.at("evaluating", progress), isolated)


def benchmark(
    bundles: StrPath | Sequence[StrPath],
    *,
    program: str | Sequence[str] = (),
    threads: int | Sequence[int] = 1,
    batch: int | Sequence[int] = 1,
    rounds: int = 30,
    data: StrPath | None = None,
    column: str | None = None,
    against: str | Sequence[str] = (),
    source: StrPath | None = None,
    on: str | Sequence[str] = "local",
    remote_runtime: str | None = None,
    require_signature: Required | None = None,
    require_name: str | None = None,
    require_version: int | None = None,
    isolated: bool = False,
    progress: Progress | None = None,
) -> BenchmarkResult:
    """Measure bundles and peers, interleaved, each in a process of its own, here or on other machines.

    Args:
        bundles: folders or zips; the first is what ratios refer to.
        program: names of the programs to run, or "all"; none: the largest.
        threads: numbers of threads to measure with.
        batch: how many inputs one run answers.
        rounds: how many turns each gets; fewer than 6 give no intervals.
        data, column: a table or .txt of texts, and its column: all answer them whole, ten a turn, without padding.
        against: peers on the same weights: "onnxruntime", "openvino", "torch", "ncnn"; of speech "faster-whisper",
            "whisper.cpp", "onnxruntime", "torch".
        source: the checkpoint for the peers; None: the bundle's own.
        on: where to measure: "local", "ssh://user@host[:port]" or "adb://SERIAL".
        remote_runtime: with ssh: the command `edgeformer-runtime` there; None: it is installed for the measurement.
        require_signature, require_name, require_version, isolated: see `verify`.
        progress: called with "measuring", finished rounds and all; or with a line on another machine, 0 and 0.

    Returns:
        A report for each machine, with latencies in ms and memory in MiB.

    Raises:
        BundleError: a bundle does not follow BUNDLE.md, or is not what is required.
        InputError: an option, a peer or a machine that cannot be used.
        EngineError: an engine is not installed, or a bundle failed.

    Example:
        >>> result = ef.benchmark(["dist/intents.onnx.fp32", "dist/intents.onnx.dynamic-int8"], rounds=2)
        >>> [row.precision for row in result.reports[0].rows]
        ['fp32', 'dynamic-int8']
    """
    arguments.check_source(source)
    from edgeformer.bench.command import BenchOptions, Request, bench
    from edgeformer_runtime.bench.contender import Sweep
    from edgeformer_runtime.bench.report import BenchmarkResult

    required = requirement_of(require_signature, require_name, require_version)
    sweep = Sweep(arguments.several(threads), arguments.several(batch), arguments.several(program))
    request = Request(arguments.several(bundles), sweep, rounds, required, isolated)
    machines, peers = arguments.at_least_one(on, "machine"), arguments.several(against)
    checkpoint, texts = (None if each is None else fspath(each) for each in (source, data))
    options = BenchOptions(request, machines, peers, checkpoint, remote_runtime, texts, column)
    tell = progress or silent
    return BenchmarkResult(tuple(bench(options, lambda line: tell(line, 0, 0), arguments.at("measuring", progress))))


def doctor(
    bundle: StrPath,
    *,
    min_ios: str | int | None = None,
    min_android_api: int | None = None,
    runtime: str | None = None,
    require_signature: Required | None = None,
    require_name: str | None = None,
    require_version: int | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Find what would break on a device: operators, memory, tokenizer, masks, float16, files.

    A bundle that is corrupted is a finding, no error: look at `ok` and `findings`.

    Args:
        bundle: the bundle's folder or zip; or a .so, .apk, .aar or .aab file, whose native libraries are examined.
        min_ios: the oldest iOS that the app supports, as "17".
        min_android_api: the oldest Android API level that the app supports, as 26.
        runtime: the version of the target's runtime on the device: of LiteRT ("2.1.0", or "tflite-2.14.0" for
            TensorFlow Lite), ONNX Runtime, ExecuTorch, or iOS; None: what the bundle was made with.
        require_signature, require_name, require_version: see `verify`.
        progress: called with "examining", how many checks are finished and how many there are.

    Raises:
        BundleError: there is no bundle at the path.
        InputError: an option that cannot be used.
        EngineError: the target's tools are not installed.

    Example:
        >>> diagnosis = ef.doctor("dist/intents.onnx.fp32")
        >>> diagnosis.ok
        True
        >>> diagnosis.programs[0].activation_bytes > 0
        True
    """
    from edgeformer.doctor.examiner import DoctorOptions

    required = requirement_of(require_signature, require_name, require_version)
    options = DoctorOptions(None if min_ios is None else str(min_ios), min_android_api, runtime, required)
    arguments.check_exists(bundle, "bundle")
    from edgeformer.doctor.diagnosis import diagnose

    return diagnose(bundle, options, arguments.at("examining", progress))


def compress(
    source: StrPath,
    data: StrPath,
    out: StrPath,
    *,
    recipe: StrPath | None = None,
    budget: str | None = None,
    teacher: StrPath | None = None,
    eval_data: StrPath | None = None,
    seed: int = 0,
    resume: bool = False,
    checkpoint_seconds: float = 60.0,
    target: str = "litert",
    formats: str | Sequence[str] | None = None,
    seq_len: int | Sequence[int] = 128,
    audio_seconds: float | Sequence[float] | None = None,
    examples: int = 128,
    limit: int | None = None,
    bundles: int = 5,
    progress: Progress | None = None,
) -> Compressed | Chain:
    """Make a checkpoint smaller by a recipe, or until it meets a budget. The result is ready for `convert`.

    A budget that cannot be met is no error: `path` is None, `problem` says why, and `found.best` is the nearest point.

    Args:
        source: as of `convert`.
        data: labelled data to train on, as `evaluate` takes it.
        out: the checkpoint folder to write, which must not exist.
        recipe: a TOML file, or the name of a recipe that ships.
        budget: limits of a bundle, as "accuracy_drop<=0.5%, size<=8MB, latency<=20ms". First formats per layer are
            searched; then `recipe`, or the recipes of the task, are run until a bundle meets all limits.
        teacher: of a recipe: a checkpoint to learn from; None: what the model was before.
        eval_data: labelled data to measure the model on after each step.
        seed: the random seed.
        resume: of a recipe: resume an interrupted run of the same `out`.
        checkpoint_seconds: seconds from one saved state of training to the next; an interruption loses no more.
        target: of a budget: the target whose bundles are made and measured.
        formats: of a budget: weight formats besides fp32, of "fp16", "int8" and "int4"; None: the target's own.
        seq_len, audio_seconds: of a budget: as of `convert`; one length, as each bundle that is tried is converted.
        examples: of a budget: number of examples of `data` on which layers are ranked.
        limit: of a budget: number of examples on which bundles are measured; None: all.
        bundles: of a budget: the most bundles to make of one model.
        progress: called with a step, how much of it is finished and how much there is; or with a line, 0 and 0.

    Returns:
        `Compressed` of a recipe, `Chain` of a budget.

    Raises:
        InputError: an option, a source or data that cannot be used; nothing is then at `out`.

    Example:
        >>> smaller = ef.compress("intents", "intents.csv", "smaller", recipe="prune-quarter")
        >>> smaller.report["steps"][-1]["results"]["parameters"] < smaller.report["before"]["parameters"]
        True
    """
    from edgeformer.compress.budget.budget import parse_budget

    if Path(out).exists() and not resume:
        raise InputError(f"{out} exists: name a new folder, or remove it first")
    arguments.check_place(out)
    if recipe is None and budget is None:
        raise InputError("expected --recipe, a TOML file or a recipe that ships, or --budget")
    if budget is not None and (teacher is not None or resume):
        raise InputError("--teacher and --resume are for recipes: expected --budget without them")
    arguments.check_limit(limit)
    limits = None if budget is None else parse_budget(budget)
    lengths = arguments.rising(seq_len, int, "--seq-len")
    seconds = None if audio_seconds is None else arguments.rising(audio_seconds, float, "--audio-seconds")
    layers = arguments.check_compression((source, teacher), target, formats, (data, eval_data), recipe)
    tell = progress or silent
    if limits is None:
        assert recipe is not None
        from edgeformer.compress import compress as steps

        saving = (seed, resume, checkpoint_seconds)
        return steps.compress(steps.CompressOptions(source, recipe, data, out, teacher, eval_data, *saving), tell)
    from edgeformer.compress.budget.chain import ChainOptions, Conversion, compress_to_budget

    conversion = Conversion(target, fspath(eval_data or data), limit, lengths, seconds)
    recipes = None if recipe is None else (fspath(recipe),)
    wanted = (fspath(source), limits, fspath(data), Path(out), conversion, layers, recipes, examples, bundles, seed)
    return compress_to_budget(ChainOptions(*wanted), tell)
