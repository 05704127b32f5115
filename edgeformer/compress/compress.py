"""`compress`: run a recipe's steps over a checkpoint, resumably, and write the result in the public format.

Unfinished work lies beside the result, in `.<name>.compress`: a plan, the model after each finished step, and the state
of the training that was interrupted. Every step reads its model from there, so that a run that goes on computes what an
uninterrupted one does.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.table import Table

from edgeformer.compress.corpus import Data, labels_in, make_corpus, read_data
from edgeformer.compress.model import Model, open_model, with_new_head, write_model
from edgeformer.compress.recipe import Distill, Finetune, Recipe, Step, load_recipe, step_to_json
from edgeformer.compress.steps import RUNNERS, Results, StepContext, check_same_task, size_of
from edgeformer.compress.training import Run, accuracy, clear_states, open_accelerator, writing
from edgeformer_runtime.delivery import alone, clear_dead, work_folder
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.interface import OptionalTextField, PathField, Progress, Shown, TextField, silent

REPORT_FILE = "edgeformer.json"
REPORT_VERSION = 1

_PLAN_FILE = "plan.json"
_RESULT = "result"
_PACKAGES = ("accelerate", "edgeformer", "safetensors", "tokenizers", "torch")


@dataclass(frozen=True)
class CompressOptions:
    """What `compress` is asked for.

    Attributes:
        source: a checkpoint, as `open_checkpoint` takes it.
        recipe: a TOML file, or the name of a recipe that ships.
        data: to train on, as `edgeformer eval` takes it.
        out: the folder to write, which must not exist.
        teacher: a checkpoint; None: what the model was before it became a student, or else the source.
        evaluate: data to measure every step's model on; None: nothing is measured.
        seed: of every random number.
        resume: go on with an interrupted run of the same `out`.
        checkpoint_seconds: from one saved state of training to the next.
    """

    source: TextField = TextField()  # noqa: RUF009 (a descriptor)
    recipe: TextField = TextField()  # noqa: RUF009
    data: TextField = TextField()  # noqa: RUF009
    out: PathField = PathField()  # noqa: RUF009
    teacher: OptionalTextField = OptionalTextField()  # noqa: RUF009
    evaluate: OptionalTextField = OptionalTextField()  # noqa: RUF009
    seed: int = 0
    resume: bool = False
    checkpoint_seconds: float = 60.0


@dataclass(frozen=True, repr=False)
class Compressed(Shown):
    """What a recipe gave.

    Attributes:
        path: the checkpoint's folder.
        report: what `edgeformer.json` in it says: sizes before, and for each step its sizes, loss and accuracy.
    """

    path: Path
    report: dict[str, Any]

    @property
    def problem(self) -> None:
        """None, where `Chain` may have one: a recipe that cannot be run to its end is an error."""
        return None

    def to_json(self) -> dict[str, Any]:
        """What `compress --json` prints: the report."""
        return self.report

    def tables(self) -> list[Table]:
        """A row for the source and one for each step."""
        table = Table("step", "parameters", "zeros in linear layers", "loss", "accuracy", title=str(self.path))
        table.add_row("source", *_sizes(self.report["before"]), "", "")
        for number, step in enumerate(self.report["steps"], 1):
            results = step["results"]
            loss, share = results.get("loss"), results.get("accuracy")
            figures = ("" if loss is None else f"{loss:.4f}", "" if share is None else f"{share:.2%}")
            table.add_row(f"{number} {step['kind']}", *_sizes(results), *figures)
        return [table]


def _sizes(results: Results) -> tuple[str, str]:
    share = results["linear_zeros"] / max(1, results["linear_weights"])
    return f"{results['parameters']:,}", f"{share:.1%}"


def compress(options: CompressOptions, progress: Progress = silent) -> Compressed:
    """Run a recipe.

    Args:
        options: what to make of what.
        progress: called with each step, and within one after each update or batch.

    Raises:
        InputError: anything that is not as it should be; nothing is then at `options.out`.
    """
    recipe = load_recipe(options.recipe)
    folder = options.out.parent / f".{options.out.name}.compress"
    clear_dead(options.out.parent)
    if options.out.exists():
        found = _finished(options.out, folder)
        if found is None or not options.resume:
            nothing = " and no interrupted run is beside it" if options.resume else ""
            raise InputError(f"{options.out} exists{nothing}: name a new folder, or remove it first")
        progress(f"{options.out} is finished: there is nothing to go on with", 0, 0)
        return found
    accelerator = open_accelerator(recipe.mixed_precision)
    run = Run(accelerator, progress, options.seed, folder, options.checkpoint_seconds)
    job = _Job(recipe, options, run)
    with _alone(options.out, accelerator):
        return _compress(job, options, recipe)


@contextmanager
def _alone(out: Path, accelerator: Accelerator) -> Iterator[None]:
    """Of several processes of one run the first keeps other runs away."""
    if not accelerator.is_main_process:
        yield
        return
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    with alone(out):
        yield


def _compress(job: _Job, options: CompressOptions, recipe: Recipe) -> Compressed:
    run, folder = job.run, job.run.folder
    with writing(folder):
        finished = _begin(job, options.resume)
    try:
        for number, step in enumerate(recipe.steps, 1):
            if number > len(finished):
                finished = [*finished, job.run_step(number, step)]
                with writing(folder):
                    _write_plan(job, finished)
                clear_states(run, name_of(number, step))
    except KeyboardInterrupt:
        run.say(f"what is done is kept at {folder}: --resume goes on with it")
        raise
    except InputError:
        if run.accelerator.is_main_process and {path.name for path in folder.iterdir()} <= {_PLAN_FILE}:
            shutil.rmtree(folder)  # nothing is worth going on from
        raise
    report = job.report(finished)
    with writing(folder):
        _publish(options.out, job.after(len(recipe.steps)), report, recipe, run)
    return Compressed(options.out, report)


def name_of(number: int, step: Step) -> str:
    """A step's name, for people, states and random numbers."""
    return f"{number}-{step.kind}"


class _Job:
    """A recipe with everything it is applied to."""

    def __init__(self, recipe: Recipe, options: CompressOptions, run: Run) -> None:
        self._recipe, self._options, self.run = recipe, options, run
        first = recipe.steps[0]
        for later in recipe.steps[1:]:
            if isinstance(later, Finetune) and later.new_head:
                raise InputError(f"recipe {recipe.name}: new_head is for the first step")
        new_head = isinstance(first, Finetune) and first.new_head
        labels = labels_in(options.data) if new_head else ()
        self._source = with_new_head(options.source, labels, run.seed) if new_head else open_model(options.source)
        self._teacher_sha256: str | None = None
        if options.teacher is not None:
            teacher = open_model(options.teacher).checkpoint
            check_same_task(teacher, self._source.checkpoint)
            self._teacher_sha256 = teacher.source.weights_sha256
        self._data, notes = read_data(options.data, self._source.checkpoint)
        self._held_out: Data | None = None
        if options.evaluate is not None:
            self._held_out, more = read_data(options.evaluate, self._source.checkpoint)
            notes = (*notes, *more)
        for note in notes:
            run.say(f"note: {note}")

    def after(self, number: int) -> Model:
        """The model after so many steps."""
        if number == 0:
            # A copy, because steps train in place and the source may be the teacher of a later one.
            return replace(self._source, module=copy.deepcopy(self._source.module))
        return self._reopened(open_model(str(self._folder(number))))

    def run_step(self, number: int, step: Step) -> Results:
        """Run a step and keep its model."""
        run, name = self.run, name_of(number, step)
        run.say(f"step {number} of {len(self._recipe.steps)}: {step.kind}")
        context = StepContext(name, number, self._recipe, self._data, lambda: self._teacher(number), run)
        model, results = RUNNERS[step.kind](step, self.after(number - 1), context)
        results |= size_of(model.module)
        if self._held_out is not None:
            corpus = make_corpus(self._held_out, model.checkpoint, None, self._recipe)
            results["accuracy"] = accuracy(model.module, corpus, run, f"{name}: evaluation")
            run.say(f"{name}: accuracy {results['accuracy']:.4f} on {len(self._held_out)} examples")
        folder = self._folder(number)
        with writing(run.folder):
            if run.accelerator.is_main_process:
                shutil.rmtree(folder, ignore_errors=True)
                write_model(model, folder)
            run.accelerator.wait_for_everyone()
        return results

    def inputs(self) -> dict[str, Any]:
        """What must not change between an interruption and `--resume`, in plain values."""
        return {
            "seed": self.run.seed,
            "source": self._source.checkpoint.source.weights_sha256,
            "teacher": self._teacher_sha256,
            "data": self._data.sha256(),
            "settings": _settings(self._recipe),
            "steps": [step_to_json(step) for step in self._recipe.steps],
        }

    def report(self, results: list[Results]) -> dict[str, Any]:
        """The content of edgeformer.json: no times and no paths, so that a second run gives the same."""
        source = self._source.checkpoint.source
        inputs = self.inputs()
        return {
            "version": REPORT_VERSION,
            "recipe": {"name": self._recipe.name, "description": self._recipe.description, **inputs["settings"]},
            "source": {"id": source.id, "revision": source.revision, "weights_sha256": source.weights_sha256},
            "teacher_sha256": inputs["teacher"],
            "data": {"sha256": inputs["data"], "examples": len(self._data)},
            "held_out": None if self._held_out is None else {"examples": len(self._held_out)},
            "seed": self.run.seed,
            "processes": self.run.accelerator.num_processes,
            "before": size_of(self._source.module),
            "steps": [{**step, "results": result} for step, result in zip(inputs["steps"], results, strict=True)],
            "versions": {package: version(package) for package in _PACKAGES},
        }

    def _teacher(self, number: int) -> Model:
        """The teacher of a step: the named one, or what the model was before it last became a student."""
        if self._options.teacher is not None:
            return open_model(self._options.teacher)
        before = [
            each
            for each, step in enumerate(self._recipe.steps[:number])
            if isinstance(step, Distill) and step.student is not None
        ]
        return self.after(before[-1] if before else 0)

    def _folder(self, number: int) -> Path:
        return self.run.folder / f"step-{number}"

    def _reopened(self, model: Model) -> Model:
        """A model of ours keeps the name and the licence of the source."""
        checkpoint, source = model.checkpoint, self._source.checkpoint
        return replace(model, checkpoint=replace(checkpoint, source=source.source, license=source.license))


def _settings(recipe: Recipe) -> dict[str, Any]:
    """A recipe's head."""
    names = ("seq_len", "max_tokens", "language", "mixed_precision", "stored")
    return {name: getattr(recipe, name) for name in names}


def _begin(job: _Job, resume: bool) -> list[Results]:
    """The results of the steps that are finished already.

    Raises:
        InputError: an interrupted run is there and nobody asked to go on with it, or the other way round, or it was
            another run.
    """
    accelerator, folder = job.run.accelerator, job.run.folder
    plan_file = folder / _PLAN_FILE
    begun = plan_file.is_file()
    accelerator.wait_for_everyone()
    if begun and not resume:
        raise InputError(f"an interrupted run is at {folder}: go on with --resume, or remove that folder")
    if not begun:
        if resume:
            raise InputError(f"there is nothing to resume: no interrupted run at {folder}")
        if accelerator.is_main_process:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        _write_plan(job, [])
        return []
    plan = json.loads(plan_file.read_text(encoding="utf-8"))
    results = _still_valid(plan, job.inputs(), folder)
    _write_plan(job, results)  # the states that follow belong to the steps as they are now
    return results


def _still_valid(plan: dict[str, Any], inputs: dict[str, Any], folder: Path) -> list[Results]:
    """The results of the steps that the recipe still starts with; steps behind them may have changed."""
    then, now = plan["inputs"], json.loads(json.dumps(inputs))
    for key in now:
        if key != "steps" and then[key] != now[key]:
            raise InputError(
                f"the interrupted run at {folder} had another {key}: use the same one, or remove that folder"
            )
    same = 0
    while same < min(len(then["steps"]), len(now["steps"])) and then["steps"][same] == now["steps"][same]:
        same += 1
    for number, step in enumerate(then["steps"], 1):
        if number > same:
            shutil.rmtree(folder / f"training-{number}-{step['kind']}", ignore_errors=True)
    results: list[Results] = plan["results"][:same]
    return results


def _write_plan(job: _Job, results: list[Results]) -> None:
    accelerator, folder = job.run.accelerator, job.run.folder
    if accelerator.is_main_process:
        unfinished = folder / f"{_PLAN_FILE}.unfinished"
        unfinished.write_text(json.dumps({"inputs": job.inputs(), "results": results}), encoding="utf-8")
        unfinished.replace(folder / _PLAN_FILE)
    accelerator.wait_for_everyone()


def _publish(out: Path, model: Model, report: dict[str, Any], recipe: Recipe, run: Run) -> None:
    """Write the result beside its place and rename it; then the unfinished work goes."""
    run.accelerator.wait_for_everyone()  # until each has read its model from the unfinished work
    if run.accelerator.is_main_process:
        result = run.folder / _RESULT
        shutil.rmtree(result, ignore_errors=True)
        write_model(model, result, getattr(torch, recipe.stored))
        text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)
        (result / REPORT_FILE).write_text(text + "\n", encoding="utf-8")
        result.rename(out)
        _clear(run.folder)
    run.accelerator.wait_for_everyone()


def _finished(out: Path, folder: Path) -> Compressed | None:
    """The result of the run whose unfinished work lies in `folder`, if that was killed behind its last step: its rest
    goes now. None: `out` is not that run's, as far as can be told.
    """
    try:
        plan = json.loads((folder / _PLAN_FILE).read_text(encoding="utf-8"))
        report = json.loads((out / REPORT_FILE).read_text(encoding="utf-8"))
        same = [step["results"] for step in report["steps"]] == plan["results"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not same or (folder / _RESULT).exists():
        return None
    _clear(folder)
    return Compressed(out, report)


def _clear(folder: Path) -> None:
    """Remove a run's folder, which nobody finds half removed."""
    with work_folder(folder.parent) as work:
        folder.rename(work / folder.name)
