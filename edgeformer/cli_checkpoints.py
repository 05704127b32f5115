"""The commands that take a checkpoint, `convert`, `compress` and `sensitivity`, and `list`.

First what names mean in their options: how the shell completes them, and several in one option.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from edgeformer import api
from edgeformer.arguments import check_compression
from edgeformer_runtime.cli.console import Bars, Json, Steps, numbers, out, print_json, print_result, progress_bar
from edgeformer_runtime.errors import InputError


def completing(kind: str) -> Callable[[str], list[str]]:
    """What completes the last of several names with commas between them.

    Args:
        kind: of names, as `list` takes it, or another of `_choices`.
    """

    def complete(incomplete: str) -> list[str]:
        before, comma, start = incomplete.rpartition(",")
        return [before + comma + name for name in _choices(kind) if name.startswith(start)]

    return complete


Source = Annotated[
    str,
    typer.Argument(help="Checkpoint: a folder, a hub id, or a name in the zoo.", autocompletion=completing("zoo")),
]


def _choices(kind: str) -> Iterable[str]:
    from edgeformer.attention import ALL_KERNELS
    from edgeformer.convert.layer_plan import FORMATS
    from edgeformer.convert.target import PRECISIONS
    from edgeformer.models.family import METHODS, WINDOWS
    from edgeformer.tasks.task import TASKS

    names = _names()
    choices: dict[str, Iterable[str]] = {
        "kinds": names,
        "precisions": PRECISIONS,
        "attention": ALL_KERNELS,
        "methods": METHODS,
        "windows": WINDOWS,
        "peers": dict.fromkeys(peer for task in TASKS.values() for peer in task.peers.names),
        "formats": FORMATS,
    }
    return choices.get(kind) or names[kind]


def names(text: str | None) -> tuple[str, ...] | None:
    """Names from text with commas."""
    return None if text is None else several([text])


def several(texts: Sequence[str]) -> tuple[str, ...]:
    """Names from an option that may be repeated and may hold several with commas: each once, in their order."""
    return tuple(dict.fromkeys(name.strip() for text in texts for name in text.split(",")))


# `edgeformer list`.

_ALIASES = {"precision": ("targets",), "precisions": ("targets",), "model": ("zoo",), "models": ("zoo", "families")}


def list_names(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="[KIND]",
            help="Kind of names: families, tasks, targets, zoo or recipes.",
            show_default="all",
            autocompletion=completing("kinds"),
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List names: model families, tasks, targets with their precisions, the zoo and recipes."""
    from edgeformer_runtime.registry import check_choice

    found = _names()
    if kind is not None:
        check_choice(kind, found, "kind of names", _ALIASES)
        found = {kind: found[kind]}
    if as_json:
        print_json(found)
        return
    for title, entries in found.items():
        table = Table(title=title, title_justify="left", show_header=False)
        for name, says in entries.items():
            table.add_row(name, *([] if says is None else [says if isinstance(says, str) else ", ".join(says)]))
        out.print(table)


def _names() -> dict[str, dict[str, Any]]:
    """For each kind its names, with a line or a list on each where there is more to say. Nothing here imports torch."""
    from edgeformer.compress.recipe import load_recipe, shipped_recipes
    from edgeformer.convert.target import TARGETS
    from edgeformer.models.family import FAMILIES
    from edgeformer.zoo import ZOO
    from edgeformer_runtime.tasks.task import TASKS

    return {
        "families": dict.fromkeys(FAMILIES),
        "tasks": {name: f"{task.takes.kind} to {task.gives.kind}" for name, task in TASKS.items()},
        "targets": {name: list(target.precisions) for name, target in TARGETS.items()},
        "zoo": {name: entry.description for name, entry in ZOO.items()},
        "recipes": {name: load_recipe(name).description for name in shipped_recipes()},
    }


# The commands that take a checkpoint.


FormatsOption = Annotated[
    str | None,
    typer.Option(
        "--formats",
        help="Weight formats of layers besides fp32, as fp16,int8,int4.",
        show_default="the target's",
        autocompletion=completing("formats"),
    ),
]
ExamplesOption = Annotated[
    int, typer.Option(min=1, help="Number of examples of --data on which layers are ranked, spread evenly.")
]


def convert(
    source: Source,
    out: Annotated[Path, typer.Option(help="Folder of the bundles, each OUT/<name>.<target>.<precision>/.")],
    target: Annotated[
        list[str],
        typer.Option(
            help="litert, coreml, executorch or onnx. Several: with commas, or repeat the option.",
            default_factory=lambda: ["litert"],
            autocompletion=completing("targets"),
            show_default="litert",
        ),
    ],
    precision: Annotated[
        list[str],
        typer.Option(
            help="fp32, fp16, dynamic-int8, static-int8, weight-int8, int4, mixed (a format per layer), palette6 or "
            "palette4. Several: with commas, or repeat the option. `edgeformer list targets` names those of a target.",
            default_factory=lambda: ["fp32"],
            autocompletion=completing("precisions"),
            show_default="fp32",
        ),
    ],
    seq_len: Annotated[
        str | None,
        typer.Option(
            help="Text: sequence lengths in tokens, as 32,64,128; a program for each. Default: the target's own, up to "
            "128."
        ),
    ] = None,
    lengths_from: Annotated[
        Path | None,
        typer.Option(
            help="Text: in place of --seq-len, a file of texts (.csv, .tsv, .jsonl, .txt) for which the lengths are "
            "chosen that leave the least to padding."
        ),
    ] = None,
    column: Annotated[str | None, typer.Option(help="Column of the texts of --lengths-from.")] = None,
    lengths_budget: Annotated[
        str | None,
        typer.Option(
            help="With --lengths-from: what the lengths after the first may add to a bundle and its conversion, as "
            "300KB,20s. Default: as many lengths as the target's own."
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="Task of the bundles; `edgeformer list tasks` names them. Default: the checkpoint's own.",
            autocompletion=completing("tasks"),
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the bundles. Default: the source's name.")] = None,
    labels: Annotated[Path | None, typer.Option(help="File of label names: a JSON list, or a name per line.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub id.")] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Calibration data: a folder of images or audio; or texts as eval takes them, or lines of a .txt. "
            "static-int8 needs it. All int8 and int4 weights are rounded for it."
        ),
    ] = None,
    calibration_method: Annotated[
        str,
        typer.Option(
            help="How static-int8 finds ranges: min-max, percentile or entropy.", autocompletion=completing("methods")
        ),
    ] = "min-max",
    held_out: Annotated[
        str | None,
        typer.Option(
            "--eval", help="Classifiers: labelled data to judge the bundles on. Accuracy before and after is shown."
        ),
    ] = None,
    keep_refused: Annotated[
        bool,
        typer.Option("--keep-refused", help="Also write bundles that a gate refused, as OUT/<bundle>.refused/."),
    ] = False,
    plan: Annotated[
        Path | None,
        typer.Option(help="With --precision mixed: JSON file of formats by layer. Default: the checkpoint's own."),
    ] = None,
    attention: Annotated[
        str | None,
        typer.Option(
            help="Attention kernel: dense, fused, chunked or split_heads (the Neural Engine's layout). For long texts, "
            "if the model was distilled into it: sliding_window or linear. Default: the target's own.",
            autocompletion=completing("attention"),
        ),
    ] = None,
    min_ios: Annotated[
        int | None,
        typer.Option(help="Core ML: oldest iOS to support, 16, 17 or 18 (default). Before 18 a model has one program."),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(help="Embedders: name of the checkpoint's prompt that is put before every text, or none."),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(help="Speech: language to transcribe, as de, or any. Default: the one that the model fixes."),
    ] = None,
    window: Annotated[
        str,
        typer.Option(
            help="Speech: tail computes only the audio that is there; full always computes the whole window.",
            autocompletion=completing("windows"),
        ),
    ] = "tail",
    audio_seconds: Annotated[
        str | None,
        typer.Option(
            help="Audio: lengths in seconds, as 5,10,30; a program for each. Default: the target's or the model's own."
        ),
    ] = None,
    zipped: Annotated[bool, typer.Option("--zip", help="Also write OUT/<bundle>.zip.")] = False,
    jobs: Annotated[
        int, typer.Option(help="How many targets to convert at the same time, each in a process of its own.")
    ] = 1,
    as_json: Json = False,
) -> None:
    """Convert a checkpoint into verified bundles. Exit code 1: a gate failed, and that bundle was not delivered."""
    seconds = None if audio_seconds is None else numbers(audio_seconds, float, "--audio-seconds", "5,10,30")
    with Steps() as steps:
        result = api.convert(
            source,
            out,
            target=several(target),
            precision=several(precision),
            seq_len=None if seq_len is None else numbers(seq_len, int, "--seq-len", "32,64,128"),
            lengths_from=lengths_from,
            column=column,
            lengths_budget=lengths_budget,
            task=task,
            name=name,
            labels=labels,
            revision=revision,
            calibration=calibration,
            calibration_method=calibration_method,
            eval_data=held_out,
            keep_refused=keep_refused,
            plan=plan,
            attention=attention,
            min_ios=min_ios,
            prompt=prompt,
            language=language,
            jobs=jobs,
            window=window,
            audio_seconds=seconds,
            zipped=zipped,
            progress=steps.at,
        )
    if as_json:
        print_json(result.to_json())
    else:
        from edgeformer.convert.result import print_converted

        print_converted(result)
    if not result.ok:
        raise typer.Exit(1)


def compress(
    source: Source,
    data: Annotated[str, typer.Option(help="Labelled data to train on, as eval takes it.")],
    out: Annotated[Path, typer.Option(help="Checkpoint folder to write. It must not exist.")],
    recipe: Annotated[
        str | None,
        typer.Option(
            help="TOML file, or name of a recipe that ships; `edgeformer list recipes` names them.",
            autocompletion=completing("recipes"),
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Limits of a bundle, as 'accuracy_drop<=0.5%, size<=8MB, latency<=20ms'. Formats per layer are "
            "searched first. Then the recipes of the task, or --recipe alone, are run until a bundle meets all limits."
        ),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="Checkpoint to learn from. Default: the model before it is changed.")
    ] = None,
    held_out: Annotated[
        str | None, typer.Option("--eval", help="Labelled data on which the model is measured after each step.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Resume an interrupted run of the same OUT.")] = False,
    checkpoint_seconds: Annotated[
        float, typer.Option(min=0, help="Seconds between saved states of training. An interruption loses no more.")
    ] = 60.0,
    target: Annotated[
        str,
        typer.Option(
            help="With --budget: target whose bundles are made and measured.", autocompletion=completing("targets")
        ),
    ] = "litert",
    formats: FormatsOption = None,
    seq_len: Annotated[
        str, typer.Option(help="With --budget: sequence lengths in tokens of text models, as 32,64,128.")
    ] = "128",
    audio_seconds: Annotated[
        str | None,
        typer.Option(help="With --budget: lengths of audio in seconds, as 5,10,30. Default: the target's own."),
    ] = None,
    examples: ExamplesOption = 128,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="With --budget: number of examples on which bundles are measured. Default: all."),
    ] = None,
    bundles: Annotated[
        int, typer.Option(min=1, help="With --budget: largest number of bundles to make of one model.")
    ] = 5,
    as_json: Json = False,
) -> None:
    """Make a checkpoint smaller by a recipe, or until it meets a budget. The result is ready for convert.

    A budget that cannot be met ends with exit code 2 and the nearest point.
    """
    seconds = None if audio_seconds is None else numbers(audio_seconds, float, "--audio-seconds", "5,10,30")
    with Bars() as bars:
        found = api.compress(
            source,
            data,
            out,
            recipe=recipe,
            budget=budget,
            teacher=teacher,
            eval_data=held_out,
            seed=seed,
            resume=resume,
            checkpoint_seconds=checkpoint_seconds,
            target=target,
            formats=names(formats),
            seq_len=numbers(seq_len, int, "--seq-len", "32,64,128"),
            audio_seconds=seconds,
            examples=examples,
            limit=limit,
            bundles=bundles,
            progress=bars,
        )
    print_result(found, as_json)
    if found.problem is not None:
        raise InputError(found.problem)


def sensitivity(
    source: Source,
    data: Annotated[str, typer.Option(help="Labelled data, as eval takes it.")],
    target: Annotated[
        str, typer.Option(help="Target whose arithmetic is imitated.", autocompletion=completing("targets"))
    ] = "litert",
    formats: FormatsOption = None,
    examples: ExamplesOption = 128,
    as_json: Json = False,
) -> None:
    """Rank layers by what each alone costs in each weight format: in the metric, in agreement and in divergence."""
    layers = check_compression((source,), target, names(formats), (data,))
    from edgeformer.compress.budget.sensitivity import sensitivity_of
    from edgeformer.convert.target import TARGETS

    with progress_bar("measuring") as report:
        wanted = layers or TARGETS[target].layer_formats
        found = sensitivity_of(source, data, target, wanted, examples, report)
    print_result(found, as_json)
