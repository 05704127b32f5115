"""Log-mel spectrograms against transformers' feature extractor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save
from transformers import WhisperFeatureExtractor
from transformers.audio_utils import mel_filter_bank as reference_filter_bank

from edgeformer_runtime.bundle.specs import AudioPreprocessing
from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.preprocess.audio import open_audio
from edgeformer_runtime.preprocess.log_mel import LogMel, leveled, mel_filter_bank, read_mel_filters, write_mel_filters

SPEC = AudioPreprocessing(16000, 400, 160, 80, "mel.safetensors", 30, 1e-10, 8.0)
SHORT_WINDOW = replace(SPEC, window_seconds=2)  # the reference takes 60 ms per second of window
WINDOW = 32_000
RANDOM = np.random.default_rng(0)


def log_mel(spec: AudioPreprocessing = SHORT_WINDOW) -> LogMel:
    return LogMel(spec, mel_filter_bank(spec.n_mels, spec.n_fft, spec.sample_rate))


@pytest.fixture(scope="module")
def exact() -> WhisperFeatureExtractor:
    """The reference with a window of two seconds."""
    return WhisperFeatureExtractor(chunk_length=2)


def reference(extractor: WhisperFeatureExtractor, samples: np.ndarray) -> np.ndarray:
    """(80, 200), the numpy path of the reference, which is exact where torch's float32 is not."""
    padded = np.zeros(WINDOW, np.float64)
    padded[: len(samples)] = samples
    return extractor._np_extract_fbank_features(padded[None], "cpu")[0]


@pytest.mark.parametrize("n_mels", [40, 80, 128])
@pytest.mark.parametrize(("n_fft", "sample_rate"), [(400, 16000), (512, 22050), (256, 8000)])
def test_filters_equal_the_reference(n_mels: int, n_fft: int, sample_rate: int) -> None:
    with np.errstate(all="ignore"):
        expected = reference_filter_bank(
            n_fft // 2 + 1, n_mels, 0.0, sample_rate / 2, sample_rate, norm="slaney", mel_scale="slaney"
        )
    found = mel_filter_bank(n_mels, n_fft, sample_rate)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.T, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("n_mels", [80, 128])
def test_speech_equals_the_reference_as_users_call_it(n_mels: int, assets: Path) -> None:
    extractor = WhisperFeatureExtractor(feature_size=n_mels)
    compute = log_mel(replace(SPEC, n_mels=n_mels))
    for name in ("jfk.wav", "harvard.wav", "sb_spk1_snt1.wav"):
        with open_audio(assets / "speech" / name, 16000) as reader:
            samples = reader.read(compute.window_samples)
        expected = extractor(samples, sampling_rate=16000, return_tensors="np").input_features
        for frames in (3000, 100, -(-len(samples) // 160)):
            found = compute(samples, frames)
            assert found.shape == (1, n_mels, frames)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected[:, :, :frames], atol=1e-4)


SOUNDS = {
    "nothing": np.empty(0),
    "one sample": np.array([0.5]),
    "10 ms": RANDOM.standard_normal(160) * 0.1,
    "less than the reflection": RANDOM.standard_normal(150) * 0.1,
    "201 samples": RANDOM.standard_normal(201) * 0.1,
    "silence": np.zeros(16000),
    "clipped": np.sign(np.sin(np.arange(16000) * 0.05)),
    "tiny values": RANDOM.standard_normal(16000) * 1e-7,
    "denormal values": RANDOM.standard_normal(16000) * 1e-40,
    "a tone": np.sin(np.arange(16000) * 0.3),
    "an impulse": np.eye(1, 16000, 8000)[0],
    "integers as floats": RANDOM.standard_normal(16000) * 20000,
    "the whole window": RANDOM.standard_normal(WINDOW) * 0.1,
    "all but one sample": RANDOM.standard_normal(WINDOW - 1) * 0.1,
    "up to the right reflection": RANDOM.standard_normal(WINDOW - 150) * 0.1,
    "loud at the end": np.linspace(0, 1, WINDOW) ** 6 * RANDOM.standard_normal(WINDOW),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_edges_equal_the_reference(name: str, exact: WhisperFeatureExtractor) -> None:
    samples = SOUNDS[name].astype(np.float32)
    expected = reference(exact, samples)
    compute = log_mel()
    for frames in (1, 2, 101, 200):
        found = compute(samples, frames)[0]
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, expected[:, :frames], atol=1e-4)


def test_every_length_up_to_a_few_frames(exact: WhisperFeatureExtractor) -> None:
    noise = RANDOM.standard_normal(1000).astype(np.float32)
    compute = log_mel()
    for count in (*range(0, 1000, 37), 159, 161, 199, 200, 202, 360, 361):
        np.testing.assert_allclose(
            compute(noise[:count], 20)[0], reference(exact, noise[:count])[:, :20], atol=1e-4, err_msg=str(count)
        )


def test_samples_are_left_as_they_were() -> None:
    samples = RANDOM.standard_normal(5000).astype(np.float32)
    kept = samples.copy()
    log_mel()(samples, 10)
    np.testing.assert_array_equal(samples, kept)


@pytest.mark.parametrize(
    ("samples", "frames", "message"),
    [
        (np.zeros(WINDOW + 1, np.float32), 10, "at most 32000 samples, found 32001"),
        (np.zeros(10), 10, "float64"),
        (np.zeros((1, 10), np.float32), 10, "shape"),
        (np.zeros(10, np.float32), 0, "1 to 200 frames, found 0"),
        (np.zeros(10, np.float32), 201, "found 201"),
        (np.full(10, np.nan, np.float32), 10, "NaN"),
        (np.full(1000, np.inf, np.float32), 10, "NaN"),
        (np.full(1000, 1e30, np.float32), 10, "absurd"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_refusals_are_one_line(samples: np.ndarray, frames: int, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        log_mel()(samples, frames)
    assert "\n" not in str(caught.value)


def test_filters_come_back_from_their_file(tmp_path: Path) -> None:
    filters = mel_filter_bank(80, 400, 16000)
    data = write_mel_filters(filters)
    path = tmp_path / "mel.safetensors"
    path.write_bytes(data)
    np.testing.assert_array_equal(read_mel_filters(data, SPEC), filters)
    np.testing.assert_array_equal(read_mel_filters(path, SPEC), filters)


FILTERS = mel_filter_bank(80, 400, 16000)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a safetensors file"),
        (b"\x00" * 100, "not a safetensors file"),
        (write_mel_filters(FILTERS)[:-4], "not a safetensors file"),
        (save({"filters": FILTERS}), "expected one tensor mel_filters"),
        (save({"mel_filters": FILTERS, "more": FILTERS}), "expected one tensor"),
        (save({"mel_filters": FILTERS.astype(np.float64)}), "found float64"),
        (write_mel_filters(FILTERS[:40]), r"shape \(80, 201\), found float32 of shape \(40, 201\)"),
        (write_mel_filters(FILTERS - 1), "at least 0"),
        (write_mel_filters(FILTERS * np.nan), "finite"),
    ],
)
def test_files_of_filters_are_read_strictly(data: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        read_mel_filters(data, SPEC)


@pytest.mark.parametrize("change", [{"log_floor": 1e-50}, {"n_fft": 64_000, "hop_length": 160}])
def test_a_spec_that_cannot_be_followed(change: dict) -> None:
    spec = replace(SHORT_WINDOW, **change)
    with pytest.raises(BundleError, match="found"):
        LogMel(spec, np.zeros((80, spec.n_fft // 2 + 1), np.float32))


def test_a_missing_file_of_filters(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        read_mel_filters(tmp_path / "mel.safetensors", SPEC)


def test_what_is_far_too_quiet_or_too_loud() -> None:
    for samples in ([0.01, -0.02], [1000, -2000], [1.5e9, -3e9]):
        np.testing.assert_allclose(leveled(np.array(samples, np.float32)), [0.25, -0.5], rtol=1e-6)
    for same in ([], [0.0], [0.05, 0.0], [-1.0], [np.nan, 3.0], [np.inf]):
        array = np.array(same, np.float32)
        assert leveled(array) is array
