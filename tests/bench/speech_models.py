"""One Whisper in the formats of its peers, made once and kept: every contender computes with the same weights."""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from edgeformer.attention import KERNELS
from edgeformer.checkpoints import Checkpoint, load_module
from edgeformer_runtime.decoding.tokenizer import SpeechTokenizer

CT2_FILES = ("tokenizer.json", "preprocessor_config.json")


class PeerModels:
    """A checkpoint's conversions, in a folder that is named after its weights."""

    def __init__(self, checkpoint: Checkpoint, cache: Path) -> None:
        """`cache`: where conversions of all checkpoints lie."""
        self._checkpoint = checkpoint
        self._folder = cache / checkpoint.source.weights_sha256[:16]

    def public(self) -> Path:
        """A folder in the Hugging Face format: the checkpoint's own, or one made of it."""
        own = self._checkpoint.folder
        if any(file.suffix == ".safetensors" for file in self._checkpoint.weight_files):
            return own
        return self._made(f"public-{_version('transformers')}", self._write_public)

    def ctranslate2(self, precision: str) -> Path:
        """A folder for faster-whisper, as CTranslate2's own converter makes it; int8 or float32."""

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
            from tests.bench.ggml_whisper import write_ggml

            module, _ = load_module(self._checkpoint, KERNELS["fused"])
            state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
            write_ggml(folder / "model.bin", self._checkpoint.config, state, self._vocabulary(), precision)

        return self._made(f"ggml-{precision}", write) / "model.bin"

    def _vocabulary(self) -> list[bytes]:
        """The bytes of the text tokens."""
        text, speech = self._checkpoint.tokenizer_json, self._checkpoint.speech
        assert text is not None and speech is not None
        tokenizer = SpeechTokenizer(text, speech.tokens.end)
        return [tokenizer._bytes_of(token) for token in range(speech.tokens.end)]

    def _write_public(self, folder: Path) -> None:
        import torch
        import transformers

        module, _ = load_module(self._checkpoint, KERNELS["fused"])
        sizes = asdict(self._checkpoint.config)
        sizes.pop("alignment_heads")
        model = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**sizes))
        with torch.no_grad():
            model.model.load_state_dict(module.state_dict())
        model.save_pretrained(folder)

    def _made(self, name: str, write: Callable[[Path], None]) -> Path:
        """The folder of one conversion, which appears when it is complete."""
        folder = self._folder / name
        if not folder.is_dir():
            self._folder.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(prefix=".making-", dir=self._folder))
            try:
                write(staging)
                staging.rename(folder)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        return folder


def _version(package: str) -> str:
    return importlib.metadata.version(package)


def size_bytes(model: Path) -> int:
    """Of a file, or of a folder's model.bin or safetensors files."""
    if model.is_file():
        return model.stat().st_size
    files = [model / "model.bin"] if (model / "model.bin").is_file() else list(model.glob("model*.safetensors"))
    return sum(file.stat().st_size for file in files)
