"""A small Whisper for the converters that keep its state in programs, and one long script of calls to compare."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer.checkpoints.source_index import TorchEngine
from edgeformer.convert.target import PRECISIONS, TARGETS, Converter, Lowered
from edgeformer.models.family import Program, ProgramOptions
from edgeformer.tasks.speech import RECOGNITION
from edgeformer.tasks.task import TaskSpec
from edgeformer_runtime.bundle.manifest import ProgramSpec
from edgeformer_runtime.bundle.specs import HOST_STATE, PROGRAM_STATE, AudioBucket, Transcription
from edgeformer_runtime.engines.decoder import DecoderOutput, SpeechDecoder

HIDDEN = -1000.0


@dataclass(frozen=True)
class Speech:
    """A speech model's programs for a target, with what surrounds them in a bundle."""

    programs: tuple[Program, ...]
    interface: TaskSpec

    @property
    def spec(self) -> Transcription:
        assert isinstance(self.interface.postprocessing, Transcription)
        return self.interface.postprocessing

    @property
    def bucket(self) -> AudioBucket:
        return self.spec.buckets[0]

    def bundle(self, lowered: Lowered) -> Any:
        """What engines and pipelines read of a bundle, without writing one."""
        programs = tuple(
            ProgramSpec(program.name, *lowered.entries[program.name], program.inputs, program.outputs)
            for program in self.programs
        )
        return SimpleNamespace(
            manifest=SimpleNamespace(
                task="speech-recognition",
                recipe=SimpleNamespace(weights="int8"),  # of some: others lose nothing by exact sums
                programs=programs,
                all_programs=programs,
                preprocessing=self.interface.preprocessing,
                postprocessing=self.interface.postprocessing,
            ),
            path=lambda file: lowered.folder / file,
            read_bytes=self.interface.assets.__getitem__,
        )

    def audio(self, seed: int) -> NDArray[np.float32]:
        """Seeded noise as a spectrogram of the bucket's length."""
        shape = self.programs[0].inputs[0].shape
        return (np.random.default_rng(seed).standard_normal(shape) * 0.5).astype(np.float32)


def open_speech(folder: Path, target: str, positions: tuple[int, ...], state: str = PROGRAM_STATE) -> Speech:
    """The programs of a public folder, with the target's attention kernel."""
    checkpoint = open_checkpoint(str(folder), None, None, None)
    module, _ = load_module(checkpoint, KERNELS[TARGETS[target].attention])
    options = ProgramOptions(audio_positions=positions, decoder_state=state)
    programs = checkpoint.family.programs(module, checkpoint.config, options)
    return Speech(programs, RECOGNITION.spec(checkpoint, programs, options))


def reference_decoder(folder: Path, positions: tuple[int, ...]) -> SpeechDecoder:
    """torch, with the caches on the host: nothing of it is what is tested here."""
    speech = open_speech(folder, "onnx", positions, HOST_STATE)
    return TorchEngine(speech.programs).open_decoder(speech.bucket, speech.spec)


def script(decoder: SpeechDecoder, speech: Speech) -> list[DecoderOutput]:
    """Two recordings: a padded prefill and steps of two hypotheses whose rows lie scattered, then everything anew."""
    random = np.random.default_rng(7)
    results: list[DecoderOutput] = []
    for seed in (0, 1):
        decoder.encode(speech.audio(seed))
        rows = [int(row) for row in random.permutation(decoder.rows - 8)[:12] + 8]
        tokens = [int(token) for token in random.integers(0, speech.spec.vocab_size, 18)]
        hypotheses = [mask_of(decoder, []) for _ in range(2)]
        # Fills every row with what no mask shows: padding and other hypotheses must not matter.
        for row in range(0, decoder.rows, 8):
            decoder.prefill(tokens[:8], 3, row, hypotheses[0], (0, 0))
        results += decoder.prefill(tokens[:5], 0, 2, hypotheses[0], (0, 4))
        for mask in hypotheses:
            mask[2:7] = 0
        for step in range(6):
            for number, mask in enumerate(hypotheses):
                row = rows[2 * step + number]
                results.append(decoder.step(tokens[5 + 2 * step + number], 5 + step, row, mask))
                mask[row] = 0
    return results


def mask_of(decoder: SpeechDecoder, seen: list[int]) -> NDArray[np.float32]:
    """(L,), with these rows seen."""
    mask = np.full(decoder.rows, HIDDEN, np.float32)
    mask[seen] = 0
    return mask


def differences(found: list[DecoderOutput], expected: list[DecoderOutput]) -> tuple[float, float]:
    """The largest difference of an output, relative to its largest value, and the lowest cosine."""
    assert len(found) == len(expected)
    largest, lowest = 0.0, 1.0
    for one, other in zip(found, expected, strict=True):
        for got, wanted in ((one.logits, other.logits), (one.alignment, other.alignment)):
            assert got.shape == wanted.shape
            assert got.dtype == np.float32
            if wanted.size:
                largest = max(largest, float(np.abs(got - wanted).max() / np.abs(wanted).max()))
                cosine = (got * wanted).sum() / np.linalg.norm(got) / np.linalg.norm(wanted)
                lowest = min(lowest, float(cosine))
    return largest, lowest


def baseline(assets: Path, file: str) -> str:
    """What transformers writes for a clip with tiny.en in fp32, greedy and without timestamps."""
    recorded = json.loads((assets / "speech" / "baseline_tiny_en_fp32.json").read_text())
    return next(str(clip["hyp"]) for clip in recorded["clips"] if clip["file"] == file)


def lower_to_all(converter: Converter, programs: tuple[Program, ...], folder: Path) -> dict[str, Lowered]:
    """Programs at each precision that speech has, by its name, in folders of that name."""
    places = {name: folder / name for name in ("fp32", "fp16", "dynamic-int8", "weight-int8")}
    for place in places.values():
        place.mkdir()
    fp32 = converter.lower_fp32(programs, places.pop("fp32"))
    return {"fp32": fp32} | {
        name: converter.lower_precision(programs, fp32, PRECISIONS[name], place) for name, place in places.items()
    }
