"""Whisper's programs: `encode_<T>`, `prefill_<T>` and `decode_<T>` for each length T of audio.

All programs of a model hold the very same parameters, so that a file stores them once. Key: T positions computed from
audio, S = T + tail, L slots of the self-attention cache, N tokens of one call (1, or P for prefill), H heads, D head
dim, C = H*D, V vocabulary, A alignment heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeformer.models.cached import SelfCaches, chosen, columns_of, merged, pairs, rows_of
from edgeformer.models.family import ELEMENTWISE, FULL_WINDOW, MATMUL, POSITIONS_PER_SECOND, Program, ProgramOptions
from edgeformer.models.text import longest_of_any
from edgeformer.models.whisper.model import (
    DecoderLayer,
    FeedForward,
    Silence,
    Whisper,
    WhisperConfig,
    causal_mask,
    project,
    silence_of,
    tail_bias,
    tail_positions,
)
from edgeformer_runtime.bundle.specs import HOST_STATE, AudioBucket, bucket_layout
from edgeformer_runtime.errors import InputError

_ROWS_PER_SECOND = 16
"""Tokens that a second of fast speech may take, several times what English needs."""
_FEWEST_ROWS, _PROMPT_ROWS, _ROW_STEP = 128, 64, 32
_DECODER = "decoder."


@dataclass(frozen=True)
class SpeechLayout:
    """The part of a manifest's `Transcription` that follows from the model's sizes and the options."""

    vocab_size: int
    layers: int
    heads: int
    head_dim: int
    alignment_heads: int
    prefill_tokens: int
    state: str
    buckets: tuple[AudioBucket, ...]


def transcription_layout(config: WhisperConfig, options: ProgramOptions) -> SpeechLayout:
    """What the programs of a model will look like: the one source of the programs and of the manifest.

    Raises:
        InputError: positions beyond the model's window, or more tokens of prefill than a cache has rows.
    """
    window = config.max_source_positions
    positions = (window,) if options.window == FULL_WINDOW else tuple(sorted(set(options.audio_positions)))
    if positions[-1] > window:
        raise InputError(f"audio positions must be at most this model's {window}, found {positions[-1]}")
    buckets = tuple(_bucket(count, config) for count in positions)
    fewest = min(bucket.rows for bucket in buckets)
    if options.prefill_tokens >= fewest:
        raise InputError(
            f"tokens of prefill must be fewer than the {fewest} slots of a cache, found {options.prefill_tokens}"
        )
    return SpeechLayout(
        vocab_size=config.vocab_size,
        layers=config.decoder_layers,
        heads=config.decoder_attention_heads,
        head_dim=config.head_dim,
        alignment_heads=len(config.alignment_heads),
        prefill_tokens=options.prefill_tokens,
        state=options.decoder_state,
        buckets=buckets,
    )


def _bucket(positions: int, config: WhisperConfig) -> AudioBucket:
    seconds = positions / POSITIONS_PER_SECOND
    rows = _ROW_STEP * math.ceil(max(_FEWEST_ROWS, _PROMPT_ROWS + _ROWS_PER_SECOND * seconds) / _ROW_STEP)
    return AudioBucket(
        positions=positions,
        tail=len(tail_positions(positions, config.max_source_positions)),
        rows=min(rows, config.max_target_positions),
        encode=f"encode_{positions}",
        prefill=f"prefill_{positions}",
        decode=f"decode_{positions}",
    )


class Encode(nn.Module):
    """Audio to the cross-attention keys and values of every decoder layer, silence behind the audio.

    Attention is the target's own kernel. The chunked one is there for the asking: at T = 600 LiteRT takes 174 ms with
    it and 166 without (tiny.en, fp32, CPU time of one thread).
    """

    bias: Tensor | None

    def __init__(self, model: Whisper, positions: int, silence: Silence | None) -> None:
        """silence: of the whole window; None where T is the whole window."""
        super().__init__()
        self.encoder = model.encoder
        attentions = [layer.encoder_attn for layer in model.decoder.blocks]
        # Only the projections that are used here: an export would keep the others.
        self.k_proj = nn.ModuleList(attention.k_proj for attention in attentions)
        self.v_proj = nn.ModuleList(attention.v_proj for attention in attentions)
        self.num_heads = model.config.decoder_attention_heads
        self.has_tail = silence is not None
        bias = None
        if silence is not None:
            bias = tail_bias(positions, model.config.max_source_positions)[None, None, None]
            tail = silence.select(positions)
            for i, layer in enumerate(model.encoder.blocks):
                self._keep(f"tail_{{}}_{i}", *project(layer.self_attn, tail.normed[i]))  # (1, H, tail, D)
            for i, attention in enumerate(attentions):
                keys, values = project(attention, tail.states)
                self._keep(f"cross_tail_{{}}_{i}", keys[0].transpose(1, 2), values[0])  # (H, D, tail), (H, tail, D)
        self.register_buffer("bias", bias)

    def _keep(self, name: str, keys: Tensor, values: Tensor) -> None:
        self.register_buffer(name.format("k"), keys.contiguous())
        self.register_buffer(name.format("v"), values.contiguous())

    def _tail(self, name: str, layer: int) -> tuple[Tensor, Tensor]:
        return self.get_buffer(f"{name}_k_{layer}"), self.get_buffer(f"{name}_v_{layer}")

    def forward(self, mel: Tensor) -> tuple[Tensor, ...]:
        """mel (1, n_mels, 2 T) float32 to, layer by layer, keys [H, D, S] and values [H, S, D], flat float32."""
        x = self.encoder.stem(mel)
        for i, layer in enumerate(self.encoder.blocks):
            x = layer(x, self._tail("tail", i) if self.has_tail else None, self.bias)
        x = self.encoder.layer_norm(x)[0]  # (T, C)
        outputs: list[Tensor] = []
        for i, (k_proj, v_proj) in enumerate(zip(self.k_proj, self.v_proj, strict=True)):
            keys, values = columns_of(k_proj(x), self.num_heads), rows_of(v_proj(x), self.num_heads)
            if self.has_tail:
                tail_keys, tail_values = self._tail("cross_tail", i)
                keys, values = torch.cat((keys, tail_keys), dim=2), torch.cat((values, tail_values), dim=1)
            outputs += (keys.reshape(-1), values.reshape(-1))
        return tuple(outputs)


class CachedLayer(FeedForward):
    """A decoder layer whose earlier keys and values come from caches. It holds the parameters of the layer given."""

    def __init__(self, layer: DecoderLayer, products: str) -> None:
        """products: how queries meet a cache, `MATMUL` or, of one token, `ELEMENTWISE`."""
        super().__init__(layer.fc1, layer.fc2, layer.final_layer_norm)
        self.sums = products == ELEMENTWISE
        self.self_attn = layer.self_attn
        self.self_attn_layer_norm = layer.self_attn_layer_norm
        self.cross_q_proj = layer.encoder_attn.q_proj
        self.cross_out_proj = layer.encoder_attn.out_proj
        self.encoder_attn_layer_norm = layer.encoder_attn_layer_norm
        self.scale = layer.self_attn.scale

    def forward(
        self,
        x: Tensor,
        own: tuple[Tensor, Tensor],
        mask: Tensor,
        causal: Tensor | None,
        cross: tuple[Tensor, Tensor],
        bias: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """N tokens see the slots of the cache that the mask shows, those before them in this call, and themselves.

        Args:
            x: (N, C).
            own: the self-attention cache, keys [H, D, L] and values [H, L, D], flat or not.
            mask: (1, 1, L).
            causal: (1, N, N); None for one token.
            cross: the cross-attention cache, keys [H, D, S] and values [H, S, D].
            bias: (1, 1, S) or None.

        Returns:
            (N, C); the tokens' own keys (H, D, N) and values (H, N, D); the weights of cross-attention (H, N, S).
        """
        heads, length = self.num_heads, mask.shape[2]
        head_dim = x.shape[1] // heads
        attention = self.self_attn
        hidden = self.self_attn_layer_norm(x)
        queries = rows_of(attention.q_proj(hidden) * self.scale, heads)  # (H, N, D)
        keys, values = columns_of(attention.k_proj(hidden), heads), rows_of(attention.v_proj(hidden), heads)
        earlier = self._scores(queries, own[0].reshape(heads, head_dim, length)) + mask  # (H, N, L)
        among = torch.bmm(queries, keys)  # (H, N, N)
        if causal is not None:
            among = among + causal
        weights = torch.cat((earlier, among), dim=2).softmax(dim=-1)
        seen = self._mixed(weights[:, :, :length], own[1].reshape(heads, length, head_dim))
        x = x + attention.out_proj(merged(seen + torch.bmm(weights[:, :, length:], values)))

        queries = rows_of(self.cross_q_proj(self.encoder_attn_layer_norm(x)) * self.scale, heads)
        scores = self._scores(queries, cross[0].reshape(heads, head_dim, -1))  # (H, N, S)
        if bias is not None:
            scores = scores + bias
        cross_weights = scores.softmax(dim=-1)
        attended = self._mixed(cross_weights, cross[1].reshape(heads, -1, head_dim))
        x = x + self.cross_out_proj(merged(attended))
        return self.feed_forward(x), keys, values, cross_weights

    def _scores(self, queries: Tensor, keys: Tensor) -> Tensor:
        """(H, N, D) and (H, D, L) to (H, N, L)."""
        if self.sums:
            return (queries.reshape(*keys.shape[:2], 1) * keys).sum(dim=1, keepdim=True)
        return torch.bmm(queries, keys)

    def _mixed(self, weights: Tensor, values: Tensor) -> Tensor:
        """(H, N, L) and (H, L, D) to (H, N, D)."""
        if self.sums:
            return (weights.reshape(*values.shape[:2], 1) * values).sum(dim=1, keepdim=True)
        return torch.bmm(weights, values)


class CachedDecoder(nn.Module):
    """`decode` (one token) or `prefill` (P tokens) of a bucket."""

    causal: Tensor | None
    numbers: Tensor
    bias: Tensor | None

    def __init__(
        self,
        model: Whisper,
        config: WhisperConfig,
        bucket: AudioBucket,
        count: int,
        caches: SelfCaches | None,
        products: str = MATMUL,
    ) -> None:
        """count: N. caches: None where the host keeps them. products: see `CachedLayer`."""
        super().__init__()
        decoder = model.decoder
        self.embed_tokens = decoder.embed_tokens
        self.embed_positions = decoder.embed_positions
        self.layers = nn.ModuleList(CachedLayer(layer, products) for layer in decoder.blocks)
        self.layer_norm = decoder.layer_norm
        self.caches = caches
        self.count = count
        self.alignment_heads = tuple(
            tuple(head for in_layer, head in config.alignment_heads if in_layer == layer)
            for layer in range(config.decoder_layers)
        )
        self.register_buffer("causal", causal_mask(count)[None].contiguous() if count > 1 else None)
        self.register_buffer("numbers", torch.arange(count, dtype=torch.float32) if count > 1 else None)
        bias = tail_bias(bucket.positions, config.max_source_positions)[None, None] if bucket.tail else None
        self.register_buffer("bias", bias)

    def forward(self, tokens: Tensor, positions: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """tokens, positions (N,) int32, and the rest in the order of `speech_layout`: see there."""
        layers = len(self.layers)
        rows: Tensor | None = None
        if self.caches is None:
            mask, own, rest = rest[0], pairs(rest[1 : 1 + 2 * layers]), rest[1 + 2 * layers :]
        else:
            rows, mask, rest = rest[0], rest[1], rest[2:]
            own = [self.caches.pair(i) for i in range(layers)]
        cross, wanted = pairs(rest[: 2 * layers]), rest[-1] if self.count > 1 else None
        mask = mask.reshape(1, 1, -1)

        x = self.embed_tokens(tokens) + self.embed_positions(positions)  # (N, C)
        new: list[tuple[Tensor, Tensor]] = []
        alignment: list[Tensor] = []
        for i, layer in enumerate(self.layers):
            x, keys, values, weights = layer(x, own[i], mask, self.causal, cross[i], self.bias)
            new.append((keys, values))
            if wanted is not None and self.alignment_heads[i]:
                weights = chosen(weights, wanted[1:], self.numbers)  # (H, 1, S)
            alignment += [weights[head] for head in self.alignment_heads[i]]
        if wanted is not None:
            x = chosen(x[None], wanted, self.numbers)[0]  # (2, C)
        logits = nn.functional.linear(self.layer_norm(x), self.embed_tokens.weight)  # (1 or 2, V)
        outputs = (logits if wanted is not None else logits.reshape(-1), torch.cat(alignment))
        if self.caches is None:
            return (*outputs, *(tensor.reshape(-1) for pair in new for tensor in pair))
        assert rows is not None
        self.caches.write(rows, new)
        return outputs


def whisper_programs(module: nn.Module, config: WhisperConfig, options: ProgramOptions) -> tuple[Program, ...]:
    """Encode, prefill and decode for each bucket, shortest first, all on the parameters of the module."""
    if not isinstance(module, Whisper):
        raise TypeError(f"expected a Whisper, found {type(module).__name__}")
    layout = transcription_layout(config, options)
    silence = silence_of(module) if any(bucket.tail for bucket in layout.buckets) else None
    return tuple(
        program
        for bucket in layout.buckets
        for program in _bucket_programs(module, config, layout, bucket, silence, options.token_matmul)
    )


def _bucket_programs(
    model: Whisper,
    config: WhisperConfig,
    layout: SpeechLayout,
    bucket: AudioBucket,
    silence: Silence | None,
    token_matmul: str,
) -> tuple[Program, ...]:
    caches = None
    if layout.state != HOST_STATE:
        caches = SelfCaches(layout.layers, layout.heads, layout.head_dim, bucket.rows)
    modules = (
        Encode(model, bucket.positions, silence if bucket.tail else None),
        CachedDecoder(model, config, bucket, layout.prefill_tokens, caches),
        CachedDecoder(model, config, bucket, 1, caches, token_matmul),
    )
    whole = bucket.positions <= longest_of_any(model.encoder)
    alike = (f"encode_{bucket.tail}" if whole else "", "prefill", "decode") if bucket.tail else ("", "", "")
    return tuple(
        Program(entry.name, module.eval(), entry.inputs, entry.outputs, alike=kind, part=part)
        for entry, module, kind, part in zip(
            bucket_layout(layout, bucket, config.num_mel_bins), modules, alike, ("", _DECODER, _DECODER), strict=True
        )
    )
