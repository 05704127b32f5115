"""Batches, optimiser schedule and progress shared by the zoo's training runs."""

from __future__ import annotations

import math
import random
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


def encode(tokenizer: Tokenizer, texts: Sequence[str], seq_len: int) -> list[list[int]]:
    """Token ids of each text, cut to seq_len with [SEP] kept."""
    rows = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    return [ids if len(ids) <= seq_len else [*ids[: seq_len - 1], ids[-1]] for ids in rows]


def make_batch(rows: Sequence[int], ids: Sequence[Sequence[int]]) -> Batch:
    """Pad the given rows with 0 to the longest of them."""
    seq_len = max(len(ids[row]) for row in rows)
    input_ids = torch.zeros(len(rows), seq_len, dtype=torch.int32)
    mask = torch.zeros_like(input_ids)
    for i, row in enumerate(rows):
        input_ids[i, : len(ids[row])] = torch.tensor(ids[row], dtype=torch.int32)
        mask[i, : len(ids[row])] = 1
    return Batch(torch.tensor(rows), input_ids, mask, torch.zeros_like(input_ids))


def shuffled_batches(ids: Sequence[Sequence[int]], batch_size: int, rng: random.Random) -> Iterator[Batch]:
    """One epoch in random order, in batches of similar length."""
    order = list(range(len(ids)))
    rng.shuffle(order)
    window = batch_size * _SORT_WINDOW
    batches = []
    for start in range(0, len(order), window):
        rows = sorted(order[start : start + window], key=lambda row: len(ids[row]))
        batches += [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    rng.shuffle(batches)
    return (make_batch(rows, ids) for rows in batches)


@torch.inference_mode()
def predict(
    model: Callable[[Batch], Tensor], ids: Sequence[Sequence[int]], title: str, console: Console, batch_size: int = 128
) -> Tensor:
    """Logits (N, L) of every row, in the order of `ids`."""
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    logits: list[Tensor] = []
    with _progress(console) as progress:
        task = progress.add_task(title, total=math.ceil(len(ids) / batch_size), note="")
        for start in range(0, len(order), batch_size):
            logits.append(model(make_batch(order[start : start + batch_size], ids)))
            progress.advance(task)
    return torch.cat(logits)[torch.tensor(order).argsort()]


def accuracy(logits: Tensor, labels: Sequence[int]) -> float:
    """Share of rows whose largest logit is the label's."""
    return (logits.argmax(dim=1) == torch.tensor(labels)).float().mean().item()


def train(
    module: nn.Module,
    loss_of: Callable[[Batch], Tensor],
    ids: Sequence[Sequence[int]],
    schedule: Schedule,
    title: str,
    rng: random.Random,
    console: Console,
    after_step: Callable[[], None] | None = None,
) -> None:
    """Minimise `loss_of` over the rows of `ids`; `after_step` may restore what the optimiser must not change."""
    parameters = list(module.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=schedule.learning_rate)
    steps = schedule.epochs * math.ceil(len(ids) / schedule.batch_size)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule.factor(step, steps))
    running = None
    module.train()
    with _progress(console) as progress:
        task = progress.add_task(title, total=steps, note="")
        for _ in range(schedule.epochs):
            for batch in shuffled_batches(ids, schedule.batch_size, rng):
                loss = loss_of(batch)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(parameters, schedule.clip_norm)
                optimizer.step()
                scheduler.step()
                if after_step is not None:
                    after_step()
                running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
                progress.update(task, advance=1, note=f"loss {running:.3f}")
    module.eval()


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<26}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=console,
    )
