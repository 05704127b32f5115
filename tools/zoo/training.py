"""Batches, optimiser schedule and progress shared by the zoo's training runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from edgeformer.compress.batches import Batch, Encoded, shuffled_rows


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


def shuffled_batches(data: Encoded, batch_size: int) -> Iterator[Batch]:
    """One epoch in random order, in batches of similar length."""
    return (data.batch(rows) for rows in shuffled_rows(data.lengths, batch_size))


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
