"""Recordings as classifiers take them: what a manifest says of it, and samples or Kaldi's filter bank energies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.audio import RawAudio, open_audio

Floats = NDArray[np.float32]

# The part of recordings' preprocessing that a manifest holds.


@dataclass(frozen=True)
class FilterBank:
    """Logarithms of the energies in bands of the mel scale, as Kaldi computes them (Povey et al. 2011).

    Attributes:
        frames: T of the model's input. A recording of fewer is continued with logarithms of 0; of more it loses its
            end.
        n_mels: bands, of equal width on the mel scale 1127 ln(1 + Hz / 700).
        frame_samples: of one frame, under a symmetric Hann window.
        hop_samples: from one frame to the next; the first begins with the first sample.
        n_fft: what a frame is filled up to with zeros before its spectrum is taken.
        low_hz, high_hz: where the first band begins and the last one ends.
        preemphasis: the factor of the sample before, which is subtracted from each.
        log_floor: what energies are raised to before the natural logarithm.
        mean, std: of the model's input, which is (logarithm - mean) / std.
    """

    frames: int
    n_mels: int
    frame_samples: int
    hop_samples: int
    n_fft: int
    low_hz: float
    high_hz: float
    preemphasis: float
    log_floor: float
    mean: float
    std: float

    def __post_init__(self) -> None:
        sizes = (self.frames, self.n_mels, self.hop_samples)
        if min(sizes) < 1 or not 2 <= self.frame_samples <= self.n_fft or self.n_fft % 2:
            raise InputError(
                "filter bank: expected frames, n_mels and hop_samples above 0 and an even n_fft of at least "
                f"frame_samples, found {sizes}, {self.n_fft} and {self.frame_samples}"
            )
        if not (0 <= self.low_hz < self.high_hz and self.log_floor >= np.finfo(np.float32).tiny and self.std > 0):
            raise InputError(
                f"filter bank: expected 0 <= low_hz < high_hz, a log_floor that float32 holds and a std above 0, found "
                f"{self.low_hz:g}, {self.high_hz:g}, {self.log_floor:g} and {self.std:g}"
            )

    @property
    def samples(self) -> int:
        """Of the longest recording that loses nothing but what fills no frame."""
        return self.frame_samples + (self.frames - 1) * self.hop_samples


@dataclass(frozen=True)
class RecordingPreprocessing:
    """A recording to the input of a classifier.

    Attributes:
        sample_rate: of the model, in Hz; audio of another rate is resampled.
        shortest_samples: of a recording that the model can classify.
        normalize: whether samples get a mean of 0 and a variance of 1, taken over the whole recording.
        filter_bank: what is computed of the samples; None: they are the input themselves.
    """

    sample_rate: int
    shortest_samples: int
    normalize: bool
    filter_bank: FilterBank | None
    kind: str = "recording"

    def __post_init__(self) -> None:
        if min(self.sample_rate, self.shortest_samples) < 1:
            raise InputError("recording: expected a sample_rate and shortest_samples of at least 1")
        bank = self.filter_bank
        if bank is None:
            return
        if self.normalize or bank.high_hz > self.sample_rate / 2 or self.shortest_samples < bank.frame_samples:
            raise InputError(
                "recording: a filter_bank takes samples as they are, ends at half the sample_rate, and has a whole "
                "frame in the shortest recording"
            )


# What a model takes of them.

VARIANCE_FLOOR = 1e-7
"""Added to the variance of samples, as transformers' Wav2Vec2FeatureExtractor does."""


class RecordingEncoder:
    """Turns recordings into a classifier's input. Calls from several threads are safe: nothing changes after init.

    Like `LogMel` it multiplies with the filters without BLAS, whose threads would go on spinning beside the engine.

    Example:
        >>> spec = RecordingPreprocessing(16000, 400, normalize=True, filter_bank=None)
        >>> encode = RecordingEncoder(spec)
        >>> samples, truncated = encode.read(np.zeros(900, np.float32), 800)
        >>> encode.padded(samples, 1200).shape, truncated
        ((1, 1200), True)
    """

    def __init__(self, spec: RecordingPreprocessing) -> None:
        self._spec = spec
        bank = spec.filter_bank
        if bank is not None:
            # A band that has no bin gets the first one with weight 0.
            filters = mel_filters(bank, spec.sample_rate)
            used = filters > 0
            used[:, 0] |= ~used.any(axis=1)
            bands, self._bins = np.nonzero(used)
            self._weights = filters[used][:, None]
            self._starts = np.searchsorted(bands, np.arange(bank.n_mels))
            self._window = np.hanning(bank.frame_samples)

    def read(self, raw: RawAudio, most: int) -> tuple[Floats, bool]:
        """The first samples of a recording at the model's rate.

        Args:
            raw: see `RawAudio`.
            most: how many, at most.

        Returns:
            (N,) float32 as they are recorded, and whether the recording goes on behind them.

        Raises:
            InputError: no audio, or fewer samples than the model can classify.
        """
        with open_audio(raw, self._spec.sample_rate) as reader:
            samples = reader.read(most + 1)
        if len(samples) < self._spec.shortest_samples:
            rate, least = self._spec.sample_rate, self._spec.shortest_samples
            raise InputError(f"expected a recording of at least {least} samples at {rate} Hz, found {len(samples)}")
        return samples[:most], len(samples) > most

    def padded(self, samples: Floats, length: int) -> Floats:
        """Samples (N,), normalised where the model wants it, with zeros behind them: (1, `length`) float32."""
        out = np.zeros((1, length), np.float32)
        if self._spec.normalize:
            centred = samples - samples.mean(dtype=np.float64)
            samples = (centred / np.sqrt(np.square(centred).mean() + VARIANCE_FLOOR)).astype(np.float32)
        out[0, : len(samples)] = samples
        return out

    def energies(self, samples: Floats) -> Floats:
        """Samples (N,), at least one frame of them, as a filter bank's model takes them: (1, frames, n_mels) float32.

        The steps are those of transformers' ASTFeatureExtractor where torchaudio is not installed.
        """
        bank = self._spec.filter_bank
        assert bank is not None
        framed = np.lib.stride_tricks.sliding_window_view(samples, bank.frame_samples)[:: bank.hop_samples]
        framed = framed[: bank.frames].astype(np.float64)  # (frames that are there, frame_samples)
        framed -= framed.mean(axis=1, keepdims=True)
        framed[:, 1:] -= bank.preemphasis * framed[:, :-1]
        framed[:, 0] *= 1 - bank.preemphasis
        spectrum = np.fft.rfft(framed * self._window, bank.n_fft)
        power = (spectrum.real**2 + spectrum.imag**2).T  # (bins, frames that are there)
        energies = np.add.reduceat(power[self._bins] * self._weights, self._starts)
        logarithms = np.zeros((bank.frames, bank.n_mels), np.float32)
        logarithms[: len(framed)] = np.log(np.maximum(energies, bank.log_floor)).T
        scaled: Floats = (logarithms[None] - np.float32(bank.mean)) / np.float32(bank.std)
        return scaled


def mel_filters(bank: FilterBank, sample_rate: int) -> NDArray[np.float64]:
    """(n_mels, n_fft // 2 + 1): triangles of height 1 on the mel scale, each as wide as two bands."""
    bins = _mel(np.linspace(0, sample_rate / 2, bank.n_fft // 2 + 1))
    edges = np.linspace(_mel(bank.low_hz), _mel(bank.high_hz), bank.n_mels + 2)
    slopes = (bins[None] - edges[:-1, None]) / np.diff(edges)[:, None]
    filters: NDArray[np.float64] = np.maximum(0, np.minimum(slopes[:-1], 1 - slopes[1:]))
    return filters


def _mel(hz: float | NDArray[np.float64]) -> NDArray[np.float64]:
    return 1127.0 * np.log1p(np.asarray(hz) / 700.0)
