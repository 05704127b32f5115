"""Makes the zoo's sample of speech: a synthetic voice reads a few sentences of our own.

    python -m tools.zoo.make_speech_sample --out edgeformer/zoo

needs the program espeak-ng (version 1.51 made the files that ship: another one speaks a little differently).
"""

from __future__ import annotations

import argparse
import json
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeformer.zoo import AUDIO_FILE, TEXT_FILE
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.audio import open_audio
from edgeformer_runtime.registry import load_attribute

SAMPLE_RATE = 16000

VOICE, WORDS_PER_MINUTE, PITCH = "en-gb", 160, 50
"""Of the voices and speeds that were tried, one whose every word Whisper tiny.en transcribes."""

SENTENCES = (
    "Good morning, and welcome to the mountain railway.",
    "Our train leaves in five minutes, so please take your seats.",
    "On your left you can see the old stone bridge and the river below it.",
    "The journey to the top takes almost an hour.",
    "Keep your windows closed when we go through the tunnel.",
    "At the summit there is a small restaurant beside the lake.",
    "The last train back to the valley leaves at half past six.",
    "Thank you for travelling with us, and enjoy the ride.",
)
PAUSES_SECONDS = (0.6, 0.5, 0.9, 0.5, 1.2, 0.5, 0.7)
_BEFORE_AND_BEHIND_SECONDS = 0.3

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Sentence:
    """What is said, and when, in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class SpeechSample:
    """A sample's audio (N,) float32 at 16 kHz, and its sentences."""

    samples: Samples
    sentences: tuple[Sentence, ...]

    @property
    def text(self) -> str:
        """All that is said."""
        return " ".join(sentence.text for sentence in self.sentences)


def make_sample(voice: str = VOICE, words_per_minute: int = WORDS_PER_MINUTE, pitch: int = PITCH) -> SpeechSample:
    """Have the sentences read, with pauses between.

    Args:
        voice: one that `espeak-ng --voices=en` lists.
        words_per_minute: the voice's speed.
        pitch: 0 to 99.

    Raises:
        InputError: espeak-ng is missing, or does not know the voice.
    """
    parts = [_silence(_BEFORE_AND_BEHIND_SECONDS)]
    sentences = []
    for text, pause in zip(SENTENCES, (*PAUSES_SECONDS, _BEFORE_AND_BEHIND_SECONDS), strict=True):
        start = sum(map(len, parts)) / SAMPLE_RATE
        parts.append(_speak(text, voice, words_per_minute, pitch))
        sentences.append(Sentence(text, round(start, 3), round(start + len(parts[-1]) / SAMPLE_RATE, 3)))
        parts.append(_silence(pause))
    return SpeechSample(np.concatenate(parts), tuple(sentences))


def write_sample(sample: SpeechSample, folder: Path) -> None:
    """Write the audio as 16-bit flac and its text beside it."""
    load_attribute("soundfile:write")(folder / AUDIO_FILE, sample.samples, SAMPLE_RATE, subtype="PCM_16")
    document = {"text": sample.text, "sentences": [asdict(sentence) for sentence in sample.sentences]}
    (folder / TEXT_FILE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _speak(text: str, voice: str, words_per_minute: int, pitch: int) -> Samples:
    """(N,) at 16 kHz, without the silence that espeak-ng puts around a sentence."""
    command = ["espeak-ng", "-v", voice, "-s", str(words_per_minute), "-p", str(pitch), "--stdout", text]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except FileNotFoundError:
        raise InputError("no program espeak-ng: install it (apt install espeak-ng)") from None
    except subprocess.CalledProcessError as error:
        raise InputError(f"espeak-ng failed: {error.stderr.decode(errors='replace').strip()}") from None
    with open_audio(done.stdout, SAMPLE_RATE) as reader:
        samples = reader.read(60 * SAMPLE_RATE)
    loud = np.flatnonzero(np.abs(samples) > 1e-3)
    return samples[loud[0] : loud[-1] + 1] if len(loud) else samples


def _silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def main() -> None:
    """Make the sample and write it."""
    parser = argparse.ArgumentParser(description="Make the zoo's sample of speech.")
    parser.add_argument("--out", type=Path, required=True, help="the folder for the audio and its text")
    arguments = parser.parse_args()
    sample = make_sample()
    write_sample(sample, arguments.out)
    print(f"{len(sample.samples) / SAMPLE_RATE:.1f} s of speech in {arguments.out / AUDIO_FILE}")


if __name__ == "__main__":
    main()
