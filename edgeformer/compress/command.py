"""The commands that make checkpoints smaller: `compress` and `sensitivity`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeformer import api
from edgeformer.arguments import check_compression
from edgeformer.cli_list import names
from edgeformer.progress import Bars
from edgeformer_runtime.cli.app import Json, numbers
from edgeformer_runtime.cli.console import print_result, progress_bar
from edgeformer_runtime.errors import InputError

FormatsOption = Annotated[
    str | None,
    typer.Option(
        "--formats", help="That layers may have besides fp32, as fp16,int8,int4.", show_default="the target's"
    ),
]
ExamplesOption = Annotated[int, typer.Option(min=1, help="Of --data, to rank layers on, spread evenly.")]


def compress(
    source: Annotated[str, typer.Argument(help="A checkpoint folder, a hub id, or a zoo name.")],
    data: Annotated[str, typer.Option(help="Labelled data to train on, as eval takes it.")],
    out: Annotated[Path, typer.Option(help="The checkpoint folder to write; it must not exist.")],
    recipe: Annotated[str | None, typer.Option(help="A TOML file, or the name of a recipe that ships.")] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="What a bundle may cost, as 'accuracy_drop<=0.5%, size<=8MB, latency<=20ms': formats per layer, then "
            "the recipes of the task, or --recipe alone, until one meets it."
        ),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="A checkpoint to learn from; default: what the model was before.")
    ] = None,
    held_out: Annotated[
        str | None, typer.Option("--eval", help="Labelled data to measure the model on after each step.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of every random number.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run of the same OUT.")] = False,
    checkpoint_seconds: Annotated[
        float, typer.Option(min=0, help="Save the state of training so often; an interruption loses no more.")
    ] = 60.0,
    target: Annotated[str, typer.Option(help="With --budget: whose bundles are made and measured.")] = "litert",
    formats: FormatsOption = None,
    seq_len: Annotated[str, typer.Option(help="With --budget: buckets of text models, as 32,64,128.")] = "128",
    audio_seconds: Annotated[
        str | None, typer.Option(help="With --budget: lengths of sound to make programs for, as 5,10,30.")
    ] = None,
    examples: ExamplesOption = 128,
    limit: Annotated[int | None, typer.Option(min=1, help="With --budget: ask bundles so many examples.")] = None,
    bundles: Annotated[int, typer.Option(min=1, help="With --budget: bundles to make at most of a model.")] = 5,
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
    source: Annotated[str, typer.Argument(help="A checkpoint folder, a hub id, or a zoo name.")],
    data: Annotated[str, typer.Option(help="Labelled data, as eval takes it.")],
    target: Annotated[str, typer.Option(help="Whose arithmetic is imitated.")] = "litert",
    formats: FormatsOption = None,
    examples: ExamplesOption = 128,
    as_json: Json = False,
) -> None:
    """Rank layers by what each alone costs in each weight format: the metric, agreement and divergence from fp32."""
    layers = check_compression((source,), target, names(formats), (data,))
    from edgeformer.compress.budget.sensitivity import sensitivity_of
    from edgeformer.convert.target import TARGETS

    with progress_bar("measuring") as report:
        wanted = layers or TARGETS[target].layer_formats
        found = sensitivity_of(source, data, target, wanted, examples, report)
    print_result(found, as_json)
