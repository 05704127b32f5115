"""The sample of speech that ships: audio and text belong together, and Whisper transcribes every word."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgeformer.evaluate.speech import WordErrors, count_word_errors, simple_words
from edgeformer.zoo import speech_sample
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.audio import open_audio
from edgeformer_runtime.preprocess.silence import PauseOptions, speech_ranges
from tools.zoo.make_speech_sample import SAMPLE_RATE, SENTENCES, make_sample, write_sample


def shipped() -> tuple[np.ndarray, list[dict]]:
    path, _ = speech_sample()
    with open_audio(path, SAMPLE_RATE) as reader:
        samples = reader.read(1 << 30)
    return samples, json.loads(path.with_suffix(".json").read_text())["sentences"]


def test_what_ships() -> None:
    path, text = speech_sample()
    samples, sentences = shipped()
    assert path.stat().st_size < 700_000
    assert 25 < len(samples) / SAMPLE_RATE < 30  # one window of the model
    assert text == " ".join(SENTENCES) == " ".join(sentence["text"] for sentence in sentences)
    assert 0.2 < np.abs(samples).max() < 1


def test_its_pauses_are_where_the_sentences_end() -> None:
    samples, sentences = shipped()
    ranges = np.array(speech_ranges(samples, SAMPLE_RATE, PauseOptions(0.45, 0.0))) / SAMPLE_RATE
    np.testing.assert_allclose(ranges, [[each["start"], each["end"]] for each in sentences], atol=0.1)


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs the program espeak-ng")
def test_it_can_be_made_again(tmp_path: Path) -> None:
    write_sample(make_sample(), tmp_path)
    path, _ = speech_sample()
    version = subprocess.run(["espeak-ng", "--version"], capture_output=True, text=True, check=True).stdout
    if "1.51 " in version:  # the one that made it
        for name in (path.name, path.with_suffix(".json").name):
            assert (tmp_path / name).read_bytes() == path.with_name(name).read_bytes()
    with pytest.raises(InputError, match="espeak-ng failed"):
        make_sample(voice="nobody")


def test_without_the_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="install it"):
        make_sample()


@pytest.mark.slow
def test_whisper_hears_every_word(assets: Path) -> None:
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    folder = assets / "whisper-tiny.en"
    processor = WhisperProcessor.from_pretrained(folder)
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    samples, _ = shipped()
    features = processor(samples, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
    with torch.inference_mode():
        tokens = model.generate(features, max_new_tokens=200)
    heard = processor.decode(tokens[0], skip_special_tokens=True)
    found = count_word_errors(speech_sample()[1], heard, simple_words)
    assert found == WordErrors(0, len(simple_words(speech_sample()[1])))
