"""Batches, optimiser schedule and progress shared by the zoo's training runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import Tokenizer
from torch import Tensor, nn

_SORT_WINDOW = 32
"""Batches that are sorted by length together: little padding, and still a random order."""


@dataclass(frozen=True)
class Batch:
    """rows (B,) indices into the data; input_ids, attention_mask, token_type_ids (B, S) int32."""

    rows: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """The arguments of a text model's forward."""
        return self.input_ids, self.attention_mask, self.token_type_ids


@dataclass(frozen=True)
class Schedule:
    """AdamW with linear warm-up over a tenth of the steps and a cosine to zero."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.01
    clip_norm: float = 1.0

    def factor(self, step: int, steps: int) -> float:
        """Share of the learning rate at `step`."""
        warmup = max(1, steps // 10)
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


@dataclass(frozen=True)
class Encoded:
    """Token ids (N, S) int32, padded with 0, and the length (N,) int64 of each row."""

    ids: Tensor
    lengths: Tensor

    def batch(self, rows: Tensor) -> Batch:
        """The given rows, as short as the longest of them."""
        lengths = self.lengths[rows]
        input_ids = self.ids[rows, : int(lengths.max())]
        mask = (torch.arange(input_ids.shape[1]) < lengths[:, None]).int()
        return Batch(rows, input_ids, mask, torch.zeros_like(input_ids))


def encode(tokenizer: Tokenizer, texts: Sequence[str], seq_len: int) -> Encoded:
    """Token ids of each text, cut to seq_len with [SEP] kept."""
    rows = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    cut = [ids if len(ids) <= seq_len else [*ids[: seq_len - 1], ids[-1]] for ids in rows]
    padded = nn.utils.rnn.pad_sequence([torch.tensor(ids, dtype=torch.int32) for ids in cut], batch_first=True)
    return Encoded(padded, torch.tensor([len(ids) for ids in cut]))


def shuffled_batches(data: Encoded, batch_size: int) -> Iterator[Batch]:
    """One epoch in random order, in batches of similar length."""
    return (data.batch(rows) for rows in shuffled_rows(data.lengths, batch_size))


def shuffled_rows(lengths: Tensor, batch_size: int, rng: torch.Generator | None = None) -> list[Tensor]:
    """The row numbers of one epoch's batches: random order, similar length within a batch.

    Args:
        lengths: (N,) of the examples.
        batch_size: of each batch but perhaps one.
        rng: source of the order; None: torch's own.
    """
    batches: list[Tensor] = []
    for window in torch.split(torch.randperm(len(lengths), generator=rng), batch_size * _SORT_WINDOW):
        batches += torch.split(window[lengths[window].argsort(stable=True)], batch_size)
    return [batches[number] for number in torch.randperm(len(batches), generator=rng).tolist()]


@torch.no_grad()
def predict(
    model: Callable[[Batch], Tensor], data: Encoded, title: str, console: Console, batch_size: int = 128
) -> Tensor:
    """The model's output (N, L) for every row, in the order of the rows."""
    order = data.lengths.argsort(stable=True)
    out: list[Tensor] = []
    with progress_bar(console) as progress:
        task = progress.add_task(title, note="")
        for rows in progress.track(torch.split(order, batch_size), task_id=task):
            out.append(model(data.batch(rows)))
    return torch.cat(out)[order.argsort()]


def accuracy(logits: Tensor, labels: Sequence[int]) -> float:
    """Share of rows whose largest logit is the label's."""
    return (logits.argmax(dim=1) == torch.tensor(labels)).float().mean().item()


def train(
    module: nn.Module,
    loss_of: Callable[[Batch], Tensor],
    data: Encoded,
    schedule: Schedule,
    title: str,
    console: Console,
    after_step: Callable[[], None] | None = None,
) -> None:
    """Minimise `loss_of` over the rows of `data`; `after_step` may restore what the optimiser must not change."""
    parameters = list(module.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=schedule.learning_rate)
    steps = schedule.epochs * math.ceil(len(data.lengths) / schedule.batch_size)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule.factor(step, steps))
    running = math.nan
    module.train()
    with progress_bar(console) as progress:
        task = progress.add_task(title, total=steps, note="")
        for epoch in range(1, schedule.epochs + 1):
            for batch in shuffled_batches(data, schedule.batch_size):
                loss = loss_of(batch)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(parameters, schedule.clip_norm)
                optimizer.step()
                scheduler.step()
                if after_step is not None:
                    after_step()
                running = loss.item() if math.isnan(running) else 0.98 * running + 0.02 * loss.item()
                progress.update(task, advance=1, note=f"loss {running:.3f}")
            console.print(f"{title}: epoch {epoch} of {schedule.epochs}, loss {running:.3f}", highlight=False)
    module.eval()


def progress_bar(console: Console) -> Progress:
    """A bar with a note, such as the loss, and the remaining time; nothing where nobody watches a terminal."""
    return Progress(
        TextColumn("{task.description:<26}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
