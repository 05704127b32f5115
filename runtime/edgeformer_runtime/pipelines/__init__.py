"""Pipelines: raw input to a typed answer, and work that is given up when nobody waits for it; one class per task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.engines import Engine
from edgeformer_runtime.errors import EdgeFormerError, EngineError, InputError
from edgeformer_runtime.registry import check_choice, load_attribute, load_optional
from edgeformer_runtime.tasks.task import TASKS

if TYPE_CHECKING:
    from edgeformer_runtime.pipelines.program import ProgramPipeline

Raw = TypeVar("Raw")
Answer = TypeVar("Answer")

AT_A_TIME = 256
"""Inputs that are read ahead where several are answered at a time, at most."""


class Pipeline(ABC, Generic[Raw, Answer]):
    """Answers raw inputs of one task with a bundle. Calls from several threads are safe."""

    def __init__(self, bundle: Bundle, engine: Engine, owned: bool = False) -> None:
        """Use `edgeformer_runtime.load`, or `open_pipeline` with an engine of one's own."""
        self.bundle = bundle
        self.engine = engine
        self._owned = owned
        self._is_batch = TASKS[bundle.manifest.task].takes.is_batch

    @abstractmethod
    def run(self, raw: Raw) -> Answer:
        """Answer one raw input.

        Raises:
            InputError: the input cannot be used.
            EngineError: the model failed, or gave NaN or infinity.
        """

    def is_batch(self, raw: Any) -> bool:
        """Whether a call's argument is a list of inputs rather than one."""
        return self._is_batch(raw)

    def __call__(self, raw: Any, **asked: Any) -> Any:
        """Answer one raw input, or each of a list: a result, or a list of results in the same order.

        Args:
            raw: the input.
            asked: fields of the class of options that the task's answers have, such as `labels` of a classifier of
                texts, `targets` of a masked language model, `top` of a question answerer.

        Raises:
            InputError: as `run`, or there is no such option.
        """
        options = self._options(asked)
        if not self.is_batch(raw):
            return run_with(self, raw, options)
        results: list[Answer] = []
        for found in self.answer_each(raw, options):
            if isinstance(found, InputError):
                raise InputError(f"input {len(results)} of {len(raw)}: {found}") from None
            if isinstance(found, EdgeFormerError):
                raise found
            results.append(found)
        return results

    def answer_each(self, raws: Iterable[Raw], options: Any = None) -> Iterator[Answer | InputError | EngineError]:
        """Answer many raw inputs: for each its answer, or why there is none, in the same order.

        A pipeline may take some of them at a time where that is faster, and reads so many ahead (`AT_A_TIME`).

        Args:
            raws: the inputs.
            options: of each call, where the task's answers have some; None: the bundle's own.
        """
        for raw in raws:
            yield self._answer_or_error(raw, options)

    def _answer_or_error(self, raw: Raw, options: Any) -> Answer | InputError | EngineError:
        try:
            return cast(Answer, run_with(self, raw, options))
        except (InputError, EngineError) as error:
            return error

    def _options(self, asked: Mapping[str, Any]) -> Any:
        if not asked:
            return None
        kind = TASKS[self.bundle.manifest.task].gives.options
        options: Any = None if kind is None else load_attribute(kind)
        known = () if options is None else tuple(field.name for field in fields(options))
        for name in asked:
            check_choice(name, known, f"option of {self.bundle.manifest.task}")
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in asked.items()}
        try:
            return options(**values)
        except TypeError as error:
            raise InputError(f"options of {self.bundle.manifest.task}: {error}") from None

    def close(self) -> None:
        """Release the engine and the bundle, if they are the pipeline's own. A second call does nothing."""
        if self._owned:
            self.engine.close()
            self.bundle.close()

    def __enter__(self) -> Pipeline[Raw, Answer]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def run_with(pipeline: Any, raw: Any, options: Any) -> Any:
    """Answer one raw input, with options where there are some: not every pipeline takes them."""
    return pipeline.run(raw) if options is None else pipeline.run(raw, options)


# Work that ends when nobody wants its outcome any more: whoever does it asks now and then.


IsCancelled = Callable[[], bool]
"""Whether nobody wants the outcome any more. Called often, from the thread that works."""


class Cancelled(EdgeFormerError):
    """The work was given up before it was done, because its caller said so."""


def never() -> bool:
    """For callers that wait whatever it takes."""
    return False


def check(is_cancelled: IsCancelled) -> None:
    """Go on, or give up.

    Raises:
        Cancelled: nobody wants the outcome any more.
    """
    if is_cancelled():
        raise Cancelled("the work was given up: its caller no longer waits for it")


def open_pipeline(bundle: Bundle, engine: Engine, owned: bool = False) -> Pipeline[Any, Any]:
    """The pipeline of the bundle's task.

    Args:
        bundle: an open bundle, which has to stay open.
        engine: what runs its programs.
        owned: whether the pipeline's `close` closes both.

    Raises:
        InputError: the task needs a package that is not installed.
    """
    task = TASKS[bundle.manifest.task]
    make = load_optional(task.pipeline, task.name, task.takes.extra)
    return cast(Pipeline[Any, Any], make(bundle, engine, owned))


def open_program_pipeline(bundle: Bundle, engine: Engine, owned: bool = False) -> ProgramPipeline[Any, Any]:
    """`open_pipeline` for those whose answer is one program's outputs.

    Raises:
        InputError: the bundle's task takes several programs to answer.
    """
    from edgeformer_runtime.pipelines.program import ProgramPipeline  # it imports this module

    pipeline = open_pipeline(bundle, engine, owned)
    if not isinstance(pipeline, ProgramPipeline):
        raise InputError(f"{bundle.manifest.task} runs several programs for an answer: expected a task that runs one")
    return pipeline
