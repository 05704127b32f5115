"""Engines that run Whisper: each factory loads a model and gives a function from samples to what was transcribed.

They are called in a process of their own, so each imports only what it needs. All decode alike: greedily, in English,
without timestamps, without a second try at a higher temperature, without a detector of speech before the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

LANGUAGE = "en"


@dataclass(frozen=True)
class Hypothesis:
    """The text of a clip and the number of its tokens."""

    text: str
    tokens: int


Transcribe = Callable[[Samples, int | None], Hypothesis]
"""Samples (N,) float32 at 16 kHz, and how many tokens to stop at (None: where the model does)."""


def bundle(path: str, threads: int) -> Transcribe:
    """Ours: the pipeline of a bundle, as an app calls it."""
    from edgeformer_runtime import load
    from edgeformer_runtime.decoding.options import TranscribeOptions

    transcriber: Any = load(path, threads=threads)
    settings: dict[str, Any] = {
        "language": LANGUAGE if transcriber.spec.tokens.languages else None,
        "timestamps": False,
        "temperatures": (0.0,),
        "compression_ratio_threshold": None,
        "log_probability_threshold": None,
        "no_speech_threshold": None,
    }

    def transcribe(samples: Samples, max_tokens: int | None) -> Hypothesis:
        limit: dict[str, Any] = {} if max_tokens is None else {"max_tokens": max_tokens}
        transcript = transcriber.run(samples, TranscribeOptions(**settings, **limit))
        return Hypothesis(transcript.text, sum(len(segment.tokens) for segment in transcript.segments))

    return transcribe


def faster_whisper(folder: str, precision: str, threads: int) -> Transcribe:
    """CTranslate2 through faster-whisper. `precision` is one of CTranslate2's compute types."""
    from faster_whisper import WhisperModel

    model = WhisperModel(folder, device="cpu", compute_type=precision, cpu_threads=threads)

    def transcribe(samples: Samples, max_tokens: int | None) -> Hypothesis:
        segments, _ = model.transcribe(
            samples,
            language=LANGUAGE,
            beam_size=1,
            temperature=0.0,
            compression_ratio_threshold=None,
            log_prob_threshold=None,
            no_speech_threshold=None,
            condition_on_previous_text=False,
            without_timestamps=True,
            vad_filter=False,
            max_new_tokens=max_tokens,
        )
        found = list(segments)  # it computes as it is read
        return Hypothesis("".join(each.text for each in found), sum(len(each.tokens) for each in found))

    return transcribe


def whisper_cpp(file: str, threads: int) -> Transcribe:
    """whisper.cpp through pywhispercpp, on a file that `ggml_whisper` wrote."""
    import _pywhispercpp as native
    from pywhispercpp.model import Model

    model: Any = Model(
        file,
        n_threads=threads,
        language=LANGUAGE,
        no_timestamps=True,
        single_segment=True,
        suppress_nst=True,
        temperature_inc=0.0,
        print_progress=False,
        print_realtime=False,
    )

    def transcribe(samples: Samples, max_tokens: int | None) -> Hypothesis:
        segments = model.transcribe(samples, max_tokens=max_tokens or 0)
        tokens = sum(native.whisper_full_n_tokens(model._ctx, index) for index in range(len(segments)))
        return Hypothesis("".join(each.text for each in segments), tokens)

    return transcribe


def transformers(folder: str, threads: int) -> Transcribe:
    """torch, eagerly, as transformers runs it: its feature extractor, its model in float32, its `generate`."""
    import torch
    from tokenizers import Tokenizer
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

    torch.set_num_threads(threads)
    extract = WhisperFeatureExtractor.from_pretrained(folder)
    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    multilingual = getattr(model.generation_config, "is_multilingual", False)  # older checkpoints do not say
    spoken = {"language": LANGUAGE, "task": "transcribe"} if multilingual else {}

    def transcribe(samples: Samples, max_tokens: int | None) -> Hypothesis:
        limit = {} if max_tokens is None else {"max_new_tokens": max_tokens}
        features = extract(samples, sampling_rate=extract.sampling_rate, return_tensors="pt").input_features
        with torch.inference_mode():
            tokens = model.generate(features, num_beams=1, do_sample=False, **spoken, **limit)[0]
        text = tokenizer.decode(tokens.tolist(), skip_special_tokens=True)
        return Hypothesis(text, int((tokens < model.generation_config.eos_token_id).sum()))

    return transcribe
