"""The record of a task: what it takes and gives, and where the code for it is. `TASKS` has one line for each task.

A record and its module import nothing but the bundle's specification, as whoever reads a manifest needs them. What is
heavy to import is a "module:attribute" name (`Lazy`), imported by the one command that needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from edgeformer_runtime.errors import BundleError
from edgeformer_runtime.registry import Registry

if TYPE_CHECKING:
    from edgeformer_runtime.bundle.manifest import Manifest
    from edgeformer_runtime.bundle.specs import ProgramSpec, TensorSpec

Lazy: TypeAlias = str
"""A "module:attribute" name, for `registry.load_attribute`."""

JsonSchema: TypeAlias = Mapping[str, Any]
CaseTensors: TypeAlias = "tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]"
"""The tensors that vectors store of one case: inputs and outputs."""


@dataclass(frozen=True)
class NamedFile:
    """A file of the bundle that a record of the manifest names.

    Attributes:
        key: where the manifest names it, as "preprocessing.tokenizer".
        name: of the file.
        max_bytes: its largest size.
        is_model: it counts as a part of the model's size.
    """

    key: str
    name: str
    max_bytes: int
    is_model: bool = True


def no_check(_: Manifest) -> None:
    """Everything that the schema lets through is right."""


def refuse_packed(manifest: Manifest, _: ProgramSpec) -> None:
    """Nothing has a program for several inputs in a row but texts."""
    raise BundleError(f"manifest.json: packed: {manifest.task} has no program for several inputs in a row")


def no_files(_: Any) -> tuple[NamedFile, ...]:
    """The record names no files."""
    return ()


def no_tolerance(_: Any) -> float:
    """Preprocessed inputs equal the recorded ones."""
    return 0.0


MAX_NUMBER = (1 << 31) - 1
"""Of an integer that nothing but its type bounds."""


def no_bound(_: Manifest, __: ProgramSpec, ___: str) -> None:
    """An input may hold any number."""


def is_list(raw: Any) -> bool:
    """A list is a batch; anything else is one input."""
    return isinstance(raw, list)


def unchanged(_: Any, tensor: Any) -> Any:
    """Vectors store a tensor as it is."""
    return tensor


def all_programs(manifest: Manifest) -> Sequence[ProgramSpec]:
    """Each program is called by itself."""
    return manifest.programs


def whole_tensors(_: Manifest, program: ProgramSpec, __: Mapping[str, Any]) -> CaseTensors:
    """Vectors store a program's inputs and outputs as they are."""
    return program.inputs, program.outputs


def whole_result(result: Any, _: int) -> Any:
    """A result that has no parts to choose from."""
    return result


@dataclass(frozen=True, kw_only=True)
class InputKind:
    """One kind of raw input, which several tasks may take.

    Attributes:
        kind: of the manifest's `preprocessing`.
        record: its dataclass.
        schema: JSON Schema of the record; None: manifest.schema.json has it.
        check: compares the record with the manifest's programs; raises BundleError.
        check_packed: compares the program that takes several inputs in a row with the others; raises BundleError.
        files: the files that a record names.
        stored_forms: the sorted keys of raw inputs as vectors store them.
        stored_file: the key among them that names a file of the bundle; None: there is none.
        stored_dtypes: of a program's inputs as vectors store them, by their own; others stay as they are.
        to_stored, from_stored: from a record and an input (as the program takes it, as vectors store it) to the other.
        largest: from a manifest, a program and an input's name to the largest integer that it may hold; None: any
            number; `MAX_NUMBER`: whatever the model has a row for.
        tolerance: how far a preprocessed input may be from the recorded one, absolute.
        describe: a record in a line, for `inspect`.
        run: what the command `run` does, a function of pipeline, inputs, options and whether JSON is wanted.
        takes: what `run` takes, for messages: "images: expected their paths".
        asks_for: what `run` asks for where nothing was given.
        options: the options of `run` that have a meaning; "-" among them: it stands for stdin.
        is_batch: whether a call's argument is a list of inputs rather than one.
        frame: how a raw input is sent to a helper process, a function of the raw input and `kind`.
        answer_s: how long `serve` works on an answer where its options do not say.
        patience_s: how long work that nobody waits for any more has to give up before its worker is replaced.
        several: one request to `serve` may hold several inputs.
        extra: of the runtime that brings what the pipeline needs.
    """

    kind: str
    record: type
    schema: JsonSchema | None = None
    check: Callable[[Manifest], None] = no_check
    check_packed: Callable[[Manifest, ProgramSpec], None] = refuse_packed
    files: Callable[[Any], tuple[NamedFile, ...]] = no_files
    stored_forms: tuple[tuple[str, ...], ...]
    stored_file: str | None = None
    stored_dtypes: Mapping[str, str] = field(default_factory=dict)
    to_stored: Callable[[Any, Any], Any] = unchanged
    from_stored: Callable[[Any, Any], Any] = unchanged
    largest: Callable[[Manifest, ProgramSpec, str], int | None] = no_bound
    tolerance: Callable[[Any], float] = no_tolerance
    describe: Callable[[Any], str]
    run: Lazy
    takes: str
    asks_for: str
    options: tuple[str, ...]
    is_batch: Callable[[Any], bool] = is_list
    frame: Lazy
    answer_s: float = 60.0
    patience_s: float = 2.0
    several: bool = False
    extra: str = "full"


@dataclass(frozen=True, kw_only=True)
class AnswerKind:
    """One kind of answer, which several tasks may give.

    Attributes:
        kind: of the manifest's `postprocessing`.
        record: its dataclass.
        schema: JSON Schema of the record; None: manifest.schema.json has it.
        check: compares the record with the manifest's programs; raises BundleError.
        files: the files that a record names.
        check_expected: refuses a stored answer that is none, from the case as it is stored, the record and a place for
            messages; raises BundleError.
        describe: a record in a line, for `inspect`.
        result: the class of answers, which follows `pipelines.results.Result`.
        best: a result with so many of its parts, best first.
        show: a result in a line with so many of its parts, for `run`.
        has_confidence: answers say how sure they are, so that `serve` can ask a fallback in doubt.
        plural: what answers are called, for messages: "embeddings".
        replay: how `verify` replays cases, a class that follows `verify.verify.Replay`.
        workload: what `bench` runs, a function of a bundle and the name of a program or None.
        options: the class of options that a call of the pipeline takes beside the input; None: there are none. Such a
            pipeline reports progress, too.
        answered: from the manifest's record and options of a call to the record that the answer follows.
        run_options: the options of `run` that have a meaning for such answers, beside those of the input.
        call_options: from the options of `run` to those of a call, or None for the bundle's own.
        streams: the pipeline takes input that is still arriving (`begin`, `open_stream`).
        writes: the pipeline takes `on_text`, which it calls with each part of a text as it is written.
        stepwise: one answer takes several of dozens of programs, and an engine loads each at its first call.
        first_programs: the programs that begin a case of the vectors.
        case_tensors: the tensors that vectors store of a case, from its program and its stored answer.
        describe_programs: programs by name in a line each, for `inspect`; None: by their tensors.
    """

    kind: str
    record: type
    schema: JsonSchema | None = None
    check: Callable[[Manifest], None] = no_check
    files: Callable[[Any], tuple[NamedFile, ...]] = no_files
    check_expected: Callable[[Mapping[str, Any], Any, str], None]
    describe: Callable[[Any], str]
    result: Lazy
    best: Callable[[Any, int], Any] = whole_result
    show: Callable[[Any, int], str]
    has_confidence: bool = False
    plural: str
    replay: Lazy
    workload: Lazy = "edgeformer_runtime.bench.workload:program_workload"
    options: Lazy | None = None
    answered: Callable[[Any, Any], Any] = lambda head, _: head
    run_options: tuple[str, ...] = ()
    call_options: Callable[[Any], Any] = lambda _: None
    streams: bool = False
    writes: bool = False
    stepwise: bool = False
    first_programs: Callable[[Manifest], Sequence[ProgramSpec]] = all_programs
    case_tensors: Callable[[Manifest, ProgramSpec, Mapping[str, Any]], CaseTensors] = whole_tensors
    describe_programs: Callable[[Manifest], dict[str, str]] | None = None


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a bundle is for.

    Attributes:
        name: in the manifest.
        takes: the kind of its raw inputs.
        gives: the kind of its answers.
        pipeline: raw input to result, a class that follows `pipelines.Pipeline`.
        serve: adds the task's addresses to a service, a function of the application and the service.
    """

    name: str
    takes: InputKind
    gives: AnswerKind
    pipeline: Lazy
    serve: Lazy

    def files(self, manifest: Manifest) -> tuple[NamedFile, ...]:
        """All files that the manifest's records name."""
        return (*self.takes.files(manifest.preprocessing), *self.gives.files(manifest.postprocessing))


TASKS: Registry[Task] = Registry(
    {
        "text-classification": "edgeformer_runtime.tasks.programs:TEXT_CLASSIFICATION",
        "text-embedding": "edgeformer_runtime.tasks.programs:TEXT_EMBEDDING",
        "text-scoring": "edgeformer_runtime.tasks.programs:TEXT_SCORING",
        "fill-mask": "edgeformer_runtime.tasks.tokens:FILL_MASK",
        "question-answering": "edgeformer_runtime.tasks.tokens:QUESTION_ANSWERING",
        "token-classification": "edgeformer_runtime.tasks.tokens:TOKEN_CLASSIFICATION",
        "image-classification": "edgeformer_runtime.tasks.programs:IMAGE_CLASSIFICATION",
        "image-embedding": "edgeformer_runtime.tasks.programs:IMAGE_EMBEDDING",
        "image-text": "edgeformer_runtime.tasks.image_text:IMAGE_TEXT",
        "object-detection": "edgeformer_runtime.tasks.vision:OBJECT_DETECTION",
        "image-segmentation": "edgeformer_runtime.tasks.vision:IMAGE_SEGMENTATION",
        "speech-recognition": "edgeformer_runtime.tasks.speech:SPEECH_RECOGNITION",
        "audio-classification": "edgeformer_runtime.tasks.speech:AUDIO_CLASSIFICATION",
        "text-generation": "edgeformer_runtime.tasks.generation:TEXT_GENERATION",
    },
    "edgeformer_runtime.tasks",
)
"""The tasks by name. A package of another author adds to them by entry points of the group."""
