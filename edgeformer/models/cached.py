"""Decoders whose earlier keys and values come from a cache, and the programs of a model that generates text.

Key: L slots of the cache, N tokens of one call (1, or P for prefill), H heads of keys and values, each with G heads of
queries (G = 1 but for grouped-query attention, Ainslie et al. 2023, "GQA"), D head dim, C channels, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from edgeformer.attention import AttentionKernel
from edgeformer.attention.kernels import MASK_VALUE, ScoreRange
from edgeformer.models.family import ELEMENTWISE, MATMUL, Program, ProgramOptions
from edgeformer.models.score_range import score_range
from edgeformer.models.units import StackedLayer
from edgeformer_runtime.bundle.specs import HOST_STATE
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.tasks.generation import TextBucket, text_layout

GENERATION_TASKS = ("text-generation",)
DEFAULT_CACHE_LEN = 256
"""Slots, where nobody says how many: a prompt and an answer of a few sentences."""


def pairs(tensors: tuple[Tensor, ...]) -> list[tuple[Tensor, Tensor]]:
    """Keys and values, layer by layer."""
    return list(zip(tensors[::2], tensors[1::2], strict=True))


def rows_of(x: Tensor, heads: int) -> Tensor:
    """(N, C) to (H, N, D); for one token nothing has to move."""
    count, size = x.shape
    if count == 1:
        return x.reshape(heads, 1, size // heads)
    return x.reshape(count, heads, size // heads).transpose(0, 1)


def columns_of(x: Tensor, heads: int) -> Tensor:
    """(N, C) to (H, D, N); for one token nothing has to move."""
    count, size = x.shape
    if count == 1:
        return x.reshape(heads, size // heads, 1)
    return x.reshape(count, heads, size // heads).permute(1, 2, 0)


def merged(x: Tensor) -> Tensor:
    """(H, N, D) to (N, C)."""
    heads, count, head_dim = x.shape
    if count == 1:
        return x.reshape(1, heads * head_dim)
    return x.transpose(0, 1).reshape(count, heads * head_dim)


def chosen(x: Tensor, wanted: Tensor, numbers: Tensor) -> Tensor:
    """Rows wanted (W,) int32 of x (B, N, C), as (B, W, C); numbers (N,) float32 are 0, 1, ...

    A product: of a selection by index LiteRT makes a dozen operators, which check the index and cut the delegate's
    graph in three.
    """
    places = torch.eq(wanted.reshape(-1, 1).to(torch.float32), numbers).to(torch.float32)  # (W, N)
    return torch.bmm(places.expand(x.shape[0], -1, -1), x)


class SelfCaches(nn.Module):
    """A bucket's self-attention caches, kept by its programs: `self_k_<i>` (H, D, L) and `self_v_<i>` (H, L, D).

    Prefill and decode hold the same one. Rows that nothing was written to are hidden by the caller's mask.
    """

    row_numbers: Tensor

    def __init__(self, layers: int, heads: int, head_dim: int, rows: int) -> None:
        super().__init__()
        self.layers = layers
        for i in range(layers):
            self.register_buffer(f"self_k_{i}", torch.zeros(heads, head_dim, rows))
            self.register_buffer(f"self_v_{i}", torch.zeros(heads, rows, head_dim))
        self.register_buffer("row_numbers", torch.arange(rows, dtype=torch.int32))

    def pair(self, layer: int) -> tuple[Tensor, Tensor]:
        """A layer's keys (H, D, L) and values (H, L, D)."""
        return self.get_buffer(f"self_k_{layer}"), self.get_buffer(f"self_v_{layer}")

    def write(self, rows: Tensor, new: list[tuple[Tensor, Tensor]]) -> None:
        """Keep each layer's new keys (H, D, N) and values (H, N, D) in rows (N,) int32; rows beyond L go nowhere.

        A selection over the whole cache: Core ML has no write by index, and here every target gets the same.
        """
        count = rows.shape[0]
        selected = self.row_numbers.reshape(-1, 1) == rows.reshape(1, count)  # (L, N)
        for i, (keys, values) in enumerate(new):
            old_keys, old_values = self.pair(i)
            if count > 1:
                # Several rows in one product: each row of the cache takes its token's, or the zeros of no token.
                place = selected.to(torch.float32).expand(keys.shape[0], -1, -1)  # (H, L, N)
                keys, values = torch.bmm(keys, place.transpose(1, 2)), torch.bmm(place, values)
            chosen = selected.any(dim=1) if count > 1 else selected.reshape(-1)  # (L,)
            old_keys.copy_(torch.where(chosen.reshape(1, 1, -1), keys, old_keys))
            old_values.copy_(torch.where(chosen.reshape(1, -1, 1), values, old_values))


# Models that generate text.


class GeneratorConfig(Protocol):
    """What the programs need of a family's config."""

    @property
    def vocab_size(self) -> int:
        """V."""

    @property
    def hidden_size(self) -> int:
        """C."""

    @property
    def num_layers(self) -> int:
        """Of the stack."""

    @property
    def num_key_value_heads(self) -> int:
        """H."""

    @property
    def head_dim(self) -> int:
        """D."""

    @property
    def max_positions(self) -> int:
        """The longest text, in tokens."""


class GeneratorLayer(StackedLayer):
    """A layer of a `Generator`, but for its attention to the keys and values."""

    attention: AttentionKernel
    scale: float

    def project(self, x: Tensor, rotation: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """x (..., C) to queries (..., H*G*D), unscaled, and keys and values (..., H*D), at their positions."""
        raise NotImplementedError

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """x (..., C), and what attention gave for it (..., H*G*D), to the layer's result (..., C)."""
        raise NotImplementedError

    def forward(self, x: Tensor, rotation: Tensor | None, heads: int, bias: Tensor) -> Tensor:
        """x (B, N, C) to the same, without a cache: each token sees what bias (1, 1, N, N) shows."""
        batch, count, _ = x.shape
        queries, keys, values = self.project(x, rotation)
        head_dim = keys.shape[2] // heads
        groups = queries.shape[2] // keys.shape[2]
        q = queries.reshape(batch, count, heads * groups, head_dim).transpose(1, 2)
        k, v = (
            each.reshape(batch, count, heads, head_dim).transpose(1, 2).repeat_interleave(groups, dim=1)
            for each in (keys, values)
        )
        attended = self.attention(q, k, v, bias, self.scale)  # (B, H*G, N, D)
        return self.finish(x, attended.transpose(1, 2).reshape(batch, count, -1))


class Generator(nn.Module):
    """A model that says of a text which token comes next."""

    config: GeneratorConfig

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """tokens, positions (..., N) int32 to (..., N, C)."""
        raise NotImplementedError

    def rotation(self, positions: Tensor) -> Tensor | None:  # noqa: ARG002
        """What rotates queries and keys at positions (N,) int32, for `GeneratorLayer.project`; None: nothing does."""
        return None

    @property
    def blocks(self) -> Sequence[GeneratorLayer]:
        """The layers."""
        raise NotImplementedError

    def logits(self, x: Tensor) -> Tensor:
        """(..., C) behind the last layer to (..., V)."""
        raise NotImplementedError

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (B, N) int32 to logits (B, N, V), the cache left out: how the whole model is compared and judged."""
        count = tokens.shape[1]
        positions = torch.arange(count, dtype=torch.int32)
        bias = torch.triu(torch.full((count, count), MASK_VALUE), diagonal=1)[None, None]
        x, rotation = self.embed(tokens, positions), self.rotation(positions)
        for layer in self.blocks:
            x = layer(x, rotation, self.config.num_key_value_heads, bias)
        return self.logits(x)


@dataclass(frozen=True)
class TextLayout:
    """The part of a manifest's `Generation` that follows from the model's sizes and the options."""

    vocab_size: int
    layers: int
    heads: int
    head_dim: int
    prefill_tokens: int
    state: str
    buckets: tuple[TextBucket, ...]


def generation_layout(config: GeneratorConfig, options: ProgramOptions) -> TextLayout:
    """What the programs of a model will look like: the one source of the programs and of the manifest.

    Raises:
        InputError: a cache has more slots than the model has positions, or no more than a prefill takes.
    """
    lengths = sorted(set(options.cache_lens)) or [min(DEFAULT_CACHE_LEN, config.max_positions)]
    if lengths[-1] > config.max_positions:
        raise InputError(
            f"--seq-len: a cache has at most as many slots as the model has positions, {config.max_positions}, found "
            f"{lengths[-1]}"
        )
    if lengths[0] <= options.prompt_tokens:
        raise InputError(
            f"--seq-len: a cache has more than {options.prompt_tokens} slots, the tokens of one prefill, found "
            f"{lengths[0]}"
        )
    return TextLayout(
        vocab_size=config.vocab_size,
        layers=config.num_layers,
        heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        prefill_tokens=options.prompt_tokens,
        state=options.decoder_state,
        buckets=tuple(TextBucket(length, f"prefill_{length}", f"decode_{length}") for length in lengths),
    )


class CachedGenerator(nn.Module):
    """`decode` (one token) or `prefill` (P tokens) of a bucket, on the parameters of a model."""

    causal: Tensor | None
    numbers: Tensor | None

    def __init__(self, model: Generator, count: int, caches: SelfCaches | None, products: str = MATMUL) -> None:
        """count: N. caches: None where the host keeps them.

        products: how one token's queries meet the cache, `MATMUL` or, of one group, `ELEMENTWISE`. With three groups
            products are faster in LiteRT, too: .61 ms and not .87 for the 30 layers of SmolLM2-135M and 256 slots.
        """
        super().__init__()
        self.model = model
        self.caches = caches
        self.count = count
        self.heads = model.config.num_key_value_heads
        self.products = products
        causal = torch.triu(torch.full((count, count), MASK_VALUE), diagonal=1)
        self.register_buffer("causal", causal[None].contiguous() if count > 1 else None)  # (1, N, N)
        self.register_buffer("numbers", torch.arange(count, dtype=torch.float32) if count > 1 else None)

    def forward(self, tokens: Tensor, positions: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """tokens, positions (N,) int32, and the rest in the order of `text_layout`: see there."""
        layers = self.model.blocks
        rows: Tensor | None = None
        if self.caches is None:
            mask, own = rest[0], pairs(rest[1 : 1 + 2 * len(layers)])
        else:
            rows, mask, own = rest[0], rest[1], [self.caches.pair(i) for i in range(len(layers))]
        mask = mask.reshape(1, 1, -1)

        x, rotation = self.model.embed(tokens, positions), self.model.rotation(positions)  # (N, C)
        new: list[tuple[Tensor, Tensor]] = []
        for layer, cache in zip(layers, own, strict=True):
            queries, keys, values = layer.project(x, rotation)
            fresh = columns_of(keys, self.heads), rows_of(values, self.heads)
            x = layer.finish(x, self._attended(queries * layer.scale, fresh, cache, mask))
            new.append(fresh)
        if self.numbers is not None:
            x = chosen(x[None], rest[-1], self.numbers)[0]  # (2, C)
        logits = self.model.logits(x)  # (1 or 2, V)
        logits = logits if self.count > 1 else logits.reshape(-1)
        if self.caches is None:
            return (logits, *(tensor.reshape(-1) for pair in new for tensor in pair))
        assert rows is not None
        self.caches.write(rows, new)
        return (logits,)

    def _attended(
        self, queries: Tensor, fresh: tuple[Tensor, Tensor], cache: tuple[Tensor, Tensor], mask: Tensor
    ) -> Tensor:
        """N tokens see the slots of the cache that the mask shows, those before them in this call, and themselves.

        Args:
            queries: (N, H*G*D), scaled.
            fresh: the tokens' own keys (H, D, N) and values (H, N, D).
            cache: keys [H, D, L] and values [H, L, D], flat or not.
            mask: (1, 1, L).

        Returns:
            (N, H*G*D).
        """
        keys, values = fresh
        heads, head_dim, count = keys.shape
        length = mask.shape[2]
        old_keys, old_values = cache[0].reshape(heads, head_dim, length), cache[1].reshape(heads, length, head_dim)
        groups = queries.shape[1] // (heads * head_dim)
        elementwise = self.products == ELEMENTWISE and count == groups == 1
        q = self._grouped(queries, groups, head_dim)  # (H, G*N, D)
        if elementwise:
            earlier = (q.reshape(heads, head_dim, 1) * old_keys).sum(dim=1, keepdim=True)
        else:
            earlier = torch.bmm(q, old_keys)  # (H, G*N, L)
        among = torch.bmm(q, keys)  # (H, G*N, N)
        if self.causal is not None:
            among = among + self.causal.repeat(1, groups, 1)
        weights = torch.cat((earlier + mask, among), dim=2).softmax(dim=-1)
        seen = weights[:, :, :length]
        if elementwise:
            mixed = (seen.reshape(heads, length, 1) * old_values).sum(dim=1, keepdim=True)
        else:
            mixed = torch.bmm(seen, old_values)
        mixed = mixed + torch.bmm(weights[:, :, length:], values)  # (H, G*N, D)
        if count == 1:
            return mixed.reshape(1, -1)
        return mixed.reshape(heads, groups, count, head_dim).permute(2, 0, 1, 3).reshape(count, -1)

    def _grouped(self, queries: Tensor, groups: int, head_dim: int) -> Tensor:
        """(N, H*G*D) to (H, G*N, D), a head's groups one after the other."""
        count = queries.shape[0]
        if count == 1:
            return queries.reshape(self.heads, groups, head_dim)
        split = queries.reshape(count, self.heads, groups, head_dim).permute(1, 2, 0, 3)
        return split.reshape(self.heads, groups * count, head_dim)


def generation_programs(module: nn.Module, config: Any, options: ProgramOptions) -> tuple[Program, ...]:
    """Prefill and decode for each bucket, shortest first, all on the parameters of the module."""
    if not isinstance(module, Generator):
        raise TypeError(f"expected a Generator, found {type(module).__name__}")
    layout = generation_layout(config, options)
    programs: list[Program] = []
    for bucket in layout.buckets:
        caches = None
        if layout.state != HOST_STATE:
            caches = SelfCaches(layout.layers, layout.heads, layout.head_dim, bucket.rows)
        parts = (
            CachedGenerator(module, layout.prefill_tokens, caches),
            CachedGenerator(module, 1, caches, options.token_matmul),
        )
        for entry, part, kind in zip(text_layout(layout, bucket), parts, ("prefill", "decode"), strict=True):
            programs.append(Program(entry.name, part.eval(), entry.inputs, entry.outputs, alike=kind))
    return tuple(programs)


# How far the scores of attention spread: what hides the slots of the cache has to be beyond.


_SAMPLES, _SAMPLE_TOKENS = 4, 48


def generator_scores(module: nn.Module, checkpoint: Any) -> ScoreRange:  # noqa: ARG001
    """The range of a model's attention scores on random tokens.

    Raises:
        InputError: the mask that a bundle hides the slots of its cache with is not safe for it.
    """
    assert isinstance(module, Generator)
    config = module.config
    shape = (_SAMPLES, min(_SAMPLE_TOKENS, config.max_positions))
    tokens = torch.randint(config.vocab_size, shape, generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    found = score_range(module, {"tokens": tokens})
    found = replace(found, spread=max(found.spread, found.largest))  # an unwritten slot of the cache has the score 0
    if found.mask != MASK_VALUE:
        raise InputError(
            f"attention scores are up to {found.spread:.0f} apart, and a bundle hides slots of its cache with "
            f"{MASK_VALUE:.0f}, which is not safe then: the checkpoint is damaged or its training diverged"
        )
    return found


# What the families have in common with each other.


def refuse_quantized(raw: Mapping[str, Any]) -> None:
    """Raises InputError: a public config.json says that the weights are none that can be read plainly."""
    if raw.get("quantization_config"):
        raise InputError("config.json: quantization_config must be absent: save the checkpoint without it")


def check_generation(task: str) -> None:
    """Raises InputError: such a model does no other task."""
    if task not in GENERATION_TASKS:
        raise InputError(f"unknown task {task!r}: expected one of {', '.join(GENERATION_TASKS)}")


def no_labels(raw: Mapping[str, Any]) -> tuple[str, ...]:  # noqa: ARG001
    """A model that generates text has none."""
    return ()
