"""Layers that run one after the other, and what can be removed from each: attention heads and feed-forward neurons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from torch import nn

from edgeformer.attention import AttentionKernel

HEADS, NEURONS = "heads", "neurons"


@dataclass(frozen=True)
class Slice:
    """Part of a tensor that belongs to units: along `axis` each unit has `size` consecutive entries.

    The tensor is `<layer>.<name>`.
    """

    name: str
    axis: int
    size: int


@dataclass(frozen=True)
class UnitGroup:
    """Units of one layer that can be removed one by one.

    Attributes:
        layer: the layer's name in its module.
        kind: "heads" or "neurons".
        network: of neurons: which of the layer's feed-forward networks.
        count: how many units there are.
        reader: the linear layer whose input channels are the units' outputs, unit by unit; within the layer.
        slices: every tensor that has to shrink with them.
    """

    layer: str
    kind: str
    network: int
    count: int
    reader: str
    slices: tuple[Slice, ...]


class StackedLayer(nn.Module):
    """One of the layers of a stack, `<stack>.<number>` in the model: what distillation compares and pruning removes."""

    @property
    def num_heads(self) -> int:
        """Heads of its self-attention."""
        raise NotImplementedError

    def unit_groups(self, name: str) -> Iterator[UnitGroup]:
        """What can be removed from the layer, which has this name in its model."""
        raise NotImplementedError


class AttentionModule(nn.Module):
    """A module that calls one attention kernel."""

    attention: AttentionKernel


def head_group(
    layer: str,
    count: int,
    writers: Sequence[str],
    size: int,
    reader: str,
    writer_size: int | None = None,
    more: tuple[Slice, ...] = (),
) -> UnitGroup:
    """The heads of a layer's self-attention.

    Args:
        layer: its name in the model.
        count: how many there are.
        writers: the linear layers, within the layer, whose outputs are the heads'.
        size: of a head in the input of `reader`.
        reader: the linear layer that takes the heads' outputs.
        writer_size: of a head in the output of a writer; None: `size`.
        more: other parts of tensors that belong to the heads.
    """
    rows = [Slice(f"{writer}.{part}", 0, writer_size or size) for writer in writers for part in ("weight", "bias")]
    return UnitGroup(layer, HEADS, 0, count, reader, (*rows, *more, Slice(f"{reader}.weight", 1, size)))


def neuron_group(layer: nn.Module, name: str, network: int, writer: str, reader: str) -> UnitGroup:
    """The neurons between two linear layers, `writer` and `reader`, of a layer."""
    count = cast(nn.Linear, layer.get_submodule(writer)).out_features
    slices = (Slice(f"{writer}.weight", 0, 1), Slice(f"{writer}.bias", 0, 1), Slice(f"{reader}.weight", 1, 1))
    return UnitGroup(name, NEURONS, network, count, reader, slices)


def bert_head_group(layer: str, attention: nn.Module) -> UnitGroup:
    """The heads of a layer's self-attention, `attention.self`, under BERT's names."""
    writers = [f"attention.self.{each}" for each in ("query", "key", "value")]
    count = cast(int, attention.num_heads)
    size = cast(nn.Linear, attention.query).out_features // count
    return head_group(layer, count, writers, size, "attention.output.dense")
