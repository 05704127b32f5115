"""One Whisper in the formats of its peers, made once and kept: every contender computes with the same weights."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import Checkpoint, load_module
from edgeformer_runtime.bundle.specs import SpeechTokens
from edgeformer_runtime.decoding.tokenizer import SpeechTokenizer
from edgeformer_runtime.delivery import put, work_folder

CT2_FILES = ("tokenizer.json", "preprocessor_config.json")
CT2_WEIGHTS = "model.bin"
WEIGHTS = ("model*.safetensors", CT2_WEIGHTS)


class PeerModels:
    """A checkpoint's conversions, in a folder that is named after its weights."""

    def __init__(self, checkpoint: Checkpoint, cache: Path) -> None:
        """`cache`: where conversions of all checkpoints lie."""
        self._checkpoint = checkpoint
        self._folder = cache / checkpoint.source.weights_sha256[:16]

    def public(self) -> Path:
        """A folder in the Hugging Face format: the checkpoint's own, or one made of it."""
        if self._is_ctranslate2:
            return self._made(f"public-{_version('transformers')}", self._write_public)
        return self._checkpoint.folder

    def ctranslate2(self, precision: str) -> Path:
        """A folder for faster-whisper, as CTranslate2's own converter makes it; int8 or float32.

        One that the checkpoint came in stays as it is: CTranslate2 converts its weights when it loads them.
        """
        if self._is_ctranslate2:
            return self._checkpoint.folder

        def write(folder: Path) -> None:
            from ctranslate2.converters import TransformersConverter

            files = [name for name in CT2_FILES if (self.public() / name).is_file()]
            TransformersConverter(str(self.public()), copy_files=files).convert(
                str(folder), quantization=None if precision == "float32" else precision, force=True
            )

        return self._made(f"ctranslate2-{_version('ctranslate2')}-{precision}", write)

    def ggml(self, precision: str) -> Path:
        """A file for whisper.cpp; fp16 or q8_0."""

        def write(folder: Path) -> None:
            from edgeformer.bench.ggml_whisper import write_ggml

            module, _ = load_module(self._checkpoint, KERNELS["fused"])
            state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
            write_ggml(folder / "model.bin", self._checkpoint.config, state, self._vocabulary(), precision)

        return self._made(f"ggml-{precision}", write) / "model.bin"

    @property
    def _is_ctranslate2(self) -> bool:
        return any(file.name == CT2_WEIGHTS for file in self._checkpoint.weight_files)

    def _vocabulary(self) -> list[bytes]:
        """The bytes of the text tokens."""
        text, speech = self._checkpoint.tokenizer_json, self._checkpoint.speech
        assert text is not None and speech is not None
        tokenizer = SpeechTokenizer(text, speech.tokens.end)
        return [tokenizer.bytes_of(token) for token in range(speech.tokens.end)]

    def _write_public(self, folder: Path) -> None:
        """What transformers needs: weights, sizes, the tokens that steer it, the features of sound, the tokenizer."""
        import torch
        import transformers

        config, speech = self._checkpoint.config, self._checkpoint.speech
        assert speech is not None and self._checkpoint.tokenizer_json is not None
        sizes = asdict(config)
        del sizes["alignment_heads"]
        tokens = speech.tokens
        ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokens.end)
        model = transformers.WhisperForConditionalGeneration(
            transformers.WhisperConfig(**sizes, **ends, decoder_start_token_id=tokens.start)
        )
        module, _ = load_module(self._checkpoint, KERNELS["fused"])
        with torch.no_grad():
            model.model.load_state_dict(module.state_dict())
        model.generation_config = transformers.GenerationConfig(
            **ends,
            decoder_start_token_id=tokens.start,
            max_length=config.max_target_positions,
            suppress_tokens=list(speech.suppress),
            begin_suppress_tokens=list(speech.suppress_at_start),
            no_timestamps_token_id=tokens.no_timestamps,
            is_multilingual=bool(tokens.languages),
            **(_multilingual(tokens) if tokens.languages else {}),
        )
        model.save_pretrained(folder)
        transformers.WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(folder)
        (folder / "tokenizer.json").write_text(self._checkpoint.tokenizer_json, encoding="utf-8")

    def _made(self, name: str, write: Callable[[Path], None]) -> Path:
        """The folder of one conversion, which appears when it is complete."""
        folder = self._folder / name
        if not folder.is_dir():
            with work_folder(self._folder, create=True) as work:
                (work / name).mkdir()
                write(work / name)
                put(work / name, folder)
        return folder


def _multilingual(tokens: SpeechTokens) -> dict[str, dict[str, int | None]]:
    """Where transformers finds languages, it also looks for one, so an English model must not name any."""
    return {
        "lang_to_id": {f"<|{language}|>": token for language, token in tokens.languages.items()},
        "task_to_id": {"transcribe": tokens.transcribe, "translate": tokens.translate},
    }


def _version(package: str) -> str:
    return importlib.metadata.version(package)


def size_bytes(model: Path) -> int:
    """Of a file, or of the weight files in a folder."""
    if model.is_file():
        return model.stat().st_size
    files = (file for pattern in WEIGHTS for file in model.glob(pattern))
    return sum(file.stat().st_size for file in files)
