"""Log-mel spectrograms as Whisper was trained on them (Radford et al. 2022, section 2.2), and what classifiers take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime.bundle.specs import MAX_FILTERS_FILE_BYTES, AudioPreprocessing
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.preprocess.audio import RawAudio, open_audio
from edgeformer_runtime.registry import load_attribute
from edgeformer_runtime.tasks.speech import FilterBank, RecordingPreprocessing

MEL_FILTERS_TENSOR = "mel_filters"
"""The name of the one tensor in a file of filters."""


# Frames that are transformed at a time, so that they stay in the cache.
_BLOCK_FRAMES = 128

# Slaney's mel scale (Auditory Toolbox, 1998): linear to 1000 Hz, then 27 mel to a factor of 6.4.
_HZ_PER_MEL = 200 / 3
_LOG_FROM_HZ = 1000.0
_LOG_FROM_MEL = _LOG_FROM_HZ / _HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27


def mel_filter_bank(n_mels: int, n_fft: int, sample_rate: int) -> NDArray[np.float32]:
    """Triangular filters from 0 Hz to half the sample rate, on Slaney's mel scale and each of unit area.

    Args:
        n_mels: number of bands.
        n_fft: samples of a frame.
        sample_rate: in Hz.

    Returns:
        (n_mels, n_fft // 2 + 1) float32, weights of the power spectrum's bins.

    Raises:
        InputError: sizes below 1.
    """
    if min(n_mels, n_fft, sample_rate) < 1:
        raise InputError(f"mel filters: expected sizes above 0, found {n_mels}, {n_fft} and {sample_rate}")
    bins = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)
    edges = _mel_to_hz(np.linspace(0, _hz_to_mel(sample_rate / 2), n_mels + 2))  # band i spans edges i to i + 2
    slopes = (bins[None] - edges[:, None]) / np.maximum(np.diff(edges, append=np.inf), 1e-9)[:, None]
    rising, falling = slopes[:-2], 1 - slopes[1:-1]
    areas = 2 / (edges[2:] - edges[:-2])
    return (np.maximum(0, np.minimum(rising, falling)) * areas[:, None]).astype(np.float32)


def _hz_to_mel(hz: float) -> float:
    return hz / _HZ_PER_MEL if hz < _LOG_FROM_HZ else _LOG_FROM_MEL + float(np.log(hz / _LOG_FROM_HZ)) / _LOG_STEP


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _LOG_FROM_HZ * np.exp(_LOG_STEP * (mel - _LOG_FROM_MEL))
    return np.where(mel < _LOG_FROM_MEL, mel * _HZ_PER_MEL, above)


def write_mel_filters(filters: NDArray[np.float32]) -> bytes:
    """The bytes of the file that `read_mel_filters` reads; `filters` is (n_mels, n_fft // 2 + 1) float32."""
    data: bytes = load_attribute("safetensors.numpy:save")({MEL_FILTERS_TENSOR: np.ascontiguousarray(filters)})
    return data


def read_mel_filters(file: Path | bytes, spec: AudioPreprocessing) -> NDArray[np.float32]:
    """A bundle's filter bank.

    Args:
        file: its path or its bytes.
        spec: the manifest's preprocessing, which states the shape.

    Returns:
        (n_mels, n_fft // 2 + 1) float32.

    Raises:
        BundleError: not safetensors, other tensors, or another shape or dtype than the spec's.
    """
    if isinstance(file, Path):
        try:
            file = file.read_bytes()
        except OSError as error:
            raise BundleError(f"{spec.mel_filters}: cannot be read: {error.strerror}") from None
    if len(file) > MAX_FILTERS_FILE_BYTES:
        raise BundleError(f"{spec.mel_filters}: expected at most {MAX_FILTERS_FILE_BYTES} bytes, found {len(file)}")
    try:
        tensors = load_attribute("safetensors.numpy:load")(file)
    except (load_attribute("safetensors:SafetensorError"), KeyError, ValueError, TypeError) as error:
        raise BundleError(f"{spec.mel_filters}: not a safetensors file: {shorten(str(error))[1:-1]}") from None
    if list(tensors) != [MEL_FILTERS_TENSOR]:
        raise BundleError(f"{spec.mel_filters}: expected one tensor {MEL_FILTERS_TENSOR}, found {shorten([*tensors])}")
    filters: NDArray[np.float32] = tensors[MEL_FILTERS_TENSOR]
    _check_filters(filters, spec)
    return filters


def _check_filters(filters: NDArray[np.float32], spec: AudioPreprocessing) -> None:
    shape = (spec.n_mels, spec.n_fft // 2 + 1)
    if filters.dtype != np.float32 or filters.shape != shape:
        raise BundleError(
            f"{spec.mel_filters}: expected float32 mel filters of shape {shape}, "
            f"found {filters.dtype} of shape {filters.shape}"
        )
    if not np.isfinite(filters).all() or filters.min() < 0:
        raise BundleError(f"{spec.mel_filters}: expected finite mel filters of at least 0")


QUIET_PEAK, LOUD_PEAK, LEVELED_PEAK = 0.05, 1.0, 0.5
"""Largest magnitudes of a window: below and above the first two it is far from what models were trained on, and from
the level of a bundle's precomputed silence, and gets the third."""


def leveled(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Samples (N,) of one window, amplified or attenuated where they are far too quiet or too loud."""
    peak = float(np.abs(samples).max(initial=0.0))
    if not np.isfinite(peak) or peak == 0 or QUIET_PEAK <= peak <= LOUD_PEAK:
        return samples
    scaled: NDArray[np.float32] = samples * np.float32(LEVELED_PEAK / peak)
    return scaled


CLIPPED_PEAKS = (0.97, 1.1)
"""Of what was clipped at full scale; resampling lets it ring a little."""


def clipped_samples(samples: NDArray[np.float32]) -> int:
    """How many samples (N,) lie at full scale, within 2 % of the largest."""
    sizes = np.abs(samples)
    peak = float(sizes.max(initial=0.0))
    least, most = CLIPPED_PEAKS
    return int((sizes >= 0.98 * peak).sum()) if least <= peak <= most else 0


class LogMel:
    """Turns samples into a model's input. Calls from several threads are safe: nothing changes after init.

    The steps are the reference's (transformers' WhisperFeatureExtractor): pad the audio with zeros to the whole window,
    reflect the window at both ends by half a frame, take the power spectrum of each frame but the last under a periodic
    Hann window, apply the filters, take the logarithm, raise what lies too far below the largest value of the whole
    window, scale. Frames of the zeros behind the audio are constant, so only those that touch the audio are computed,
    and the result is the reference's: the largest value is found among all of these, wherever `frames` ends.

    The matrix product with the filters is done without BLAS, which would start as many threads as the machine has cores
    for it and leave them spinning beside the engine. The filters are nearly empty, so nothing is lost.
    """

    def __init__(self, spec: AudioPreprocessing, filters: NDArray[np.float32]) -> None:
        """`filters` as `read_mel_filters` or `mel_filter_bank` gives them.

        Raises:
            BundleError: filters of another shape or dtype than the spec's, or a spec that float32 cannot follow.
        """
        _check_filters(filters, spec)
        if spec.log_floor < np.finfo(np.float32).tiny or spec.n_fft > spec.window_seconds * spec.sample_rate:
            raise BundleError(
                f"expected a log floor that float32 can hold and frames within the window, found {spec.log_floor:g} "
                f"and {spec.n_fft} samples"
            )
        self._spec = spec
        self._window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(spec.n_fft) / spec.n_fft)
        used = filters > 0
        used[:, 0] |= ~used.any(axis=1)  # a band that has no bin gets one of weight 0
        bands, self._bins = np.nonzero(used)
        self._weights = filters[used][:, None]
        self._starts = np.searchsorted(bands, np.arange(spec.n_mels))

    @property
    def window_samples(self) -> int:
        """The most samples that one call takes."""
        return self._spec.window_seconds * self._spec.sample_rate

    def __call__(self, samples: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
        """The first `frames` frames of the window that starts with `samples`.

        Args:
            samples: (N,) float32 at the spec's rate, N from 0 to `window_samples`.
            frames: 1 to the window's, each `hop_length` samples.

        Returns:
            (1, n_mels, frames) float32.

        Raises:
            InputError: samples of another shape or dtype, too many, or not finite; frames out of range.
        """
        window_frames = self.window_samples // self._spec.hop_length
        self._check(samples, frames, window_frames)
        # A frame is centered on its time, so one that starts before the recording's end touches it.
        sounding = min(window_frames, -(-(len(samples) + self._spec.n_fft // 2) // self._spec.hop_length))
        with np.errstate(over="ignore", invalid="ignore"):  # shows in the largest value, below
            mel = self._mel(self._padded(samples, sounding), sounding)
        log = np.log10(np.maximum(mel, np.float32(self._spec.log_floor)))
        largest = float(log.max())
        if not np.isfinite(largest):
            raise InputError("the samples hold NaN, infinity or absurd values: expected -1 to 1 for full scale")
        least = max(largest - self._spec.dynamic_range, float(np.log10(self._spec.log_floor)))
        out = np.full((1, self._spec.n_mels, frames), least, dtype=np.float32)
        np.maximum(log[:, :frames], np.float32(least), out=out[0, :, :sounding])
        # The logarithm's range of about -4 to 4 becomes 0 to 2.
        out += 4
        out /= 4
        return out

    def _check(self, samples: NDArray[np.float32], frames: int, window_frames: int) -> None:
        if samples.dtype != np.float32 or samples.ndim != 1:
            raise InputError(f"expected float32 samples (N,), found {samples.dtype} of shape {samples.shape}")
        if len(samples) > self.window_samples:
            raise InputError(f"expected at most {self.window_samples} samples, found {len(samples)}: cut the audio")
        if not 1 <= frames <= window_frames:
            raise InputError(f"expected 1 to {window_frames} frames, found {frames}")

    def _padded(self, samples: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
        """The samples that `frames` frames take, from half a frame before the window's first sample."""
        half = self._spec.n_fft // 2
        out = np.zeros((frames - 1) * self._spec.hop_length + self._spec.n_fft, dtype=np.float32)
        kept = samples[: len(out) - half]
        out[half : half + len(kept)] = kept
        out[:half] = out[2 * half : half : -1]
        behind = len(out) - half - self.window_samples
        if behind > 0:
            end = half + self.window_samples
            out[end:] = out[end - 2 : end - 2 - behind : -1]
        return out

    def _mel(self, padded: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
        """(n_mels, frames): the power in each band."""
        out = np.empty((self._spec.n_mels, frames), dtype=np.float32)
        framed = np.lib.stride_tricks.sliding_window_view(padded, self._spec.n_fft)[:: self._spec.hop_length]
        for start in range(0, frames, _BLOCK_FRAMES):
            # float64: numpy's transform of float32 is slower, and in the quietest bands less exact.
            spectrum = np.fft.rfft(framed[start : start + _BLOCK_FRAMES] * self._window)
            power = (spectrum.real**2 + spectrum.imag**2).T.astype(np.float32, order="C")  # (bins, frames)
            weighted = power[self._bins] * self._weights
            np.add.reduceat(weighted, self._starts, out=out[:, start : start + _BLOCK_FRAMES])
        return out


# What classifiers of recordings take: the samples themselves, or the logarithms of energies as Kaldi computes them.

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
            filters = kaldi_filters(bank, spec.sample_rate)
            used = filters > 0
            used[:, 0] |= ~used.any(axis=1)
            bands, self._bins = np.nonzero(used)
            self._weights = filters[used][:, None]
            self._starts = np.searchsorted(bands, np.arange(bank.n_mels))
            self._window = np.hanning(bank.frame_samples)

    def read(self, raw: RawAudio, most: int) -> tuple[NDArray[np.float32], bool]:
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

    def padded(self, samples: NDArray[np.float32], length: int) -> NDArray[np.float32]:
        """Samples (N,), normalised where the model wants it, with zeros behind them: (1, `length`) float32."""
        out = np.zeros((1, length), np.float32)
        if self._spec.normalize:
            centred = samples - samples.mean(dtype=np.float64)
            samples = (centred / np.sqrt(np.square(centred).mean() + VARIANCE_FLOOR)).astype(np.float32)
        out[0, : len(samples)] = samples
        return out

    def energies(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
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
        scaled: NDArray[np.float32] = (logarithms[None] - np.float32(bank.mean)) / np.float32(bank.std)
        return scaled


def kaldi_filters(bank: FilterBank, sample_rate: int) -> NDArray[np.float64]:
    """(n_mels, n_fft // 2 + 1): triangles of height 1 on the mel scale, each as wide as two bands."""
    bins = _mel(np.linspace(0, sample_rate / 2, bank.n_fft // 2 + 1))
    edges = np.linspace(_mel(bank.low_hz), _mel(bank.high_hz), bank.n_mels + 2)
    slopes = (bins[None] - edges[:-1, None]) / np.diff(edges)[:, None]
    filters: NDArray[np.float64] = np.maximum(0, np.minimum(slopes[:-1], 1 - slopes[1:]))
    return filters


def _mel(hz: float | NDArray[np.float64]) -> NDArray[np.float64]:
    return 1127.0 * np.log1p(np.asarray(hz) / 700.0)
