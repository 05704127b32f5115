"""The engines of the speech benchmark, by the name under which its processes load them."""

from edgeformer.bench.whisper_engines import (
    Hypothesis,
    Samples,
    Transcribe,
    bundle,
    faster_whisper,
    transformers,
    whisper_cpp,
)

__all__ = ["Hypothesis", "Samples", "Transcribe", "bundle", "faster_whisper", "transformers", "whisper_cpp"]
