"""The training loop of every step: one objective, one corpus, any number of processes.

Everything random is drawn from generators that are seeded by (seed, step, update), never by what went before. So a run
that goes on from a saved state draws what an uninterrupted one would have drawn.

Processes share each batch: every one takes each n-th row and divides by the counts of the whole batch, so that their
gradients add up to those of one process.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from safetensors import SafetensorError
from torch import Tensor, nn

from edgeformer.compress.corpus import Batch, Corpus, shuffled_rows
from edgeformer.compress.objective import Counts, Objective, answer, counts_of
from edgeformer.compress.prune import SCORES_LEARNING_RATE, ZeroKeeper
from edgeformer.compress.recipe import Training
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.interface import Progress

T = TypeVar("T")

_SMOOTHING = 0.98
"""Of the loss that is shown: about the last fifty updates."""

_PREDICTION_BATCH = 128


def open_accelerator(mixed_precision: str = "no") -> Accelerator:
    """The processes and devices that a command trains on.

    Args:
        mixed_precision: "no", "bf16" or "fp16".

    Raises:
        InputError: the device does not compute in it.
    """
    # Its state outlives it and refuses another precision, which the next training of this process may ask for; there
    # is no public way to forget it.
    AcceleratorState._reset_state()
    # Not every parameter has a gradient in every update: MobileBERT keeps some that its config does not use.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    accelerator = Accelerator(mixed_precision=mixed_precision, kwargs_handlers=[unused])
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise InputError('mixed_precision = "fp16" needs an accelerator: expected "bf16" or "no" on a CPU')
    return accelerator


@dataclass(frozen=True)
class Run:
    """What the steps of one command share.

    Attributes:
        accelerator: of all processes.
        progress: for people.
        seed: of every random number.
        folder: where unfinished work is kept.
        checkpoint_seconds: from one saved state to the next.
    """

    accelerator: Accelerator
    progress: Progress
    seed: int
    folder: Path
    checkpoint_seconds: float

    def generator(self, *purpose: int | str) -> torch.Generator:
        """Random numbers for a purpose, the same ones whenever it is asked for."""
        digest = hashlib.sha256(repr((self.seed, *purpose)).encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))

    def say(self, line: str) -> None:
        """Tell a line once, whatever the number of processes."""
        self.at(line, 0, 0)

    def at(self, step: str, finished: int, total: int) -> None:
        """Tell how far a step is, once, whatever the number of processes."""
        if self.accelerator.is_main_process:
            self.progress(step, finished, total)


@dataclass(frozen=True)
class Trained:
    """What a training was: its number of updates, and the running loss at the end."""

    updates: int
    loss: float


class Companion(Protocol):
    """What goes along with a training, update by update."""

    def before_update(self, update: int, updates: int) -> None:
        """An update, counted from 0, is about to begin."""

    def after_update(self, update: int, updates: int) -> None:
        """The weights have been changed."""

    def finish(self) -> None:
        """That was the last one."""


def train(
    objective: Objective,
    corpus: Corpus,
    training: Training,
    run: Run,
    step: str,
    companion: Companion | None = None,
) -> Trained:
    """Minimise an objective. A state that was saved under the same step is resumed.

    Args:
        objective: its student is trained in place.
        corpus: what it learns from.
        training: how.
        run: where, and with which seed.
        step: the step's name, for states, random numbers and people.
        companion: goes along, as one that sets weights to zero; what it keeps itself is in no saved state.

    Raises:
        InputError: the loss is no longer a number, or a state cannot be written.
    """
    accelerator = run.accelerator
    said = _teacher_says(objective, corpus, run, step)
    plan = _Plan(corpus.lengths, training, run, step)
    keeper = ZeroKeeper(objective.student) if training.keep_zeros else None
    loop = _Loop(objective, corpus, training, run, said)
    states = TrainingStates(run.folder / f"training-{step}", accelerator)
    begun, running = states.restore() or (0, math.nan)
    saved_at = time.monotonic()
    for update in range(begun, plan.updates):
        if companion is not None:
            companion.before_update(update, plan.updates)
        rng = run.generator(step, update, accelerator.process_index)
        part = loop.update(plan.rows(update), plan.factor(update), rng)
        if keeper is not None:
            keeper.restore()
        if companion is not None:
            companion.after_update(update, plan.updates)
        loss, save = _agree(accelerator, part, time.monotonic() - saved_at > run.checkpoint_seconds)
        if not math.isfinite(loss):
            raise InputError(
                f"{step}: the loss is {loss} after {update + 1} of {plan.updates} updates: expected a number; "
                f"lower learning_rate (now {training.learning_rate:g}), or clip the gradient with clip_norm"
            )
        running = loss if math.isnan(running) else _SMOOTHING * running + (1 - _SMOOTHING) * loss
        run.at(f"{step}: loss {running:.4f}", update + 1, plan.updates)
        if plan.ends_epoch(update):
            run.say(f"{step}: epoch {plan.epoch(update) + 1} of {training.epochs}, loss {running:.4f}")
        if save and update + 1 < plan.updates:
            states.save(update + 1, running)
            saved_at = time.monotonic()
    accelerator.wait_for_everyone()
    accelerator.free_memory()
    if companion is not None:
        companion.finish()
    objective.student.eval()
    return Trained(plan.updates, running)


def _agree(accelerator: Accelerator, loss: Tensor, due: bool) -> tuple[float, bool]:
    """The loss of the whole batch, and whether a state is due by the main process's clock: the same for all."""
    both = torch.stack([loss, loss.new_tensor(due and accelerator.is_main_process)])
    total, save = accelerator.reduce(both, "sum").tolist()
    return total, bool(save)


def clear_states(run: Run, step: str) -> None:
    """Forget a step's saved states, once its result is on disk."""
    TrainingStates(run.folder / f"training-{step}", run.accelerator).clear()


@torch.no_grad()
def accuracy(module: nn.Module, corpus: Corpus, run: Run, title: str) -> float:
    """Share of the known answers (labels, or tokens of speech given those before) that are the likeliest."""
    right = known = 0
    module.eval().to(run.accelerator.device)
    rows = torch.split(corpus.lengths.argsort(stable=True), _PREDICTION_BATCH)
    for chosen in _track(rows, run, title):
        batch = _to(corpus.batch(chosen, run.generator(title)), run.accelerator.device)
        best = answer(module, batch.student).argmax(dim=-1)
        right += int((best == batch.targets).sum())
        known += int((batch.targets >= 0).sum())
    return right / max(1, known)


class _Loop:
    """Objective and optimizer as the accelerator prepared them, and one update of both."""

    def __init__(self, objective: Objective, corpus: Corpus, training: Training, run: Run, said: Tensor | None) -> None:
        self._accelerator, self._corpus, self._said, self._clip_norm = run.accelerator, corpus, said, training.clip_norm
        optimizer: Any = torch.optim.AdamW(_parameter_groups(objective, training))
        self._objective, self._optimizer = self._accelerator.prepare(objective, optimizer)
        self._objective.train()
        if objective.teacher is not None:
            objective.teacher.eval()

    def update(self, rows: Tensor, factor: float, rng: torch.Generator) -> Tensor:
        """Learn from this process's rows at a share of the learning rate; gives its part of the loss."""
        accelerator = self._accelerator
        batch = _to(self._corpus.batch(rows, rng), accelerator.device)
        said = None if self._said is None else self._said[rows].to(accelerator.device)
        counts = Counts(*accelerator.reduce(counts_of(batch.targets), "sum").unbind())
        loss: Tensor = self._objective(batch.student, batch.teacher, batch.targets, said, counts)
        for group in self._optimizer.param_groups:
            group["lr"] = group["largest_lr"] * factor
        # Processes average their gradients, and the sum is wanted.
        accelerator.backward(loss * accelerator.num_processes)
        if self._clip_norm:
            accelerator.clip_grad_norm_(self._objective.parameters(), self._clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return loss.detach()


class _Plan:
    """The rows of every update, and the learning rate's course."""

    def __init__(self, lengths: Tensor, training: Training, run: Run, step: str) -> None:
        self._lengths, self._training, self._run, self._step = lengths, training, run, step
        self._per_epoch = math.ceil(len(lengths) / training.batch_size)
        self.updates = training.epochs * self._per_epoch
        self._order: tuple[int, list[Tensor]] = (-1, [])
        if len(lengths) < run.accelerator.num_processes:
            raise InputError(f"{len(lengths)} examples are too few for {run.accelerator.num_processes} processes")

    def rows(self, update: int) -> Tensor:
        """This process's rows of an update; all of them where there are fewer rows than processes."""
        epoch = self.epoch(update)
        if self._order[0] != epoch:
            rng = self._run.generator(self._step, "order", epoch)
            self._order = (epoch, shuffled_rows(self._lengths, self._training.batch_size, rng))
        rows = self._order[1][update % self._per_epoch]
        shares, own = self._run.accelerator.num_processes, self._run.accelerator.process_index
        return rows if len(rows) < shares else rows[own::shares]

    def epoch(self, update: int) -> int:
        """Counted from 0."""
        return update // self._per_epoch

    def ends_epoch(self, update: int) -> bool:
        """Whether an update is its epoch's last."""
        return (update + 1) % self._per_epoch == 0

    def factor(self, update: int) -> float:
        """Share of the largest learning rate."""
        warmup = round(self._training.warmup * self.updates)
        if update < warmup:
            return (update + 1) / warmup
        done = (update - warmup) / max(1, self.updates - warmup)
        courses = {"linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done)), "constant": 1.0}
        return courses[self._training.schedule]


def _parameter_groups(objective: nn.Module, training: Training) -> list[dict[str, Any]]:
    """Matrices decay; norms, biases and position biases do not; movement's scores have a rate of their own."""
    matrices, others, scores = [], [], []
    for name, parameter in objective.named_parameters():
        if name.endswith(".scores"):
            scores.append(parameter)
        elif parameter.dim() > 1 and "attention_biases" not in name:
            matrices.append(parameter)
        else:
            others.append(parameter)
    rate = training.learning_rate
    groups = (
        (matrices, rate, training.weight_decay),
        (others, rate, 0.0),
        (scores, SCORES_LEARNING_RATE, 0.0),
    )
    return [
        {"params": params, "lr": largest, "largest_lr": largest, "weight_decay": decay}
        for params, largest, decay in groups
        if params
    ]


@torch.no_grad()
def _teacher_says(objective: Objective, corpus: Corpus, run: Run, step: str) -> Tensor | None:
    """A teacher's logits (N, L) for all rows, once, where they are the same in each epoch and nothing else is asked."""
    accelerator = run.accelerator
    teacher = objective.teacher
    if teacher is None:
        return None
    teacher.eval().to(accelerator.device)
    one = corpus.batch(torch.tensor([0]), run.generator(step))
    if not corpus.fixed or objective.loss.looks_inside or one.targets.dim() > 1:
        return None
    order = corpus.lengths.argsort(stable=True)
    count, shares = len(order), accelerator.num_processes
    padded = torch.cat([order, order[: -count % shares]])
    own = padded[accelerator.process_index :: shares]
    answers = []
    for rows in _track(torch.split(own, _PREDICTION_BATCH), run, f"{step}: teacher"):
        batch = _to(corpus.batch(rows, run.generator(step)), accelerator.device)
        answers.append(answer(teacher, batch.teacher).float())
    gathered = accelerator.gather(torch.cat(answers)).cpu()  # process by process
    by_length = gathered.reshape(shares, len(own), -1).transpose(0, 1).flatten(0, 1)[:count]
    said = torch.empty_like(by_length)
    said[order] = by_length
    return said


def _track(batches: tuple[Tensor, ...], run: Run, title: str) -> Iterator[Tensor]:
    for finished, batch in enumerate(batches, 1):
        yield batch
        run.at(title, finished, len(batches))


def _to(batch: Batch, device: torch.device) -> Batch:
    """The same on a device; the rows stay."""
    student, teacher = (tuple(each.to(device) for each in inputs) for inputs in (batch.student, batch.teacher))
    return Batch(batch.rows, student, teacher, batch.targets.to(device))


# The state of a training run on disk: complete or not there, whenever the process is killed.


_PROGRESS_FILE = "progress.json"
_UNFINISHED = ".unfinished"


class TrainingStates:
    """States of one step's training, in `<folder>/<update>`; each is written beside its name and then renamed."""

    def __init__(self, folder: Path, accelerator: Accelerator) -> None:
        self._folder = folder
        self._accelerator = accelerator

    def save(self, update: int, loss: float) -> None:
        """Keep model, optimizer, scaler and random numbers before the update `update`; older states go."""
        unfinished = self._folder / f"{update}{_UNFINISHED}"
        with writing(self._folder):
            if self._accelerator.is_main_process:
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir(parents=True)
            self._accelerator.wait_for_everyone()
            self._accelerator.save_state(str(unfinished))
            self._accelerator.wait_for_everyone()
            if self._accelerator.is_main_process:
                (unfinished / _PROGRESS_FILE).write_text(json.dumps({"loss": loss}), encoding="utf-8")
                unfinished.rename(self._folder / str(update))
                self._drop_all_but(update)
        self._accelerator.wait_for_everyone()

    def restore(self) -> tuple[int, float] | None:
        """Load the newest state into what the accelerator prepared: (its update, its running loss), or None."""
        updates = [int(path.name) for path in self._folder.glob("*") if path.name.isdecimal()]
        if not updates:
            return None
        newest = self._folder / str(max(updates))
        self._accelerator.load_state(str(newest))
        progress = json.loads((newest / _PROGRESS_FILE).read_text(encoding="utf-8"))
        return max(updates), float(progress["loss"])

    def clear(self) -> None:
        """The step is finished."""
        self._accelerator.wait_for_everyone()
        if self._accelerator.is_main_process:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _drop_all_but(self, update: int) -> None:
        for path in self._folder.iterdir():
            if path.name != str(update):
                shutil.rmtree(path, ignore_errors=True)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn a disk that is full, or forbids writing, into one line."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        # torch and safetensors wrap the system's error in ones of their own.
        text = str(error)
        of_files = isinstance(error, OSError | SafetensorError) or "file" in text or "PytorchStreamWriter" in text
        if not of_files:
            raise
        reason = getattr(error, "strerror", None) or (text.strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"cannot write to {folder.parent}: {reason}; make room there (the run is kept, --resume goes on with it)"
        ) from None
