"""Whole small bundles whose recorded vectors are complete, so that an engine can answer from them alone."""

from __future__ import annotations

import json
import tempfile
import wave
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from edgeformer_runtime.bundle.bundle import Bundle, pack
from edgeformer_runtime.bundle.manifest import MANIFEST_NAME, FileEntry, Manifest, TextPreprocessing
from edgeformer_runtime.bundle.specs import AudioBucket, Transcription
from edgeformer_runtime.bundle.vectors import Case, Tolerances, write_vectors
from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.decoding.prompt import build_prompt
from edgeformer_runtime.engines import Tensor
from edgeformer_runtime.engines.checked import decoder_over
from edgeformer_runtime.engines.decoder import SpeechDecoder, StateOwners
from edgeformer_runtime.pipelines import open_pipeline
from edgeformer_runtime.pipelines.program import ProgramPipeline
from edgeformer_runtime.pipelines.speech import Transcriber
from edgeformer_runtime.preprocess.log_mel import mel_filter_bank, write_mel_filters
from edgeformer_runtime.tasks.image_text import PHOTO_TEMPLATE
from edgeformer_runtime.tasks.programs import MASK_POSITION
from edgeformer_runtime.verify.decoder_replay import record
from tests.golden import tiny_manifests as tiny

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "turn", "the", "lights", "off", "on", "hello", "##s", "!")
TEXT_SAMPLES = (
    {"text": "turn the lights off!"},
    {"text": ""},
    {"text": "hello", "pair": "turn the lights on"},
    {"text": "hello " * 40},
    {"token_ids": [2, 9, 3]},
)
IMAGE_SAMPLES = ({"image": "vectors/noise.png"}, {"image": "vectors/ramp.png"})
AUDIO = "vectors/audio.wav"
SPEECH_SAMPLES = {"encode_25": 7000, "encode_50": 16000}
SPOKEN = {"encode_25": "hello", "encode_50": "h\u00e9llo, you"}
TOLERANCES = Tolerances(output=1e-4, score=1e-4)
MODEL_BYTES = bytes(range(256))
"""What stands for a model: no engine could open it."""


def byte_tokenizer() -> str:
    """A tokenizers file in which the token of each byte is its value."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    own = [character for character in alphabet if ord(character) < 256]
    moved = [byte for byte in range(256) if chr(byte) not in own]
    byte_of = {character: ord(character) for character in own} | dict(zip(alphabet[len(own) :], moved, strict=True))
    tokenizer = Tokenizer(models.BPE(dict(sorted(byte_of.items(), key=lambda pair: pair[1])), []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":"))


class TinyEngine:
    """Makes up outputs from inputs by sums of small fractions of integers, which are exact in float32."""

    name = "numpy"
    executed_by = "numpy reference"
    not_covered: str | None = None

    def __init__(self, manifest: Manifest) -> None:
        self._programs = {program.name: program for program in manifest.programs}

    def run(self, program: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        (output,) = self._programs[program].outputs
        total = sum(float(np.round(tensor.astype(np.float64) * 64).sum()) for tensor in inputs.values())
        values = [((total * (index + 3)) % 97) / 32 for index in range(output.shape[1])]
        return {output.name: np.array([values], np.float32)}

    def close(self) -> None:
        pass


class FormulaEngine:
    """Logits of each token by its id and place, or of one of them: exact in float32, and hardly two alike."""

    name = "numpy"
    executed_by = "numpy reference"
    not_covered: str | None = None

    def __init__(self, manifest: Manifest) -> None:
        self._programs = {program.name: program for program in manifest.programs}

    def run(self, program: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        (output,) = self._programs[program].outputs
        length, width = inputs["input_ids"].shape[1], output.shape[-1]
        ids = inputs["input_ids"][0].astype(np.int64)[:, None]
        mixed = ids * 7919 + np.arange(length)[:, None] * 104729 + np.arange(width) * 15485863
        logits = (mixed % 65521 / 8192).astype(np.float32)
        if len(output.shape) == 3:
            return {output.name: logits[None]}
        # Of the masked token, or of the last one.
        mark = inputs[MASK_POSITION][0].argmax() if MASK_POSITION in inputs else inputs["attention_mask"][0].sum() - 1
        return {output.name: logits[mark][None]}

    def close(self) -> None:
        pass


SPANS, ENTITIES, FILLS = "places-spans.zip", "places-entities.zip", "places-fills.zip"
INFERENCE = "places-labels.zip"
"""Bundles of make_places.py, with a tokenizer that has tokens of each kind."""


def formula_pipeline(path: Path) -> Any:
    """A pipeline over a bundle, with the formula in the place of its model."""
    bundle = Bundle.open(path)
    return open_pipeline(bundle, FormulaEngine(bundle.manifest))


class SpeakingEngine:
    """Says the text of each bucket, letter by letter, whatever it hears."""

    name = "numpy"
    executed_by = "numpy reference"
    not_covered: str | None = None

    def __init__(self, manifest: Manifest) -> None:
        self._programs = {program.name: program for program in manifest.programs}
        self._prompt = len(build_prompt(tiny.SPEECH_TOKENS, 24, TranscribeOptions(timestamps=False), "en").tokens)

    def run(self, program: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        part, _, positions = program.partition("_")
        outputs = {
            spec.name: np.linspace(-1, 1, np.prod(spec.shape)).round(4).reshape(spec.shape).astype(np.float32)
            for spec in self._programs[program].outputs
        }
        if part == "encode":
            return outputs
        said = 0 if part == "prefill" else int(inputs["position"][0]) - self._prompt + 1
        tokens = [*SPOKEN[f"encode_{positions}"].encode(), tiny.SPEECH_TOKENS.end]
        logits = np.zeros(tiny.VOCABULARY, np.float32)
        logits[tokens[min(said, len(tokens) - 1)]] = 8
        outputs["logits"] = np.stack([logits, logits]) if part == "prefill" else logits
        return outputs

    def open_decoder(self, bucket: AudioBucket, spec: Transcription) -> SpeechDecoder:
        return decoder_over(self.run, bucket, spec, StateOwners())

    def close(self) -> None:
        pass


def text_bundle(folder: Path) -> None:
    """A classifier of texts."""
    spec = TextPreprocessing("tokenizer.json", pad_token_id=0, vocab_size=len(WORDS))
    manifest = replace(tiny.text(), preprocessing=spec)
    (folder / "tokenizer.json").write_text(_word_piece(), encoding="utf-8")
    _complete(folder, manifest, TEXT_SAMPLES)


def score_bundle(folder: Path) -> None:
    """A score of a text."""
    (folder / "tokenizer.json").write_text(_word_piece(), encoding="utf-8")
    _complete(folder, tiny.text("text-scoring"), TEXT_SAMPLES)


SPAN_SAMPLES = (
    {"text": "hello?", "pair": "turn the lights off, turn the lights on"},
    {"text": "the lights", "pair": "hello!"},
    {"text": "on", "pair": "turn " * 40},
)
ENTITY_SAMPLES = ({"text": "turn the lights off!"}, {"text": ""}, {"text": "hello lights " * 9}, {"text": "on " * 60})


def span_bundle(folder: Path) -> None:
    """Question answering."""
    (folder / "tokenizer.json").write_text(_word_piece(), encoding="utf-8")
    _complete(folder, tiny.spans(), SPAN_SAMPLES, FormulaEngine)


def entity_bundle(folder: Path) -> None:
    """Token classification."""
    (folder / "tokenizer.json").write_text(_word_piece(), encoding="utf-8")
    _complete(folder, tiny.entities(), ENTITY_SAMPLES, FormulaEngine)


FILL_SAMPLES = (
    {"text": "turn the [MASK] off!"},
    {"text": "[MASK]"},
    {"text": "[MASK] the lights [MASK] hello"},
    {"text": "hello [MASK] " + "the lights " * 40},
)


def fill_bundle(folder: Path) -> None:
    """Masked tokens."""
    tokenizer = Tokenizer.from_str(_word_piece((*WORDS[:-1], "[MASK]")))
    tokenizer.add_special_tokens(["[MASK]"])
    (folder / "tokenizer.json").write_text(str(tokenizer.to_str()), encoding="utf-8")
    _complete(folder, tiny.fills(), FILL_SAMPLES, FormulaEngine)


def image_bundle(folder: Path) -> None:
    """A classifier of images."""
    _photos(folder / "vectors")
    _complete(folder, tiny.image(), IMAGE_SAMPLES)


def image_text_bundle(folder: Path) -> None:
    """Images beside texts, those of two labels among them."""
    _photos(folder / "vectors")
    (folder / "tokenizer.json").write_text(_word_piece(), encoding="utf-8")
    labels = ["lights", "hello!"]
    named = [{"text": PHOTO_TEMPLATE.replace("{}", label)} for label in labels]
    samples = (*IMAGE_SAMPLES, {**IMAGE_SAMPLES[0], "labels": labels}, *named, {"text": "hello " * 40}, {"text": "on"})
    _complete(folder, tiny.image_text(), samples)


def speech_bundle(folder: Path) -> None:
    """A recogniser of speech, in two lengths."""
    (folder / "tokenizer.json").write_text(byte_tokenizer(), encoding="utf-8")
    spec = tiny.AUDIO_SPEC
    filters = mel_filter_bank(spec.n_mels, spec.n_fft, spec.sample_rate)
    (folder / spec.mel_filters).write_bytes(write_mel_filters(filters))
    _sound(folder / AUDIO)
    manifest = tiny.speech()
    seal(folder, manifest)
    with Bundle.open(folder) as bundle:
        transcriber = Transcriber(bundle, SpeakingEngine(manifest))
        cases = [
            record(transcriber, {"audio": AUDIO, "samples": SPEECH_SAMPLES[bucket.encode]}, bucket)
            for bucket in transcriber.spec.buckets
        ]
    _finish(folder, manifest, cases)


BUNDLES: dict[str, Callable[[Path], None]] = {
    "tiny-text.zip": text_bundle,
    "tiny-score.zip": score_bundle,
    "tiny-spans.zip": span_bundle,
    "tiny-entities.zip": entity_bundle,
    "tiny-fills.zip": fill_bundle,
    "tiny-image.zip": image_bundle,
    "tiny-image-text.zip": image_text_bundle,
    "tiny-speech.zip": speech_bundle,
}


def zipped(make: Callable[[Path], None]) -> bytes:
    """A bundle as its zip."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "bundle"
        folder.mkdir()
        (folder / tiny.MODEL).write_bytes(MODEL_BYTES)
        make(folder)
        pack(folder, Path(place) / "bundle.zip")
        return (Path(place) / "bundle.zip").read_bytes()


def _complete(
    folder: Path,
    manifest: Manifest,
    samples: tuple[dict[str, object], ...],
    engine: Callable[[Manifest], Any] = TinyEngine,
) -> None:
    """Record the samples."""
    seal(folder, manifest)
    with Bundle.open(folder) as bundle:
        pipeline = open_pipeline(bundle, engine(manifest))
        assert isinstance(pipeline, ProgramPipeline)
        cases = [pipeline.record(sample) for sample in samples]
    _finish(folder, manifest, cases)


def _finish(folder: Path, manifest: Manifest, cases: list[Case]) -> None:
    write_vectors(folder, cases, TOLERANCES, manifest)
    seal(folder, manifest)


def seal(folder: Path, manifest: Manifest) -> None:
    """List the folder's files in the manifest and write it."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST_NAME]
    files = {
        path.relative_to(folder).as_posix(): FileEntry(sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
        for path in paths
    }
    (folder / MANIFEST_NAME).write_text(replace(manifest, files=files).to_json(), encoding="utf-8")


def _word_piece(words: tuple[str, ...] = WORDS) -> str:
    """A tokenizers file with twelve words and BERT's special tokens."""
    tokenizer = Tokenizer(models.WordPiece({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return str(tokenizer.to_str())


def _photos(folder: Path) -> None:
    """A photo of noise, and one of smooth ramps in each direction."""
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (60, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    y, x = np.mgrid[0:30, 0:50]
    Image.fromarray(np.stack([x * 5, y * 8, (x + y) * 3], axis=2).astype(np.uint8)).save(folder / "ramp.png")


def _sound(path: Path) -> None:
    """A second of a tone that rises, as a WAV file of 16 bits."""
    path.parent.mkdir()
    time = np.arange(16000) / 16000
    samples = np.round(8000 * np.sin(2 * np.pi * (200 + 1000 * time) * time)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(samples.tobytes())
