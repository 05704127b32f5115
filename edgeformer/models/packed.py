"""Several short texts in one row of a text model, so that one run answers all of them.

Each text has its own positions, from 0 on, and sees itself alone: answers are those of one run for each but for
rounding. A call reads all weights, whatever the length, and no position is spent on padding. Rows are packed by
`edgeformer_runtime.pipelines.program`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeformer.attention.kernels import additive_mask
from edgeformer.models.family import Program
from edgeformer.models.pooling import CLS, MEAN
from edgeformer.models.text import TextModel
from edgeformer_runtime.bundle.manifest import TensorSpec
from edgeformer_runtime.tasks.programs import PACKED_PROGRAM

LONGEST_ROW = 128
"""Positions of a row, at most: in longer ones attention to what is hidden costs more than it saves."""
LEAST_GAIN = 4
"""Texts of the shortest bucket that a row has to hold, at least, to be worth a program."""
SHORT_TEXT = 4
"""A row takes as many texts as it has room for of so many tokens: a word and the special ones around it."""


class PackedTexts(nn.Module):
    """A text model over a row of several texts."""

    def __init__(self, task: TextModel) -> None:
        super().__init__()
        self.task = task

    def forward(
        self, input_ids: Tensor, position_ids: Tensor, texts: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor]:
        """Answer all texts of a row.

        Args:
            input_ids, position_ids, token_type_ids: (1, S) int32; positions start at 0 in each text.
            texts: (1, N, S) float32: 1 where a position is of a text.

        Returns:
            (N, D) float32 where a text has one vector, zeros or a bias of what is no text; else (1, S, D).
        """
        encoder = self.task.encoder
        same = torch.bmm(texts.transpose(1, 2), texts)  # (1, S, S): 1 where two positions are of one text
        bias = additive_mask(same[0], encoder.mask_value).reshape(1, 1, *same.shape[1:])
        hidden = encoder.encoder(encoder.embeddings(input_ids, token_type_ids, position_ids), bias, all_tokens=True)
        return (self.task.head(self._pooled(hidden, position_ids, texts)),)

    def _pooled(self, hidden: Tensor, position_ids: Tensor, texts: Tensor) -> Tensor:
        """hidden (1, S, C) to (N, C), or as it is where nothing is pooled."""
        if self.task.pooling is None:
            return hidden
        if self.task.pooling == MEAN:
            weights = texts / texts.sum(dim=2, keepdim=True).clamp(min=1.0)
        else:
            weights = texts * F.relu(1.0 - position_ids.float())[:, None]  # the first token of each
        return torch.bmm(weights, hidden)[0]


def packed_program(programs: tuple[Program, ...]) -> Program | None:
    """The program for several texts in a row, of the programs of a text model's buckets, shortest first.

    None: its embeddings have no positions to give, it pools otherwise than the programs here or takes more than a text,
    or its lengths are too much alike for rows to gain anything.
    """
    lengths = [program.inputs[0].shape[1] for program in programs]
    length = max((each for each in lengths if each <= LONGEST_ROW), default=0)
    longest, module = programs[-1], programs[-1].module
    if not isinstance(module, TextModel) or not module.encoder.takes_positions or length < LEAST_GAIN * lengths[0]:
        return None
    if module.more_inputs or module.pooling not in (None, CLS, MEAN):
        return None
    count = length // SHORT_TEXT
    ids, positions, types = (
        TensorSpec(name, "int32", (1, length)) for name in ("input_ids", "position_ids", "token_type_ids")
    )
    has_types = any(spec.name == types.name for spec in longest.inputs)
    shape = module.output_shape(length)
    return Program(
        name=PACKED_PROGRAM,
        module=PackedTexts(module).eval(),
        inputs=(ids, positions, TensorSpec("texts", "float32", (1, count, length)), *([types] if has_types else [])),
        outputs=(TensorSpec(module.output_name, "float32", shape if module.pooling is None else (count, shape[-1])),),
        calibration=tuple(_alone_in_a_row(longest, values, length, count) for values in longest.calibration),
        calibration_method=longest.calibration_method,
        layer_formats={f"task.{name}": each for name, each in longest.layer_formats.items()},
    )


def _alone_in_a_row(program: Program, values: tuple[Tensor, ...], length: int, count: int) -> tuple[Tensor, ...]:
    """A bucket's inputs as the packed program takes them."""
    given = {spec.name: value[:, :length] for spec, value in zip(program.inputs, values, strict=True)}
    room = length - given["input_ids"].shape[1]
    ids, mask, *types = (F.pad(each, (0, room)) for each in given.values())
    texts = torch.zeros(1, count, length)
    texts[0, 0] = mask[0].float()
    return (ids, torch.arange(length, dtype=torch.int32) * mask, texts, *types)
