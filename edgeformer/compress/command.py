"""The commands that make checkpoints smaller: `compress` and `sensitivity`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from edgeformer.cli_list import check_data, check_place, check_source, names, numbers
from edgeformer_runtime.cli.app import Json
from edgeformer_runtime.cli.console import err, out, print_json, progress_bar
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
    from edgeformer.compress.budget.budget import parse_budget

    if out.exists() and not resume:
        raise InputError(f"{out} exists: name a new folder, or remove it first")
    check_place(out)
    if recipe is None and budget is None:
        raise InputError("expected --recipe, a TOML file or a recipe that ships, or --budget")
    if budget is not None and (teacher is not None or resume):
        raise InputError("--teacher and --resume are for recipes: expected --budget without them")
    limits = None if budget is None else parse_budget(budget)
    lengths = numbers(seq_len, int, "--seq-len", "32,64,128")
    seconds = None if audio_seconds is None else numbers(audio_seconds, float, "--audio-seconds", "5,10,30")
    layers = _checked((source, teacher), target, formats, (data, held_out), recipe)
    if limits is not None:
        from edgeformer.compress.budget.bundle_evaluator import Conversion
        from edgeformer.compress.budget.chain import ChainOptions, compress_to_budget
        from edgeformer.compress.budget.search import unreachable
        from edgeformer.compress.tables import print_chain

        conversion = Conversion(target, held_out or data, limit, lengths, seconds)
        wanted = ChainOptions(
            source,
            limits,
            data,
            out,
            conversion,
            formats=layers,
            recipes=None if recipe is None else (recipe,),
            examples=examples,
            bundles=bundles,
            seed=seed,
        )
        chain = compress_to_budget(wanted, err)
        if as_json:
            print_json(chain.report)
        else:
            print_chain(chain)
        if chain.path is None:
            raise InputError(unreachable(wanted.budget, chain.found))
        return
    assert recipe is not None
    from edgeformer.compress.compress import CompressOptions, compress
    from edgeformer.compress.tables import print_compressed

    options = CompressOptions(source, recipe, data, out, teacher, held_out, seed, resume, checkpoint_seconds)
    found = compress(options, err)
    if as_json:
        print_json(found.report)
    else:
        print_compressed(found)


def sensitivity(
    source: Annotated[str, typer.Argument(help="A checkpoint folder, a hub id, or a zoo name.")],
    data: Annotated[str, typer.Option(help="Labelled data, as eval takes it.")],
    target: Annotated[str, typer.Option(help="Whose arithmetic is imitated.")] = "litert",
    formats: FormatsOption = None,
    examples: ExamplesOption = 128,
    as_json: Json = False,
) -> None:
    """Rank layers by what each alone costs in each weight format: the metric, agreement and divergence from fp32."""
    layers = _checked((source,), target, formats, (data,))
    from edgeformer.compress.budget.sensitivity import sensitivity_of, sensitivity_table
    from edgeformer.convert.target import TARGETS

    with progress_bar("measuring") as report:
        wanted = layers or TARGETS[target].layer_formats
        found = sensitivity_of(source, data, target, wanted, examples, report)
    if as_json:
        print_json(found.to_json())
    else:
        out.print(sensitivity_table(found))


def _checked(
    sources: Sequence[str | None],
    target: str,
    formats: str | None,
    data: Sequence[str | None],
    recipe: str | None = None,
) -> tuple[str, ...] | None:
    """The formats of layers, after all that can be refused before torch, which takes seconds, is imported.

    Raises:
        InputError: a name that is none, a recipe that cannot be read, or data or a checkpoint that is not there.
    """
    from edgeformer.compress.recipe import load_recipe
    from edgeformer.convert.layer_plan import check_formats
    from edgeformer.convert.target import check_target

    check_target(target)
    layers = names(formats)
    check_formats(layers or ())
    if recipe is not None:
        load_recipe(recipe)
    for each in data:
        check_data(each)
    for checkpoint in sources:
        check_source(checkpoint)
    return layers
