"""Several short texts in one row of positions, answered by one run of a bundle's packed program.

Each text has positions from 0 on and sees itself alone, so answers are those of one run for each but for rounding. A
run reads all weights, however short its text is, and a bucket's padding costs as much as tokens do: of rows neither is
paid for. Rows are filled first-fit, longest text first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeformer_runtime.bundle.manifest import Manifest, ProgramSpec
from edgeformer_runtime.engines.base import Engine, Tensor
from edgeformer_runtime.records import dataclass

if TYPE_CHECKING:
    from edgeformer_runtime.pipelines.program import Prepared


def packed_program(manifest: Manifest, engine: Engine) -> ProgramSpec | None:
    """The program that takes several texts, where the bundle has one and the engine runs it."""
    packed = manifest.packed
    return packed if packed is not None and packed.name in getattr(engine, "programs", ()) else None


@dataclass(frozen=True)
class Row:
    """Texts that share a row: their numbers, and where each begins."""

    texts: tuple[int, ...]
    starts: tuple[int, ...]


def rows_of(windows: Sequence[Prepared], packed: ProgramSpec) -> Iterator[Row]:
    """Rows that are worth a run: the buckets of their texts have at least as many positions. Others go alone."""
    _, count, length = _shape(packed)
    tokens = [_tokens(window) for window in windows]
    filled: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(windows)), key=lambda each: -tokens[each]):
        for place, left in enumerate(room):
            if tokens[number] <= left and len(filled[place]) < count:
                filled[place].append(number)
                room[place] -= tokens[number]
                break
        else:
            if tokens[number] <= length:
                filled.append([number])
                room.append(length - tokens[number])
    for texts in filled:
        alone = sum(windows[number].inputs["attention_mask"].shape[1] for number in texts)
        if len(texts) > 1 and alone >= length:
            ends = np.cumsum([tokens[number] for number in texts])
            yield Row(tuple(texts), (0, *ends[:-1].tolist()))


def row_inputs(row: Row, windows: Sequence[Prepared], packed: ProgramSpec) -> dict[str, Tensor]:
    """What the packed program takes: the texts one behind the other, and which positions are whose."""
    inputs: dict[str, Tensor] = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in packed.inputs}
    texts = inputs["texts"]
    for place, (number, start) in enumerate(zip(row.texts, row.starts, strict=True)):
        given, tokens = windows[number].inputs, _tokens(windows[number])
        where = slice(start, start + tokens)
        for name in inputs.keys() & given.keys():
            inputs[name][0, where] = given[name][0, :tokens]
        inputs["position_ids"][0, where] = np.arange(tokens)
        texts[0, place, where] = 1
    return inputs


def row_outputs(
    row: Row, outputs: Mapping[str, Tensor], windows: Sequence[Prepared]
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Each text's number and outputs, as its bucket's program gives them but for what it gives of padding."""
    for place, (number, start) in enumerate(zip(row.texts, row.starts, strict=True)):
        end = start + _tokens(windows[number])
        yield (
            number,
            {
                name: output[place : place + 1] if output.ndim == 2 else output[:, start:end]
                for name, output in outputs.items()
            },
        )


def _shape(packed: ProgramSpec) -> tuple[int, ...]:
    return next(spec.shape for spec in packed.inputs if spec.name == "texts")


def _tokens(window: Prepared) -> int:
    return int(window.inputs["attention_mask"].sum())
