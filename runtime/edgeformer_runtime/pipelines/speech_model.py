"""A speech bundle opened: its tokenizer, its mel filters, and the decoder of the length of audio in use."""

from __future__ import annotations

import threading
from typing import cast

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.specs import FRAMES_PER_POSITION, AudioBucket, AudioPreprocessing, Transcription
from edgeformer_runtime.decoding.tokenizer import SpeechTokenizer
from edgeformer_runtime.engines.base import Engine
from edgeformer_runtime.engines.decoder import SpeechDecoder
from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.preprocess.log_mel import LogMel, read_mel_filters

Samples = NDArray[np.float32]

SLACK_SECONDS = 0.5
"""Computed silence that a bucket has behind the audio. Where precomputed silence begins right behind the last word,
decoders lose words or lose themselves; the whole window, which has none of it, needs no slack."""


class SpeechModel:
    """What all transcriptions with a bundle share. `lock` is to be held while a decoder is in use."""

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        """Open the model of a bundle.

        Raises:
            BundleError: its tokenizer or its filters are corrupted.
        """
        self.audio = cast(AudioPreprocessing, bundle.manifest.preprocessing)
        self.spec = cast(Transcription, bundle.manifest.postprocessing)
        self.tokenizer = SpeechTokenizer(_text(bundle, self.spec.tokenizer), self.spec.tokens.end)
        self.lock = threading.RLock()
        self._engine = engine
        self._log_mel = LogMel(self.audio, read_mel_filters(bundle.read_bytes(self.audio.mel_filters), self.audio))
        self._bucket: AudioBucket | None = None
        self._decoder: SpeechDecoder | None = None

    @property
    def window_samples(self) -> int:
        """Samples that the model transcribes at once, at most."""
        return self.audio.window_seconds * self.audio.sample_rate

    @property
    def seconds_per_position(self) -> float:
        """Of audio, for each position of the encoder."""
        return self.audio.samples_per_position / self.audio.sample_rate

    def bucket_for(self, samples: int) -> AudioBucket:
        """The smallest bucket that holds so many samples and `SLACK_SECONDS` of silence, or else the whole window.

        Raises:
            InputError: they are more than a window's.
        """
        if samples > self.window_samples:
            raise InputError(f"expected at most {self.window_samples} samples of audio at once, found {samples}")
        needed = samples + round(SLACK_SECONDS * self.audio.sample_rate)
        buckets = self.spec.buckets
        return next(
            (each for each in buckets if each.positions * self.audio.samples_per_position >= needed), buckets[-1]
        )

    def mel(self, samples: Samples, bucket: AudioBucket) -> Samples:
        """The input of a bucket's `encode`, (1, n_mels, 2 T) float32, for samples (N,)."""
        return self._log_mel(samples, FRAMES_PER_POSITION * bucket.positions)

    def decoder(self, bucket: AudioBucket) -> SpeechDecoder:
        """The open decoder of a bucket, which takes the place of another bucket's.

        Only one is open: its caches have some MB, opening takes 1 to 3 ms, and a transcript a hundred times that.
        """
        if self._decoder is None or self._bucket != bucket:
            self._close_decoder()
            self._decoder, self._bucket = self._engine.open_decoder(bucket, self.spec), bucket
        return self._decoder

    def close(self) -> None:
        """Release the decoder. A second call does nothing."""
        with self.lock:
            self._close_decoder()

    def _close_decoder(self) -> None:
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None


def _text(bundle: Bundle, name: str) -> str:
    try:
        return bundle.read_bytes(name).decode("utf-8")
    except UnicodeDecodeError:
        raise BundleError(f"{name}: expected UTF-8 text") from None
