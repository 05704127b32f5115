"""Models of transformers that classify recordings, and their feature extractors in the terms of a bundle.

A program of samples has one length, and a recording is filled up to it with zeros. transformers computes a recording
alone, so padding is hidden wherever it would change the answer: from attention, from convolutions that look beyond the
recording's end, from the statistics of a normalisation over time, and from the mean over time before the classifier.
With a mask, transformers' own modules do this in part only: a model with `feat_extract_norm` "group" takes none.

No extractor is on a list: what its fields mean is compared with its own output.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from functools import partial
from itertools import accumulate
from operator import mul
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from edgeformer.attention import AttentionKernel
from edgeformer.attention.kernels import ScoreRange
from edgeformer.models.adapted import AdaptedConfig, Network, attend, compare, told
from edgeformer.models.adapted_images import PROCESSOR_FILE
from edgeformer.models.config import refusing
from edgeformer.models.family import Program, ProgramOptions
from edgeformer.models.score_range import score_range
from edgeformer_runtime.bundle.manifest import TensorSpec
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.log_mel import RecordingEncoder
from edgeformer_runtime.tasks.speech import (
    ENERGIES_INPUT,
    LENGTH_INPUT,
    RECORDING_PROGRAM,
    SAMPLES_INPUT,
    FilterBank,
    RecordingPreprocessing,
)

if TYPE_CHECKING:
    from edgeformer.checkpoints.checkpoint import Checkpoint

DEFAULT_CLIP_SECONDS = (5.0, 10.0, 30.0)
"""Of the programs of a model of samples."""
_MOST_SAMPLES = 1_000_000
_COMPARED_S = 10
"""Of a longer program: whatever depends on length shows there, and 30 s of a large model take a minute."""
_WHOLE, _PART = 12, 7
"""Frames of the sample that `fit` compares, and how many of them are there."""


# The models.


class Frames:
    """How many samples the frames of a stack of convolutions without padding need.

    Attributes:
        steps: of each convolution: samples from the start of one frame to the next one's.
        reaches: of each: samples that a frame sees.
    """

    def __init__(self, config: Any) -> None:
        """Raises InputError where transformers' config names no convolutions, or such as no recording fills."""
        kernels, strides = (tuple(getattr(config, name, ())) for name in ("conv_kernel", "conv_stride"))
        if not kernels or len(kernels) != len(strides) or not all(type(each) is int for each in kernels + strides):
            raise InputError(f"config.json: a {config.model_type} has no conv_kernel and conv_stride of one length")
        if min(kernels + strides) < 1 or math.prod(strides) * sum(kernels) > _MOST_SAMPLES:
            raise InputError(
                f"config.json: conv_kernel and conv_stride: expected frames of 1 to {_MOST_SAMPLES} samples"
            )
        self.steps = tuple(accumulate(strides, mul))
        before = (1, *self.steps)
        self.reaches = tuple(
            accumulate(((kernel - 1) * step for kernel, step in zip(kernels, before, strict=False)), initial=1)
        )[1:]

    def count(self, samples: int) -> tuple[int, ...]:
        """Of each convolution's frames in so many samples."""
        return tuple((samples - reach) // step + 1 for step, reach in zip(self.steps, self.reaches, strict=True))


class AdaptedAudioModel(nn.Module):
    """A classifier of recordings of transformers. `frames`: of a model of samples; None: it takes energies."""

    output_name = "logits"

    def __init__(self, public: nn.Module, attention: AttentionKernel, frames: Frames | None) -> None:
        super().__init__()
        self.adapted = Network(public, attention)
        self.frames = frames
        self._masks: dict[int, Tensor] = {}  # (B, 1, T) by T, of the forward that runs
        if frames is not None:
            self._hide_padding(public)

    def forward(self, inputs: Tensor, length: Tensor | None = None) -> tuple[Tensor]:
        """Energies (B, T, C), or samples (B, N) float32 and how many are a recording's (B,) int32, to logits (B, L)."""
        if length is None:
            return (self.adapted.call(input_values=inputs)["logits"],)
        ends = self._ends(inputs.shape[1])
        self._masks = {len(each): (length[:, None] >= each).float()[:, None] for each in ends}
        *_, last = self._masks.values()
        self.adapted.padding = (1.0 - last)[:, None] * self.adapted.hidden_value
        try:
            return (self.adapted.call(input_values=inputs)["logits"],)
        finally:
            self._masks, self.adapted.padding = {}, None

    def own(self, inputs: Tensor) -> Tensor:
        """What transformers computes of energies, or of the samples of a recording alone."""
        with told(self.named), self.adapted.eager():
            logits: Tensor = self.adapted.call(input_values=inputs)["logits"]
            return logits

    @property
    def named(self) -> str:
        """The public module's class, for messages."""
        return type(self.adapted.public).__name__

    def settle(self) -> None:
        """Compute once what transformers computes of weights at every call, as the tools keep weights and no more."""
        for part in self.modules():
            held: Any = getattr(part, "parametrizations", ())
            for name in tuple(held):
                parametrize.remove_parametrizations(part, name)

    def _ends(self, samples: int) -> list[Tensor]:
        """Where the frames of each convolution end, (T,) int32: made the first time, buffers from then on."""
        assert self.frames is not None
        found = []
        for count, step, reach in zip(self.frames.count(samples), self.frames.steps, self.frames.reaches, strict=True):
            name = f"ends_{count}_{step}"
            if name not in self._buffers:
                ends = torch.arange(count, dtype=torch.int32) * step + reach
                self.register_buffer(name, ends, persistent=False)
            found.append(self.get_buffer(name))
        return found

    def prepare_for(self, samples: int) -> None:
        """Make what an export cannot: the constants of a program of so many samples."""
        frames = len(self._ends(samples)[-1])
        for part in self.adapted.public.modules():
            if hasattr(part, "gru_rel_pos_linear"):
                self._buckets(part, frames)

    def _hide_padding(self, public: nn.Module) -> None:
        each: Any
        for each in public.modules():
            if isinstance(each, nn.GroupNorm) and each.num_groups == each.num_channels:
                each.forward = partial(self._normalised, each)  # type: ignore[method-assign]
            elif isinstance(each, nn.Conv1d) and each.padding != (0,):
                each.register_forward_pre_hook(self._zero_padding)
            elif hasattr(each, "gru_rel_pos_linear"):
                each.torch_multi_head_self_attention = partial(self._gated, each)
                each.compute_bias = partial(self._relative, each)
        projector = getattr(public, "projector", None)
        if isinstance(projector, nn.Module):
            projector.register_forward_hook(self._weighted)

    def _normalised(self, norm: nn.GroupNorm, hidden: Tensor) -> Tensor:
        """(B, C, T) to the same: a group for each channel, with the statistics of the recording's frames."""
        if not self._masks:
            return functional.group_norm(hidden, norm.num_groups, norm.weight, norm.bias, norm.eps)
        mask = self._masks[hidden.shape[-1]]
        share = mask.mean(dim=-1, keepdim=True)  # not their number, which float16 may not hold
        centred = (hidden - (hidden * mask).mean(dim=-1, keepdim=True) / share) * mask
        variance = (centred * centred).mean(dim=-1, keepdim=True) / share
        normalised: Tensor = centred * torch.rsqrt(variance + norm.eps)
        return normalised * norm.weight[:, None] + norm.bias[:, None]

    # WavLM's attention, which asks for no implementation: a gate for each query scales a bias of the distance.

    def _gated(self, layer: Any, hidden: Tensor, mask: Tensor | None, bias: Tensor) -> tuple[Tensor, None]:
        """(B, T, C) and a bias (B * H, T, T) to (B, T, C), in our kernel but for transformers' own computation."""
        if not self._masks:
            answer: tuple[Tensor, None] = type(layer).torch_multi_head_self_attention(layer, hidden, mask, bias)
            return answer
        projections = (layer.q_proj, layer.k_proj, layer.v_proj)
        query, key, value = (
            project(hidden).view(*hidden.shape[:2], layer.num_heads, layer.head_dim).transpose(1, 2)
            for project in projections
        )
        gated = bias.view(-1, layer.num_heads, *bias.shape[1:])
        attended, _ = attend(layer, query, key, value, None, layer.scaling, position_bias=gated)
        return layer.out_proj(attended.flatten(2)), None

    def _relative(self, layer: Any, length: int, _: int) -> Tensor:
        """(H, T, T): what each distance adds to a score, before the gates."""
        values: Tensor = layer.rel_attn_embed(self._buckets(layer, length))
        return values.permute(2, 0, 1)

    def _buckets(self, layer: Any, length: int) -> Tensor:
        """(T, T) int32: the row of the layer's table for each pair; a constant."""
        name = f"buckets_{length}"
        if name not in self._buffers:
            at = torch.arange(length)
            buckets = layer._relative_positions_bucket(at[None, :] - at[:, None])
            self.register_buffer(name, buckets.to(torch.int32).contiguous(), persistent=False)
        return self.get_buffer(name)

    def _zero_padding(self, _: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """A convolution that looks beyond the end of a recording sees zeros there."""
        if not self._masks:
            return arguments
        return (arguments[0] * self._masks[arguments[0].shape[-1]], *arguments[1:])

    def _weighted(self, _: nn.Module, __: tuple[Tensor, ...], projected: Tensor) -> Tensor:
        """(B, T, C), of whose frames the mean is to be taken, such that it is that of the recording's."""
        if not self._masks:
            return projected
        mask = self._masks[projected.shape[1]].transpose(1, 2)  # (B, T, 1)
        return projected * mask / mask.mean(dim=1, keepdim=True)


def audio_programs(module: nn.Module, config: AdaptedConfig, options: ProgramOptions) -> tuple[Program, ...]:
    """One program of energies, or one of samples for each length.

    Raises:
        InputError: an answer depends on the padding behind a recording, or a length is too short.
    """
    assert isinstance(module, AdaptedAudioModel) and isinstance(config.preprocessing, RecordingPreprocessing)
    spec = config.preprocessing
    logits = TensorSpec(module.output_name, "float32", (1, config.public.num_labels))
    bank = spec.filter_bank
    if bank is not None:
        energies = TensorSpec(ENERGIES_INPUT, "float32", (1, bank.frames, bank.n_mels))
        return (Program(RECORDING_PROGRAM, module, (energies,), (logits,)),)
    counts = sorted({round(each * spec.sample_rate) for each in options.clip_seconds or DEFAULT_CLIP_SECONDS})
    if counts[0] < spec.shortest_samples:
        least = spec.shortest_samples / spec.sample_rate
        raise InputError(f"--audio-seconds: the model takes recordings of at least {least:g} s: give longer ones")
    compared = max(counts[0], min(counts[-1], _COMPARED_S * spec.sample_rate))
    _check_padding(module, spec, compared, compared // 2 + spec.shortest_samples // 2)
    for count in counts:
        module.prepare_for(count)
    return tuple(
        Program(
            f"{RECORDING_PROGRAM}_{count}",
            module,
            (TensorSpec(SAMPLES_INPUT, "float32", (1, count)), TensorSpec(LENGTH_INPUT, "int32", (1,))),
            (logits,),
        )
        for count in counts
    )


@torch.no_grad()
def fit_audio(module: nn.Module, config: AdaptedConfig) -> None:
    """Compare a module that has its weights with transformers' own computation, with padding and without.

    Raises:
        InputError: they differ.
    """
    assert isinstance(module, AdaptedAudioModel) and isinstance(config.preprocessing, RecordingPreprocessing)
    spec = config.preprocessing
    bank, frames = spec.filter_bank, module.frames
    if bank is not None:
        energies = torch.randn((1, bank.frames, bank.n_mels), generator=torch.Generator().manual_seed(0))
        expected = module.own(energies)
        module.settle()
        compare(module.named, expected, lambda: module(energies)[0])
        return
    assert frames is not None
    whole, part = (frames.reaches[-1] + (count - 1) * frames.steps[-1] for count in (_WHOLE, _PART))
    module.settle()
    _check_padding(module, spec, whole, whole)
    # What lies between two frames is in none of them.
    _check_padding(module, spec, whole, part + frames.steps[-1] // 2)


@torch.no_grad()
def _check_padding(module: AdaptedAudioModel, spec: RecordingPreprocessing, count: int, part: int) -> None:
    """Compare a recording of `part` samples, filled up to `count`, with what transformers computes of it alone."""
    samples, length = _sample(spec, count, part)
    where = f"with {count - part} samples of padding behind a recording, which a bundle's fixed lengths need"
    expected = module.own(samples[:, :part])
    compare(module.named, expected, lambda: module(samples, length)[0], where if part < count else "of a recording")


def _sample(spec: RecordingPreprocessing, count: int, part: int) -> tuple[Tensor, Tensor]:
    """Noise as a program takes it: (1, count) float32 with zeros from sample `part` on, and (1,) int32."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(part).astype(np.float32)
    return torch.from_numpy(RecordingEncoder(spec).padded(noise, count)), torch.tensor([part], dtype=torch.int32)


def audio_scores(module: nn.Module, checkpoint: Checkpoint) -> ScoreRange:
    """The range of the attention scores that a mask is added to: of none, where the model takes energies."""
    spec = checkpoint.config.preprocessing
    if not isinstance(module, AdaptedAudioModel) or spec.filter_bank is not None:
        return ScoreRange()
    samples, length = _sample(spec, spec.sample_rate, spec.sample_rate // 2)
    return score_range(module, {SAMPLES_INPUT: samples, LENGTH_INPUT: length})


# The feature extractors.


_TOLERANCE = 1e-3
"""Of a model's input: meanings of fields are further apart, torchaudio's energies and numpy's are not."""
_RATES = (1_000, 192_000)
_BANK_RATE, _FRAME, _HOP, _FFT, _LOW_HZ, _PREEMPHASIS, _LOG_FLOOR = 16_000, 400, 160, 512, 20.0, 0.97, 2.0**-23
"""Of ASTFeatureExtractor's code: in no file."""
_MOST_FRAMES, _MOST_BANDS = 4_096, 1_024


def read_feature_extractor(folder: Path, config: Any) -> RecordingPreprocessing:
    """What a folder's feature extractor does to a recording, for a model with such a config of transformers.

    Raises:
        InputError: names the field that a bundle cannot have.
    """
    from transformers import AutoFeatureExtractor

    with refusing(f"{PROCESSOR_FILE} cannot be read as a feature extractor:"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of bands that are narrower than two frequencies, as in every public AST
        extractor: Any = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    fields: dict[str, Any] = {**extractor.to_dict(), "feature_extractor_type": type(extractor).__name__}
    rate = fields.get("sampling_rate")
    if type(rate) is not int or not _RATES[0] <= rate <= _RATES[1]:
        raise _refusal(fields, "sampling_rate", f"a number of Hz from {_RATES[0]} to {_RATES[1]}")
    if type(fields.get("do_normalize")) is not bool:
        raise _refusal(fields, "do_normalize", "true or false")
    if fields.get("feature_size") != 1:
        raise _refusal(fields, "feature_size", "1: a bundle's recordings have one channel")
    if "num_mel_bins" in fields:
        spec = RecordingPreprocessing(rate, _FRAME, normalize=False, filter_bank=_filter_bank(fields, config))
    else:
        spec = RecordingPreprocessing(rate, Frames(config).reaches[-1], fields["do_normalize"], filter_bank=None)
    if not _same_features(extractor, spec):
        raise _refusal(
            fields, "feature_extractor_type", "one that gives samples, normalised or not, or Kaldi's energies"
        )
    return spec


def _refusal(fields: Mapping[str, Any], field: str, expected: str) -> InputError:
    return InputError(f"{PROCESSOR_FILE}: {field} is {shorten(fields.get(field))}: expected {expected}")


def _filter_bank(fields: Mapping[str, Any], config: Any) -> FilterBank:
    """As ASTFeatureExtractor's fields say it."""
    if fields["sampling_rate"] != _BANK_RATE:
        raise _refusal(fields, "sampling_rate", f"{_BANK_RATE}, as its frames have {_FRAME} samples at any rate")
    for field, most in (("max_length", _MOST_FRAMES), ("num_mel_bins", _MOST_BANDS)):
        stated = getattr(config, field, None)
        if type(fields.get(field)) is not int or not 1 <= fields[field] <= most or fields[field] != stated:
            raise _refusal(fields, field, f"{stated}, as in config.json, and at most {most}")
    for field, least in (("mean", -1000.0), ("std", 1e-4)):
        value = fields.get(field)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= 500:
            raise _refusal(fields, field, f"a number from {least:g} to 500")
    return FilterBank(
        frames=fields["max_length"],
        n_mels=fields["num_mel_bins"],
        frame_samples=_FRAME,
        hop_samples=_HOP,
        n_fft=_FFT,
        low_hz=_LOW_HZ,
        high_hz=_BANK_RATE / 2,
        preemphasis=_PREEMPHASIS,
        log_floor=_LOG_FLOOR,
        mean=float(fields["mean"]) if fields["do_normalize"] else 0.0,
        std=2.0 * fields["std"] if fields["do_normalize"] else 1.0,  # it divides by twice the deviation
    )


def _same_features(extractor: Any, spec: RecordingPreprocessing) -> bool:
    """Whether a specification gives an extractor's own input, of a recording that is louder on one side of zero."""
    encoder = RecordingEncoder(spec)
    samples = (0.2 * np.random.default_rng(0).standard_normal(spec.sample_rate // 2) + 0.05).astype(np.float32)
    try:
        expected = np.asarray(extractor(samples, sampling_rate=spec.sample_rate, return_tensors="np")["input_values"])
    except Exception:  # of any extractor
        return False
    found = encoder.padded(samples, len(samples)) if spec.filter_bank is None else encoder.energies(samples)
    return found.shape == expected.shape and float(np.abs(found - expected).max()) <= _TOLERANCE
