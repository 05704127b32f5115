"""The runtime's preprocessing of images and audio against image.json, log_mel.json and recording.json."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgeformer_runtime.bundle import strict_json
from edgeformer_runtime.bundle.specs import AudioPreprocessing
from edgeformer_runtime.preprocess.image import ImageEncoder
from edgeformer_runtime.preprocess.log_mel import LogMel, RecordingEncoder
from edgeformer_runtime.tasks.speech import RecordingPreprocessing
from edgeformer_runtime.tasks.vision import ImagePreprocessing, normalisation_table, to_input
from tests.golden.golden_files import FOLDER

IMAGES = json.loads((FOLDER / "image.json").read_text(encoding="utf-8"))["cases"]
SOUNDS = json.loads((FOLDER / "log_mel.json").read_text(encoding="utf-8"))["cases"]
RECORDINGS = json.loads((FOLDER / "recording.json").read_text(encoding="utf-8"))["cases"]


@pytest.fixture(scope="module")
def image_arrays() -> dict[str, np.ndarray]:
    return load_file(FOLDER / "image.safetensors")


@pytest.fixture(scope="module")
def audio_arrays() -> dict[str, np.ndarray]:
    return load_file(FOLDER / "log_mel.safetensors")


@pytest.fixture(scope="module")
def recording_arrays() -> dict[str, np.ndarray]:
    return load_file(FOLDER / "recording.safetensors")


@pytest.mark.parametrize("index", range(len(IMAGES)), ids=lambda index: IMAGES[index]["name"])
def test_image(index: int, image_arrays: dict[str, np.ndarray]) -> None:
    spec = strict_json.from_data(ImagePreprocessing, IMAGES[index]["preprocessing"], "image.json")
    np.testing.assert_array_equal(normalisation_table(spec), image_arrays[f"{index}/table"])
    expected = to_input(image_arrays[f"{index}/levels"][None], spec)
    np.testing.assert_array_equal(ImageEncoder(spec)(image_arrays[f"{index}/image"]), expected)


@pytest.mark.parametrize("index", range(len(SOUNDS)), ids=lambda index: SOUNDS[index]["name"])
def test_log_mel(index: int, audio_arrays: dict[str, np.ndarray]) -> None:
    case = SOUNDS[index]
    spec = strict_json.from_data(AudioPreprocessing, case["preprocessing"], "log_mel.json")
    log_mel = LogMel(spec, audio_arrays["mel_filters"])
    samples = audio_arrays.get(f"{index}/samples", np.zeros(0, np.float32))
    assert len(samples) == case["samples"]
    np.testing.assert_allclose(log_mel(samples, case["frames"])[0], audio_arrays[f"{index}/mel"], atol=1e-4)


@pytest.mark.parametrize("index", range(len(RECORDINGS)), ids=lambda index: RECORDINGS[index]["name"])
def test_recording(index: int, recording_arrays: dict[str, np.ndarray]) -> None:
    spec = strict_json.from_data(RecordingPreprocessing, RECORDINGS[index]["preprocessing"], "recording.json")
    encode, samples = RecordingEncoder(spec), recording_arrays[RECORDINGS[index]["samples"]]
    kept, truncated = encode.read(samples, spec.filter_bank.samples if spec.filter_bank else len(samples))
    found = encode.energies(kept) if spec.filter_bank else encode.padded(kept, len(samples))
    np.testing.assert_allclose(found[0], recording_arrays[f"{index}/input"], atol=1e-4)
    assert truncated == (len(kept) < len(samples))
