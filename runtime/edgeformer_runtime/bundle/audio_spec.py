"""What a speech model expects of its sound, as data: the part of audio preprocessing that a manifest holds."""

from __future__ import annotations

from dataclasses import dataclass

from edgeformer_runtime.errors import InputError


@dataclass(frozen=True)
class AudioPreprocessing:
    """Sound to a log-mel spectrogram (Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak
    Supervision", section 2.2).

    Attributes:
        sample_rate: of the model, in Hz; sound of another rate is resampled.
        n_fft: samples of one frame, under a periodic Hann window.
        hop_length: samples from one frame to the next; an encoder position is two frames.
        n_mels: bands of the mel scale.
        mel_filters: the bundle's file with the filter bank: safetensors, one float32 tensor `mel_filters` of shape
            (n_mels, n_fft // 2 + 1).
        window_seconds: the longest sound that one run of the model takes.
        log_floor: what powers are raised to before the logarithm (base 10).
        dynamic_range: how far below the largest value of the window others may lie, in powers of ten.
    """

    sample_rate: int
    n_fft: int
    hop_length: int
    n_mels: int
    mel_filters: str
    window_seconds: int
    log_floor: float
    dynamic_range: float
    kind: str = "audio"

    def __post_init__(self) -> None:
        for name, value in (
            ("sample_rate", self.sample_rate),
            ("n_fft", self.n_fft),
            ("hop_length", self.hop_length),
            ("n_mels", self.n_mels),
            ("window_seconds", self.window_seconds),
            ("log_floor", self.log_floor),
            ("dynamic_range", self.dynamic_range),
        ):
            if value <= 0:
                raise InputError(f"audio preprocessing: {name} must be above 0, found {value!r}")
        if self.n_fft % 2 or self.hop_length > self.n_fft:
            raise InputError(
                f"audio preprocessing: expected an even n_fft of at least hop_length, found {self.n_fft} and "
                f"{self.hop_length}"
            )

    @property
    def samples_per_position(self) -> int:
        """Samples that one position of the encoder stands for: two frames, as its second convolution has stride 2."""
        return 2 * self.hop_length
