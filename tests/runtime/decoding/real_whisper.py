"""The assets' tiny.en as a transcriber whose programs run in torch, without a bundle or a converter."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import load_file

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.source_index import TorchEngine
from edgeformer.models.family import ProgramOptions
from edgeformer.models.whisper.family import rename
from edgeformer.models.whisper.model import Whisper, parse_config, with_alignment_heads
from edgeformer.models.whisper.programs import transcription_layout, whisper_programs
from edgeformer_runtime.bundle.specs import AudioPreprocessing, SpeechTokens, Transcription
from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.pipelines.speech import Transcriber
from edgeformer_runtime.preprocess.log_mel import mel_filter_bank, write_mel_filters

TOKENS = SpeechTokens(
    start=50257,
    end=50256,
    start_of_previous=50360,
    no_speech=50361,
    no_timestamps=50362,
    first_timestamp=50363,
    transcribe=None,
    translate=None,
    languages={},
)
AUDIO = AudioPreprocessing(
    sample_rate=16000,
    n_fft=400,
    hop_length=160,
    n_mels=80,
    mel_filters="mel_filters.safetensors",
    window_seconds=30,
    log_floor=1e-10,
    dynamic_range=8.0,
)


def open_tiny_english(folder: Path, window: str, options: TranscribeOptions | None = None) -> Transcriber:
    """The model of a public folder; window "tail" or "full"."""
    generation = json.loads((folder / "generation_config.json").read_text())
    config = parse_config(json.loads((folder / "config.json").read_text()))
    config, _ = with_alignment_heads(config, [tuple(head) for head in generation["alignment_heads"]])
    model = Whisper(config, KERNELS["fused"])
    weights = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    model.load_state_dict(rename(weights))
    chosen = ProgramOptions(window=window)
    layout = transcription_layout(config, chosen)
    with torch.inference_mode():
        programs = whisper_programs(model.eval(), config, chosen)
    spec = Transcription(
        tokenizer="tokenizer.json",
        tokens=TOKENS,
        suppress=tuple(generation["suppress_tokens"]),
        suppress_at_start=tuple(generation["begin_suppress_tokens"]),
        seconds_per_timestamp=0.02,
        max_initial_timestamp=1.0,
        **vars(layout),
    )
    files = {
        "tokenizer.json": (folder / "tokenizer.json").read_bytes(),
        AUDIO.mel_filters: write_mel_filters(mel_filter_bank(80, 400, 16000)),
    }
    manifest = SimpleNamespace(task="speech-recognition", preprocessing=AUDIO, postprocessing=spec)
    return Transcriber(
        SimpleNamespace(manifest=manifest, read_bytes=files.__getitem__), TorchEngine(programs), options=options
    )
