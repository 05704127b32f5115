"""A speech bundle opened: its tokenizer, its mel filters, and the decoders of the lengths of sound in use."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import cast

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime.bundle import Bundle
from edgeformer_runtime.decoding.tokenizer import SpeechTokenizer
from edgeformer_runtime.engines.base import Engine
from edgeformer_runtime.engines.decoder import SpeechDecoder
from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.preprocess.audio_spec import AudioPreprocessing
from edgeformer_runtime.preprocess.log_mel import LogMel, read_mel_filters
from edgeformer_runtime.speech_layout import FRAMES_PER_POSITION
from edgeformer_runtime.speech_spec import AudioBucket, Transcription

Samples = NDArray[np.float32]

OPEN_DECODERS = 3
"""Decoders that are kept open: a file's windows, its last window, and one more. Each holds caches of some MB."""


class SpeechModel:
    """What all transcriptions with a bundle share. `lock` is to be held while a decoder is in use."""

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        """Open the model of a bundle.

        Raises:
            BundleError: its tokenizer or its filters are spoiled.
        """
        self.audio = cast(AudioPreprocessing, bundle.manifest.preprocessing)
        self.spec = cast(Transcription, bundle.manifest.postprocessing)
        self.tokenizer = SpeechTokenizer(_text(bundle, self.spec.tokenizer), self.spec.tokens.end)
        self.lock = threading.RLock()
        self._engine = engine
        self._log_mel = LogMel(self.audio, read_mel_filters(bundle.read_bytes(self.audio.mel_filters), self.audio))
        self._decoders: OrderedDict[str, SpeechDecoder] = OrderedDict()

    @property
    def window_samples(self) -> int:
        """Samples that the model hears at once, at most."""
        return self.audio.window_seconds * self.audio.sample_rate

    @property
    def seconds_per_position(self) -> float:
        """Of sound, for each position of the encoder."""
        return self.audio.samples_per_position / self.audio.sample_rate

    def bucket_for(self, samples: int) -> AudioBucket:
        """The smallest bucket that holds so many samples.

        Raises:
            InputError: they are more than a window's.
        """
        positions = -(-samples // self.audio.samples_per_position)
        bucket = next((bucket for bucket in self.spec.buckets if bucket.positions >= positions), None)
        if bucket is None:
            raise InputError(f"expected at most {self.window_samples} samples of sound at once, found {samples}")
        return bucket

    def mel(self, samples: Samples, bucket: AudioBucket) -> Samples:
        """The input of a bucket's `encode`, (1, n_mels, 2 T) float32, for samples (N,)."""
        return self._log_mel(samples, FRAMES_PER_POSITION * bucket.positions)

    def decoder(self, bucket: AudioBucket) -> SpeechDecoder:
        """The open decoder of a bucket; the one that has not been used for longest makes room for it."""
        decoder = self._decoders.pop(bucket.encode, None)
        if decoder is None:
            while len(self._decoders) >= OPEN_DECODERS:
                self._decoders.popitem(last=False)[1].close()
            decoder = self._engine.open_decoder(bucket, self.spec)
        self._decoders[bucket.encode] = decoder
        return decoder

    def close(self) -> None:
        """Release the decoders. A second call does nothing."""
        with self.lock:
            while self._decoders:
                self._decoders.popitem()[1].close()


def _text(bundle: Bundle, name: str) -> str:
    try:
        return bundle.read_bytes(name).decode("utf-8")
    except UnicodeDecodeError:
        raise BundleError(f"{name}: expected UTF-8 text") from None
