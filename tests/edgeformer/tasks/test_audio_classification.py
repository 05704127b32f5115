"""Classifiers of recordings answer as transformers' pipeline does, however long the programs are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import transformers
from safetensors.numpy import save_file

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer.convert.convert import convert
from edgeformer.convert.options import ConvertOptions
from edgeformer.doctor.diagnosis import diagnose
from edgeformer.doctor.examiner import DoctorOptions
from edgeformer.evaluate.evaluate import evaluate
from edgeformer.models.adapted_audio import read_feature_extractor
from edgeformer.tasks.speech import SPEECH_FILE
from edgeformer_runtime import load
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.audio import open_audio
from edgeformer_runtime.preprocess.log_mel import RecordingEncoder
from edgeformer_runtime.tasks.speech import RecordingPreprocessing
from edgeformer_runtime.verify.verify import verify
from tools.families import save

RECORDINGS = ("jfk.wav", "goforward.wav", "cards_002.wav", "arctic_a0010.wav", "sb_example1.wav")
AST = transformers.ASTConfig()
COMMON = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1, "sampling_rate": 16000}
EXTRACTOR: dict[str, Any] = {
    "feature_extractor_type": "ASTFeatureExtractor",
    "feature_size": 1,
    "sampling_rate": 16000,
    "do_normalize": True,
    "max_length": AST.max_length,
    "num_mel_bins": AST.num_mel_bins,
    "mean": -4.2677393,
    "std": 4.5689974,
}


def read(folder: Path, config: Any = AST, **changes: object) -> RecordingPreprocessing:
    (folder / "preprocessor_config.json").write_text(json.dumps({**EXTRACTOR, **changes}))
    return read_feature_extractor(folder, config)


def speech(seconds: float) -> np.ndarray:
    with open_audio(SPEECH_FILE, 16000) as reader:
        return reader.read(round(16000 * seconds))


@pytest.mark.parametrize("changes", [{}, {"do_normalize": False}, {"num_mel_bins": 40, "max_length": 200, "mean": 1}])
def test_energies_are_those_of_transformers_extractor(changes: dict[str, Any], tmp_path: Path) -> None:
    sizes = {key: changes[key] for key in ("num_mel_bins", "max_length") if key in changes}
    spec = read(tmp_path, transformers.ASTConfig(**sizes), **changes)
    public, encode = transformers.AutoFeatureExtractor.from_pretrained(tmp_path), RecordingEncoder(spec)
    assert spec.filter_bank is not None
    quiet, short, long = 1e-5 * speech(1.0), speech(0.03), speech(11.0)
    for samples in (quiet, short, long, np.zeros(4000, np.float32), speech(2.0) + np.float32(0.3)):
        kept, truncated = encode.read(samples, spec.filter_bank.samples)
        expected = public(samples, sampling_rate=16000, return_tensors="np")["input_values"]
        assert np.abs(encode.energies(kept) - expected).max() <= 1e-5
        assert truncated == (len(samples) > spec.filter_bank.samples)


@pytest.mark.parametrize("name", RECORDINGS)
def test_inputs_of_real_recordings_are_those_of_transformers(name: str, assets: Path, tmp_path: Path) -> None:
    path, bank = assets / "speech" / name, read(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**COMMON, "do_normalize": True}))
    samples = read_feature_extractor(tmp_path, transformers.Wav2Vec2Config())
    assert bank.filter_bank is not None and samples.filter_bank is None
    for spec, public in (
        (bank, transformers.ASTFeatureExtractor()),
        (samples, transformers.Wav2Vec2FeatureExtractor(do_normalize=True)),
    ):
        encode = RecordingEncoder(spec)
        kept, _ = encode.read(path, 1 << 20)
        expected = public(kept, sampling_rate=16000, return_tensors="np")["input_values"]
        found = encode.energies(kept) if spec.filter_bank else encode.padded(kept, len(kept) + 9)[:, :-9]
        assert np.abs(found - expected).max() <= 1e-5


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"sampling_rate": 8000}, "sampling_rate is 8000: expected 16000"),
        ({"sampling_rate": "16k"}, "cannot be read as a feature extractor: TypeError"),
        ({"feature_size": 2}, "feature_size is 2: expected 1"),
        ({"do_normalize": None}, "do_normalize is None: expected true or false"),
        ({"max_length": 512}, "max_length is 512: expected 1024, as in config.json"),
        ({"num_mel_bins": 64}, "num_mel_bins is 64: expected 128, as in config.json"),
        ({"std": 0}, "std is 0: expected a number from 0.0001"),
        ({"mean": "low"}, "mean is 'low': expected a number"),
        (
            {"feature_extractor_type": "SpeechT5FeatureExtractor"},
            "feature_extractor_type is 'SpeechT5FeatureExtractor'",
        ),
        ({"feature_extractor_type": "NoSuchFeatureExtractor"}, "cannot be read as a feature extractor"),
    ],
)
def test_what_an_extractor_says_and_a_bundle_cannot_is_named(changes: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, **changes)
    assert str(caught.value).startswith("preprocessor_config.json") and "\n" not in str(caught.value)
    assert why in str(caught.value)


def test_a_checkpoint_without_a_classifier_is_refused(tmp_path: Path) -> None:
    config = save("wav2vec2", tmp_path).config
    transformers.Wav2Vec2ForCTC(config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="the checkpoint has no classifier of recordings: fine-tune it first"):
        load_module(open_checkpoint(tmp_path), KERNELS["dense"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["audio-spectrogram-transformer", "wav2vec2"])
def test_a_bundle_answers_as_transformers_pipeline(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    save(name, folder)
    seconds = (0.25, 0.5) if name == "wav2vec2" else None
    (made,) = convert(ConvertOptions(str(folder), tmp_path / "out", ("onnx",), audio_seconds=seconds)).bundles
    assert made.ok, made.problems
    public = transformers.pipeline("audio-classification", str(folder), feature_extractor=str(folder), top_k=None)
    recording = speech(2.0)
    with load(made.path) as pipeline, Bundle.open(made.path) as bundle:
        longest = pipeline.longest_samples
        for count in (400, 3999, 4000, 4001, 7000, longest, longest + 5000):
            samples = recording[5000 : 5000 + count]
            answer = pipeline((samples, 16000))
            heard = samples if name != "wav2vec2" else samples[:longest]
            expected = {each["label"]: each["score"] for each in public(heard.copy())}
            assert dict(zip(answer.labels, answer.scores, strict=True)) == pytest.approx(expected, abs=1e-4)
            assert answer.truncated == (count > longest)
        with pytest.raises(InputError, match="expected a recording of at least"):
            pipeline((recording[:20], 16000))
        assert verify(bundle).ok and diagnose(made.path, DoctorOptions()).ok
        assert bundle.manifest.requires.android_api is None and bundle.manifest.requires.ios is None
        for label in ("LABEL_0", "LABEL_1"):
            (tmp_path / "clips" / label).mkdir(parents=True)
            soundfile.write(tmp_path / "clips" / label / "one.wav", speech(1.0), 48000)
        found = evaluate(bundle, str(tmp_path / "clips"), folder).to_json()
        assert found["n"] == 2 and found["agreement"] == 1.0 and found["value"] in (0.0, 0.5)


def test_what_whispers_encoder_classifies_is_refused(tmp_path: Path) -> None:
    config = {"model_type": "whisper", "architectures": ["WhisperForAudioClassification"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"classifier.weight": np.zeros((2, 2), np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="a WhisperForAudioClassification has no decoder"):
        open_checkpoint(tmp_path)
