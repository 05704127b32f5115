"""What `convert` is asked for, refused before anything is loaded where it makes no sense."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgeformer.attention import ALL_KERNELS
from edgeformer.convert.lengths import Budget
from edgeformer.convert.target import TARGETS, Target, check_precision, check_target
from edgeformer.models.family import (
    METHODS,
    MIN_MAX,
    POSITIONS_PER_SECOND,
    TAIL_WINDOW,
    WINDOWS,
    ProgramOptions,
)
from edgeformer.tasks.task import TASKS, check_task
from edgeformer_runtime.bundle.specs import SHORTEST_TEXT
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.interface import OptionalPathField, PathField, TextField
from edgeformer_runtime.registry import check_choice

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
LONGEST_WINDOW_SECONDS = 30
"""Whisper's window."""


MAX_JOBS = 64


@dataclass(frozen=True)
class ConvertOptions:
    """What `convert` is asked for.

    Attributes:
        name: None: after the source.
        seq_lens: of texts: the tokens of each program; None: the target's own choice, as far as the checkpoint goes. Of
            generated text: the slots of each cache, prompt and answer together.
        lengths_from: of texts: a file of them, .csv, .tsv, .jsonl or .txt, for whose lengths programs are chosen.
        lengths_column: its column of texts; None: "text", "sentence" or the only one.
        lengths_budget: what those lengths may cost, as `Budget.parse` takes it; None: as many as the target's own.
        attention: None: the target's own kernel. An approximate one makes another model, which only texts have.
        calibration: inputs as the app will meet them: a folder of images or recordings, or a table or .txt of texts.
            static-int8 needs it, and all int8 and int4 weights are rounded for it.
        calibration_method: how static-int8 takes ranges from it, one of `METHODS`.
        evaluation: labelled data, as `eval` takes them: classifiers are judged on them, and their accuracy before and
            after is told.
        keep_refused: what a gate refused is written, too, marked so that it is not loaded by mistake.
        plan: of the precision mixed: a JSON file of formats by layer; None: the one in the checkpoint.
        window: of speech: "tail" or "full"; see `ProgramOptions`.
        audio_seconds: of speech: the longest audio of each bucket; None: the target's own choice. The model's whole
            window is always among them. Of recordings that are classified: the longest of each program.
        prompt: of an embedder: the name of the checkpoint's prompt that is put before every text, or "none".
        language: of speech: the one that the bundle transcribes, by its code or English name, or "any"; None: the one
            that the checkpoint fixes, or all.
        min_ios: of Core ML: the oldest release of iOS to run on; None: the newest that the converter knows.
        jobs: how many targets are converted at the same time, each in a process of its own.
    """

    source: TextField = TextField()  # noqa: RUF009 (a descriptor)
    out: PathField = PathField()  # noqa: RUF009
    targets: tuple[str, ...] = ("litert",)
    precisions: tuple[str, ...] = ("fp32",)
    seq_lens: tuple[int, ...] | None = None
    task: str | None = None
    name: str | None = None
    labels_file: OptionalPathField = OptionalPathField()  # noqa: RUF009
    revision: str | None = None
    attention: str | None = None
    calibration: OptionalPathField = OptionalPathField()  # noqa: RUF009
    calibration_method: str = MIN_MAX
    evaluation: str | None = None
    keep_refused: bool = False
    plan: OptionalPathField = OptionalPathField()  # noqa: RUF009
    zipped: bool = False
    window: str = TAIL_WINDOW
    audio_seconds: tuple[float, ...] | None = None
    min_ios: int | None = None
    prompt: str | None = None
    language: str | None = None
    jobs: int = 1
    lengths_from: OptionalPathField = OptionalPathField()  # noqa: RUF009
    lengths_column: str | None = None
    lengths_budget: str | None = None

    def __post_init__(self) -> None:
        for target in self.targets:
            check_target(target)
        for precision in self.precisions:
            check_precision(precision)
        _check_pairs(self.targets, self.precisions)
        check_task(self.task)
        if self.attention is not None:
            check_choice(self.attention, ALL_KERNELS, "attention kernel")
        check_choice(self.window, WINDOWS, "window")
        check_choice(self.calibration_method, METHODS, "calibration method")
        if self.seq_lens is not None and not (self.seq_lens and min(self.seq_lens) >= SHORTEST_TEXT):
            raise InputError(f"expected sequence lengths of at least {SHORTEST_TEXT}, found {list(self.seq_lens)}")
        if self.lengths_from is not None and self.seq_lens is not None:
            raise InputError("--lengths-from chooses the lengths: leave --seq-len out")
        if self.lengths_column is not None and self.lengths_from is None:
            raise InputError("--column names the texts of --lengths-from: give that, too")
        if self.lengths_budget is not None:
            if self.lengths_from is None:
                raise InputError("--lengths-budget limits the lengths of --lengths-from: give that, too")
            Budget.parse(self.lengths_budget)
            for target in self.targets:
                if TARGETS[target].length_cost is None:
                    raise InputError(f"--lengths-budget: what a length costs in {target} is not known: leave it out")
        seconds = self.audio_seconds
        if seconds is not None and not (seconds and all(0 < each <= LONGEST_WINDOW_SECONDS for each in seconds)):
            raise InputError(
                f"expected lengths of audio above 0 and up to {LONGEST_WINDOW_SECONDS} seconds, found {list(seconds)}"
            )
        if self.plan is not None and "mixed" not in self.precisions:
            raise InputError(
                f"--plan is for the precision mixed, found {', '.join(self.precisions)}: add --precision mixed"
            )
        if self.calibration is None and "static-int8" in self.precisions:
            raise InputError(
                "static-int8 needs calibration: give --calibration, a folder of images or audio, or a table of texts"
            )
        if self.calibration_method != MIN_MAX and "static-int8" not in self.precisions:
            raise InputError("--calibration-method is for static-int8, which has ranges: add --precision static-int8")
        for_ios = [TARGETS[target] for target in self.targets if TARGETS[target].ios_releases]
        if self.min_ios is not None and not for_ios:
            raise InputError(
                f"--min-ios is for the target coreml, found {', '.join(self.targets)}: add --target coreml"
            )
        for each in for_ios:
            if self.min_ios is not None:
                each.check_ios(self.min_ios)
        if not 1 <= self.jobs <= MAX_JOBS:
            raise InputError(f"--jobs: expected 1 to {MAX_JOBS}, found {self.jobs}")
        if self.name is not None and not NAME.fullmatch(self.name):
            raise InputError(f"expected a name of letters, digits, '.', '_' and '-', found {self.name!r}")

    def check_for(self, task: str) -> None:
        """Refuse options that belong to another task than the checkpoint's, which would change nothing.

        Raises:
            InputError: names them.
        """
        for given, takes, options, them in (
            (self.window != TAIL_WINDOW, ("audio",), "--window is for speech", "it"),
            (self.audio_seconds is not None, ("audio", "recording"), "--audio-seconds is for audio", "it"),
            (self.lengths_from is not None, ("text",), "--lengths-from is for texts", "it"),
        ):
            if given and TASKS[task].takes not in takes:
                raise InputError(f"{options}, and the task is {task}: leave {them} out")

    def programs_for(self, target: Target) -> ProgramOptions:
        """What a family is asked for on behalf of a target."""
        seconds = {*(self.audio_seconds or target.audio_seconds), LONGEST_WINDOW_SECONDS}
        lengths = target.seq_lens
        if self.min_ios is not None and self.min_ios < target.one_program_before_ios:
            lengths = lengths[-1:]
        return ProgramOptions(
            seq_lens=self.seq_lens or lengths,
            clip_seconds=self.audio_seconds or (),
            cache_lens=self.seq_lens or (),
            audio_positions=tuple(sorted({max(1, round(each * POSITIONS_PER_SECOND)) for each in seconds})),
            window=self.window,
            decoder_state=target.decoder_state,
            token_matmul=target.token_matmul,
        )


def _check_pairs(targets: Sequence[str], precisions: Sequence[str]) -> None:
    """Refuse precisions that a target does not have, all of them in one message."""
    found = (TARGETS[target].precision_problem(precision) for target in targets for precision in precisions)
    problems = [problem for problem in found if problem is not None]
    if problems:
        raise InputError("; ".join(problems))
