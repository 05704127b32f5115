"""The tasks, what a model is for: the record of each, and what surrounds a model in a bundle of it.

A record imports no torch, as options are checked against it: functions import what they need when they are called, and
the rest is named as "module:attribute".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeformer.models.family import ProgramOptions
from edgeformer_runtime.bundle.vectors import Tolerances
from edgeformer_runtime.registry import Registry, check_choice

if TYPE_CHECKING:
    from edgeformer.checkpoints.checkpoint import Checkpoint
    from edgeformer.convert.target import Precision
    from edgeformer.models.family import Program
    from edgeformer_runtime.bundle.bundle import Bundle
    from edgeformer_runtime.bundle.manifest import Manifest, Postprocessing, Preprocessing
    from edgeformer_runtime.bundle.vectors import Case
    from edgeformer_runtime.engines import Engine


@dataclass(frozen=True)
class TaskSpec:
    """What a bundle holds around the model: how raw input becomes tensors, and outputs an answer.

    Attributes:
        task: whose bundle it is.
        preprocessing, postprocessing: the manifest's entries.
        assets: files that they name, with their contents.
        samples: inputs, in the form that vectors store, that touch every program; deterministic.
        state_roundings: how far outputs may move because the programs keep a state, as a multiple of
            `FileFormat.state_rounding`; 0 where they keep none.
    """

    task: Task
    preprocessing: Preprocessing
    postprocessing: Postprocessing
    assets: Mapping[str, bytes]
    samples: tuple[Mapping[str, Any], ...]
    state_roundings: float = 0.0

    def tolerances(self, precision: Precision) -> Tolerances:
        """How far outputs and answers of a precision may be from the recorded ones."""
        for_outputs, for_scores = self.task.tolerance_scale
        score = precision.score_tolerance * for_scores
        if precision.allowance is None:
            return Tolerances(precision.output_tolerance * for_outputs, score)
        backstop = precision.allowance.backstop
        if self.task.score_backstop is not None:
            score = getattr(backstop, self.task.score_backstop)
        return Tolerances(max(backstop.output, self.task.least_backstop), score)


@dataclass(frozen=True)
class Metric:
    """The number by which models of a task are compared: with their source, with each other, with a budget.

    Attributes:
        name: as budgets and reports call it; its values are fractions.
        change: what budgets call how much worse it is than the source's.
        is_error: whether less is better.
        answers: "module:attribute" of (Asker, data, limit) to the `Answers` of a bundle.
        same: "module:attribute" of (answer, answer) to whether they are the same; None: they are equal.
        alike: "module:attribute" of two `Answers` to how alike they are, of answers none of which is the same as
            another; None: the share of the same ones.
        interval: "module:attribute" of `Answers` to what holds the value with 95 %, or None; None: the value is a share
            of the examples, whose interval is known.
        noun: what a picture's axis says.
        answers_are_texts: each of its own, so that a report shows them example by example.
    """

    name: str
    change: str
    is_error: bool
    answers: str
    noun: str
    interval: str | None = None
    same: str | None = None
    alike: str | None = None
    answers_are_texts: bool = False

    def loss(self, value: float, reference: float) -> float:
        """By how much a value is worse than another; negative where it is better."""
        return value - reference if self.is_error else reference - value


@dataclass(frozen=True)
class Training:
    """How models of a task are trained, and made smaller for a budget.

    Attributes:
        read: "module:attribute" of (data, checkpoint) to the `corpus.Data` and notes on how it was read.
        probe: "module:attribute" of the `sensitivity.Probe` that measures what a change of weights costs.
        recipes: what a search for a budget tries where formats alone do not do, in this order.
        student: "module:attribute" of (fields, whether they change the teacher's config, teacher) to the config.json of
            a student; None: the fields are one.
    """

    read: str
    probe: str
    recipes: tuple[str, ...] = ()
    student: str | None = None


@dataclass(frozen=True)
class Peers:
    """Other engines for `bench --against`.

    Attributes:
        names: of those that run such models.
        contenders: "module:attribute" of (names, bundle, checkpoint, folder, program, batch) to their contenders; None:
            there are none.
        over_data: "module:attribute" of how all answer a user's own data, an `edgeformer.bench.data.OverData`; None:
            they do not.
    """

    names: tuple[str, ...] = ()
    contenders: str | None = None
    over_data: str | None = None


def record_programs(bundle: Bundle, engine: Engine, samples: Sequence[Mapping[str, Any]]) -> list[Case]:
    """A case for each sample, of a task whose answer is one program's outputs."""
    from edgeformer_runtime.pipelines import open_program_pipeline

    pipeline = open_program_pipeline(bundle, engine)
    return [pipeline.record(sample) for sample in samples]


def rerun_programs(bundle: Bundle, engine: Engine, cases: Sequence[Case], per_program: int, steps: int) -> None:  # noqa: ARG001
    """Each program on its first recorded cases."""
    for program in bundle.manifest.programs:
        for case in [each for each in cases if each.program == program.name][:per_program]:
            engine.run(case.program, case.inputs)


@dataclass(frozen=True)
class Task:
    """Everything that the core knows of a task. `edgeformer_runtime` has its other half: how a bundle answers.

    Attributes:
        name: as manifests and `--task` have it.
        noun: what a model of it is called, for messages.
        takes: what the model reads, the kind of its preprocessing: "text", "image", "audio", "recording"
            (of which one answer is asked for as a whole), or another author's.
        spec: (checkpoint, its programs, the options that they were made with) to what surrounds them in a bundle.
        aliases: what the field calls it besides, in small letters and digits.
        network: the task by whose name a family builds the model, where this one makes another answer of its outputs;
            None: its own. Every family that does that task does this one.
        programs: (checkpoint, the family's programs) to the task's, which may compute more.
        pack: "module:attribute" of its buckets' programs to the one for several inputs in a row, or to None; None: it
            has none.
        architecture: what the names of transformers' classes with its head end in; None: there are none.
        also_in: ends of other classes that have its head among others: they do it where it is asked for.
        labelled: whether a checkpoint of it has labels.
        labels_differ: whether two of them may not be the same.
        on_phones: whether the apps' runtimes, in Kotlin and Swift, do it; else a bundle's `requires` has null for them.
        judged_by_labels: whether `convert --eval` judges it by labelled data: its postprocessing has `labels`.
        pooled: whether its answer is pooled from the tokens' vectors, as the files of sentence-transformers say.
        writes: whether it answers with text, for which the checkpoint has a tokenizer.
        beside_texts: the model takes texts, too, beside what `takes` says: its bundle has a tokenizer.
        heads: parts of public checkpoints that it needs and other tasks leave out; one that lacks the first is refused.
        headless: what to do about a checkpoint without them.
        scores: "module:attribute" of (module, checkpoint) to the range of the attention scores that a mask is added to;
            None: no mask is.
        tolerance_scale: factors of a precision's tolerances, for outputs and for scores.
        least_backstop: what bounds recorded outputs below fp16 is at least this.
        score_backstop: the field of `target.Backstop` that bounds recorded scores below fp16; None: the precision's own
            tolerance does.
        layers_as_outputs: whether a layer may be as far off as an output; else as the precision's own tolerance says.
        record: (bundle, engine, samples) to the recorded cases.
        rerun: (bundle, engine, cases, cases of each program, steps of a decoder) runs recorded inputs once more.
        program_options: from a manifest to the options that its programs were made with.
        calibrate: (programs, spec, data) to the programs with calibration inputs; None: they take none.
        sample_inputs: a spec to calibration inputs that stand in where nobody gave any; None: there are none.
        gate_inputs: an open pipeline to names and raw inputs that every bundle is judged on; None: its recorded vectors
            alone judge it.
        agreement: "module:attribute" of how outputs are compared with the source's, a function like
            `agreement.compare_labels`; None where there are no `gate_inputs`.
        evaluation: "module:attribute" of (Asker, data, limit) to what `eval` tells, a
            `evaluate.EvaluationResult`.
        metric: by which budgets and reports compare; None: they do not.
        training: how it is trained; None: it is not.
        peers: other engines to measure against.
        checks: of `doctor`, by name: "module:attribute" of an examination to findings.
    """

    name: str
    noun: str
    takes: str
    spec: Callable[[Checkpoint, tuple[Program, ...], ProgramOptions], TaskSpec]
    evaluation: str
    peers: Peers
    aliases: tuple[str, ...] = ()
    network: str | None = None
    programs: Callable[[Checkpoint, tuple[Program, ...]], tuple[Program, ...]] = lambda _checkpoint, programs: programs
    pack: str | None = None
    architecture: str | None = None
    also_in: tuple[str, ...] = ()
    labelled: bool = False
    labels_differ: bool = True
    on_phones: bool = True
    judged_by_labels: bool = False
    pooled: bool = False
    writes: bool = False
    beside_texts: bool = False
    heads: tuple[str, ...] = ()
    headless: str = ""
    scores: str | None = None
    tolerance_scale: tuple[float, float] = (1.0, 1.0)
    least_backstop: float = 0.0
    score_backstop: str | None = None
    layers_as_outputs: bool = False
    record: Callable[[Bundle, Engine, Sequence[Mapping[str, Any]]], list[Case]] = record_programs
    rerun: Callable[[Bundle, Engine, Sequence[Case], int, int], None] = rerun_programs
    program_options: Callable[[Manifest], ProgramOptions] = lambda _manifest: ProgramOptions()
    calibrate: Callable[[tuple[Program, ...], TaskSpec, Path], tuple[Program, ...]] | None = None
    sample_inputs: Callable[[TaskSpec], tuple[tuple[Any, ...], ...]] | None = None
    gate_inputs: Callable[[Any], Iterable[tuple[str, Any]]] | None = None
    agreement: str | None = None
    metric: Metric | None = None
    training: Training | None = None
    checks: Mapping[str, str] = field(default_factory=dict)

    @property
    def built_as(self) -> str:
        """The task by whose name a family builds its model."""
        return self.network or self.name


TASKS: Registry[Task] = Registry(
    {
        "text-classification": "edgeformer.tasks.text:CLASSIFICATION",
        "text-embedding": "edgeformer.tasks.text:EMBEDDING",
        "text-scoring": "edgeformer.tasks.text:SCORING",
        "fill-mask": "edgeformer.tasks.tokens:FILL_MASK",
        "question-answering": "edgeformer.tasks.tokens:QUESTION_ANSWERING",
        "token-classification": "edgeformer.tasks.tokens:TOKEN_CLASSIFICATION",
        "image-classification": "edgeformer.tasks.image:CLASSIFICATION",
        "image-embedding": "edgeformer.tasks.image:EMBEDDING",
        "image-text": "edgeformer.tasks.image:IMAGE_TEXT",
        "object-detection": "edgeformer.tasks.image:DETECTION",
        "image-segmentation": "edgeformer.tasks.image:SEGMENTATION",
        "speech-recognition": "edgeformer.tasks.speech:RECOGNITION",
        "audio-classification": "edgeformer.tasks.speech:AUDIO_CLASSIFICATION",
        "text-generation": "edgeformer.tasks.generation:GENERATION",
    },
    group="edgeformer.tasks",
)
"""Another author's package adds its own by an entry point."""


def check_task(task: str | None, choices: Sequence[str] | None = None, what: str = "task") -> None:
    """Refuse an unknown task by name, before anything is loaded.

    Args:
        task: None: whatever the checkpoint was made for.
        choices: those that can be had; None: all.
        what: they are, for messages.

    Raises:
        InputError: it is none of them.
    """
    known = TASKS if choices is None else choices
    if task is not None and task not in known:
        check_choice(task, known, what, task_aliases())


def task_aliases() -> dict[str, tuple[str, ...]]:
    """What the field calls the tasks: for each such name those that it may mean."""
    found: dict[str, tuple[str, ...]] = {}
    for name, task in TASKS.items():
        for alias in task.aliases:
            found[alias] = (*found.get(alias, ()), name)
    return found


def task_metrics() -> dict[str, Metric]:
    """The metrics of the tasks, by name, in the order of the tasks."""
    return {task.metric.name: task.metric for task in TASKS.values() if task.metric is not None}
