"""Eleven seconds of real speech, what tiny.en makes of them in torch, and greedy decoding in its plainest form."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import transformers
from numpy.typing import NDArray
from small_speech import Speech, mask_of

from edgeformer_runtime.engines.decoder import SpeechDecoder


def jfk_tokens(assets: Path) -> list[int]:
    """The baseline's tokens: 30 second windows, torch, fp32, greedy, no timestamps."""
    clips = json.loads((assets / "speech" / "baseline_tiny_en_fp32.json").read_text())["clips"]
    tokens: list[int] = next(clip["tokens"] for clip in clips if clip["file"] == "jfk.wav")
    return tokens


def jfk_mel(assets: Path) -> NDArray[np.float32]:
    """(1, 80, 1200), by the reference's feature extractor."""
    with wave.open(str(assets / "speech" / "jfk.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(assets / "whisper-tiny.en")
    mel: NDArray[np.float32] = extractor(samples, sampling_rate=16000, return_tensors="np").input_features
    return np.ascontiguousarray(mel[:, :, :1200], np.float32)


def greedy(decoder: SpeechDecoder, speech: Speech, mel: NDArray[np.float32]) -> list[int]:
    """The likeliest token each time, without timestamps, until the end."""
    spec, tokens = speech.spec, speech.spec.tokens
    decoder.encode(mel)
    mask = mask_of(decoder, [])
    _, output = decoder.prefill([tokens.start, tokens.no_timestamps], 0, 0, mask, (0, 1))
    found: list[int] = []
    for position in range(2, decoder.rows):
        mask[position - 2 : position] = 0
        logits = output.logits.copy()
        logits[list(spec.suppress if found else (*spec.suppress, *spec.suppress_at_start))] = -np.inf
        logits[tokens.first_timestamp :] = -np.inf
        token = int(logits.argmax())
        if token == tokens.end:
            break
        found.append(token)
        output = decoder.step(token, position, position, mask)
    return found
