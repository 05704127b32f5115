"""What `run` does once its bundle is open: options and inputs as the bundle's task takes them, and its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from edgeformer_runtime.bundle.folder import check_outside
from edgeformer_runtime.bundle.manifest import Manifest
from edgeformer_runtime.cli.console import err, out, print_json, print_text, progress_bar
from edgeformer_runtime.cli.tables import answers_table
from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.delivery import check_names
from edgeformer_runtime.errors import EdgeFormerError, InputError
from edgeformer_runtime.pipelines import Pipeline
from edgeformer_runtime.pipelines.results import Result
from edgeformer_runtime.pipelines.speech import Transcriber
from edgeformer_runtime.pipelines.transcript import ALIASES, FORMATS, SubtitleLines, Transcript, render, write
from edgeformer_runtime.registry import check_choice, load_attribute
from edgeformer_runtime.tasks.task import TASKS

DEFAULT_TOP = 3
STDIN = "-"
CLIPPED_SHARE = 0.05
"""Of samples at full scale: peaks of loud speech are far fewer, and words get lost from here on."""
ANSWER_OPTIONS = (
    *(
        "--unanswerable",
        "--aggregation",
        "--targets",
        "--labels",
        "--template",
        "--multi-label",
        "--query",
    ),
    *("--max-tokens", "--temperature", "--top-k", "--top-p", "--repetition-penalty", "--stop", "--seed", "--suggest"),
    *("--special-tokens", "--chat"),
)
"""Which belong to a kind of answers and not of inputs."""


@dataclass(frozen=True)
class RunOptions:
    """The options of `run` as they were given, or their defaults. Each fits some kinds of input only."""

    pair: str | None = None
    token_ids: bool = False
    top: int | None = None
    language: str | None = None
    task: str | None = None
    beam_size: int | None = None
    timestamps: bool | None = None
    words: bool = False
    vad: bool = False
    hotwords: str | None = None
    clip_timestamps: str | None = None
    max_line_width: int | None = None
    max_line_count: int | None = None
    prompt: str | None = None
    file_format: str | None = None
    folder: Path | None = None
    file: str | None = None
    column: str | None = None
    pair_column: str | None = None
    unanswerable: bool = False
    aggregation: str | None = None
    targets: str | None = None
    labels: str | None = None
    template: str | None = None
    multi_label: bool = False
    query: str | None = None
    texts: bool = False
    threshold: float | None = None
    masks: Path | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    stop: list[str] | None = None
    seed: int | None = None
    special_tokens: bool = False
    chat: bool = False
    suggest: int | None = None

    def __post_init__(self) -> None:
        check_names(self.folder)
        check_names(self.masks)

    def given(self) -> dict[str, bool]:
        """For each option whether it was given."""
        spelled = {"file_format": "--format", "folder": "--out", "file": "--input"}
        return {
            spelled.get(field.name, "--" + field.name.replace("_", "-")): getattr(self, field.name) != field.default
            for field in fields(self)
        }


Run = Callable[[Pipeline[Any, Any], Sequence[str], RunOptions, bool], None]
"""What a kind of input has for `run`: pipeline, inputs, options, and whether JSON is wanted."""


def answer_inputs(pipeline: Pipeline[Any, Any], inputs: Sequence[str], options: RunOptions, as_json: bool) -> None:
    """Answer inputs and print the answers.

    Raises:
        InputError: an option does not fit what the bundle takes, or an input cannot be used.
    """
    _check_options(pipeline.bundle.manifest, inputs, options)
    run: Run = load_attribute(TASKS[pipeline.bundle.manifest.task].takes.run)
    run(pipeline, inputs, options, as_json)


def _check_options(manifest: Manifest, inputs: Sequence[str], options: RunOptions) -> None:
    task = TASKS[manifest.task]
    takes, known = task.takes, (*task.takes.options, *task.gives.run_options)
    given = options.given() | {STDIN: STDIN in inputs}
    for option, is_given in given.items():
        if is_given and option not in known:
            raise InputError(
                f"{manifest.name} takes {takes.takes}, found {option}"
                if option not in ANSWER_OPTIONS
                else f"{manifest.name} does {manifest.task}, which has no {option}"
            )
    if not inputs and options.file is None:
        raise InputError(f"expected {takes.asks_for}")


def run_files(pipeline: Pipeline[Any, Any], inputs: Sequence[str], options: RunOptions, as_json: bool) -> None:
    """`run` of inputs that are paths of files; of segmented images, each mask in a file of its own."""
    stems = [] if options.masks is None else _targets_in(options.masks, inputs, "", "--masks")
    results = answer_all(pipeline, inputs, inputs, options, as_json)
    for stem, result in zip(stems, results, strict=False):
        stem.parent.mkdir(parents=True, exist_ok=True)
        shown = result if options.top is None else result.top(options.top)
        for segment in shown.segments:
            segment.write(stem.with_name(f"{stem.name}.{segment.file_name}"))


def run_images_or_texts(
    pipeline: Pipeline[Any, Any], inputs: Sequence[str], options: RunOptions, as_json: bool
) -> None:
    """`run` of inputs that are paths of images, or all texts."""
    answer_all(pipeline, inputs, [{"text": text} for text in inputs] if options.texts else inputs, options, as_json)


def answer_all(
    pipeline: Pipeline[Any, Any], given: Sequence[str], raws: Sequence[Any], options: RunOptions, as_json: bool
) -> list[Any]:
    """Answer raw inputs, which were given as texts, print a table or JSON, and give what was found."""
    results: list[Any] = []
    with progress_bar("running") as report:
        for result in answer_each(pipeline, raws, options):
            if isinstance(result, EdgeFormerError):
                raise result
            results.append(result)
            report(len(results), len(raws))
    for index, result in enumerate(results):
        if result.truncated:
            err.print(f"note: input {index} was too long for the bundle and lost its end")
    if as_json:
        answers = [best_of(pipeline, result, options) for result in results]
        print_json([{"input": raw} | answer for raw, answer in zip(raws, answers, strict=True)])
    else:
        gives = TASKS[pipeline.bundle.manifest.task].gives
        out.print(answers_table(given, results, gives, options.top or DEFAULT_TOP))
    return results


def answer_each(pipeline: Pipeline[Any, Any], raws: Sequence[Any], options: RunOptions) -> Iterator[Any]:
    """`Pipeline.answer_each` with options of the call where the task's answers have some."""
    return pipeline.answer_each(raws, TASKS[pipeline.bundle.manifest.task].gives.call_options(options))


def best_of(pipeline: Pipeline[Any, Any], result: Result, options: RunOptions) -> dict[str, Any]:
    """A result's JSON, with its best parts alone where their number was given."""
    if options.top is not None:
        result = TASKS[pipeline.bundle.manifest.task].gives.best(result, options.top)
    return result.to_json()


def run_audio(transcriber: Any, inputs: Sequence[str], options: RunOptions, as_json: bool) -> None:
    """Transcribe files to the terminal, or to files in a folder."""
    file_format = options.file_format or "txt"
    targets = _targets(inputs, options, file_format, as_json)
    asked = TranscribeOptions(
        language=options.language,
        task=options.task or "transcribe",
        beam_size=options.beam_size or 1,
        timestamps=options.timestamps is not False,
        word_timestamps=options.words,
        initial_prompt=options.prompt,
        vad_filter=options.vad,
        hotwords=options.hotwords,
        clip_timestamps=_seconds(options.clip_timestamps),
    )
    default = SubtitleLines()
    lines = SubtitleLines(
        options.max_line_width or default.max_line_width, options.max_line_count or default.max_line_count
    )
    documents = []
    for name, target in zip(inputs, targets, strict=True):
        transcript = _with_progress(transcriber, name, asked)
        _tell_doubts(name, transcript)
        if as_json:
            documents.append({"input": name} | transcript.to_json())
        elif target is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            write(transcript, target, lines)
            out.print(str(target))
        elif len(inputs) == 1:
            print_text(render(transcript, file_format, lines))
        else:
            out.print(f"{name}: {transcript.text}")
    if as_json:
        print_json(documents)


def _seconds(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(map(float, text.split(","))) if text else ()
    except ValueError:
        raise InputError(f"--clip-timestamps: expected seconds with commas, as 0,30,60,90, found {text!r}") from None


def _targets(inputs: Sequence[str], options: RunOptions, file_format: str, as_json: bool) -> list[Path] | list[None]:
    """The file that each transcript goes to, or None for each."""
    check_choice(file_format, FORMATS, "--format", ALIASES)
    if as_json and (options.file_format or options.folder):
        raise InputError("--json excludes --format and --out: use --format json to write files")
    if options.folder is None:
        if len(inputs) > 1 and file_format != "txt":
            raise InputError(f"--format {file_format} of {len(inputs)} files needs a folder for them: give --out")
        return [None] * len(inputs)
    return _targets_in(options.folder, inputs, f".{file_format}", "--out")


def _targets_in(folder: Path, inputs: Sequence[str], suffix: str, option: str) -> list[Path]:
    """A file for each input, by the start of its name, in the folder that an option names."""
    check_outside(folder)
    targets = [folder / f"{Path(name).stem}{suffix}" for name in inputs]
    twice = next((target for target in targets if targets.count(target) > 1), None)
    if twice is not None:
        raise InputError(f"{option}: two inputs would be written to {twice}: give them one at a time")
    return targets


def _tell_doubts(name: str, transcript: Transcript) -> None:
    """Say on stderr where the text is the best that was found, and still improbable, repetitive or of clipped audio."""
    cost = transcript.statistics
    if cost is not None and cost.clipped > CLIPPED_SHARE:
        err.print(f"note: {name}: {cost.clipped:.0%} of its samples are at full scale: record it at a lower level")
    doubtful = [segment for segment in transcript.segments if segment.doubtful]
    if doubtful:
        times = ", ".join(f"{segment.start:.1f} to {segment.end:.1f} s" for segment in doubtful)
        err.print(
            f"note: {name}: doubtful at {times}: no attempt gave a probable text there that does not repeat itself, and"
            " this is the best"
        )


def _with_progress(transcriber: Transcriber, name: str, options: TranscribeOptions) -> Transcript:
    with progress_bar("transcribing, seconds") as report:

        def show(done: float, total: float | None) -> None:
            report(round(done), round(max(done, total or done)))

        return transcriber.run(name, options, show)
