"""Classifiers of recordings: programs by length, every kind of input, manifests that are refused."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import Manifest, parse
from edgeformer_runtime.bundle.signature import SignatureState
from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.isolation.messages import file_frame, read_raw
from edgeformer_runtime.pipelines import open_program_pipeline
from edgeformer_runtime.pipelines.results import softmax
from tests.golden import tiny_manifests as tiny

RATE = 16000


class Loudness:
    """A classifier whose logits are the samples' number in thousands, their mean square, and which program ran."""

    name = executed_by = "numpy"
    not_covered = None

    def run(self, program: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        (length,) = inputs.get("length", np.array([0]))
        samples = inputs.get("samples", np.zeros((1, 1)))[0, :length]
        size = float(program.rpartition("_")[2]) / 1000 if length else 0.0
        return {"logits": np.array([[length / 1000, np.square(samples).mean() if length else 0, size]], np.float32)}

    def close(self) -> None:
        pass


def pipeline_of(manifest: Manifest, folder: Path) -> Any:
    return open_program_pipeline(Bundle(folder, manifest, SignatureState(False, None)), Loudness())


def noise(count: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(count)).astype(np.float32)


@pytest.mark.parametrize(("count", "length", "heard"), [(400, 800, 400), (800, 800, 800), (801, 1600, 801)])
def test_the_shortest_program_that_holds_a_recording_runs(count: int, length: int, heard: int, tmp_path: Path) -> None:
    pipeline = pipeline_of(tiny.recording(), tmp_path)
    prepared = pipeline.prepare(noise(count))
    assert (prepared.program, prepared.truncated) == (f"recording_{length}", False)
    samples, (said,) = prepared.inputs["samples"], prepared.inputs["length"]
    assert samples.shape == (1, length) and said == heard and not samples[0, heard:].any()
    assert (samples.dtype, prepared.inputs["length"].dtype) == (np.float32, np.int32)
    assert samples[0, :heard].mean() == pytest.approx(0, abs=1e-6) and samples[0, :heard].var() == pytest.approx(
        1, abs=1e-4
    )
    result = pipeline(noise(count))
    expected = softmax(np.array([heard / 1000, 1.0, length / 1000]))
    assert dict(zip(result.labels, result.scores, strict=True)) == pytest.approx(
        dict(zip(tiny.LABELS, expected, strict=True)), abs=1e-4
    )


def test_a_longer_recording_loses_its_end_and_a_shorter_one_is_refused(tmp_path: Path) -> None:
    for bank in (False, True):
        pipeline = pipeline_of(tiny.recording(bank), tmp_path)
        longest = pipeline.longest_samples
        assert pipeline(noise(longest + 1)).truncated and not pipeline(noise(longest)).truncated
        for name, tensor in pipeline.prepare(noise(longest + 999)).inputs.items():
            np.testing.assert_array_equal(tensor, pipeline.prepare(noise(longest + 999)[:longest]).inputs[name])
        with pytest.raises(InputError, match="expected a recording of at least 400 samples at 16000 Hz, found 399"):
            pipeline(noise(399))


def test_files_bytes_and_arrays_are_the_same_recording(tmp_path: Path) -> None:
    pipeline = pipeline_of(tiny.recording(), tmp_path)
    file, samples = io.BytesIO(), np.round(noise(2400) * 32768) / 32768
    soundfile.write(file, samples, 48000, format="WAV")
    (tmp_path / "clip.wav").write_bytes(file.getvalue())
    raws = [
        tmp_path / "clip.wav",
        file.getvalue(),
        (samples, 48000),
        read_raw(file_frame(file.getvalue(), "recording")),
    ]
    results = pipeline(raws)
    assert len({result.scores for result in results}) == 1
    assert json.loads(json.dumps(results[0].to_json())).keys() == {"labels", "scores"}
    for raw, problem in ((42, "found int"), ("nowhere.wav", "cannot read the audio"), (b"RIFF", "not an audio file")):
        with pytest.raises(InputError, match=problem):
            pipeline(raw)
    with pytest.raises(InputError, match="expected 9999 samples, found 800"):
        soundfile.write(tmp_path / "short.wav", samples[:800], RATE)
        pipeline.bundle.manifest.files["vectors/short.wav"] = tiny.FileEntry("0" * 64, 1)
        (tmp_path / "vectors").mkdir()
        (tmp_path / "short.wav").rename(tmp_path / "vectors" / "short.wav")
        pipeline.raw_from_json({"audio": "vectors/short.wav", "samples": 9999})


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-20, 1.0, -(2.0**32)])
def test_extreme_samples_give_finite_inputs(value: float, tmp_path: Path) -> None:
    for samples in (np.full(900, value, np.float32), np.eye(1, 900, 450, dtype=np.float32)[0] * np.float32(value)):
        for bank in (False, True):
            for tensor in pipeline_of(tiny.recording(bank), tmp_path).prepare(samples).inputs.values():
                assert np.isfinite(tensor).all()


@pytest.mark.parametrize("bank", [False, True])
def test_a_manifest_reads_as_it_was_written(bank: bool) -> None:
    manifest = tiny.recording(bank)
    manifest = replace(manifest, files=tiny.listed(manifest))
    assert parse(manifest.to_json()) == manifest


@pytest.mark.parametrize(
    ("bank", "place", "value", "why"),
    [
        (False, "preprocessing.shortest_samples", 900, "expected 900 to 16777216 samples, found 800"),
        (False, "preprocessing.filter_bank", vars(tiny.FILTER_BANK), "a filter_bank takes samples as they are"),
        (False, "programs.0.inputs.0.shape", [1, 1600], "length of a recording"),
        (False, "programs.0.inputs.0.shape", [1, 1 << 25], "expected 400 to 16777216 samples"),
        (False, "programs.0.inputs.1.shape", [2], "expected the inputs 'samples'"),
        (False, "programs.0.outputs.0.shape", [1, 4], "expected one float32 output"),
        (True, "programs.0.inputs.0.shape", [1, 20, 8], "expected one with one input 'energies'"),
        (True, "preprocessing.filter_bank", None, "expected the inputs 'samples'"),
        (True, "preprocessing.filter_bank.n_fft", 511, "an even n_fft of at least frame_samples"),
        (True, "preprocessing.filter_bank.frames", 1 << 20, "filter_bank.frames"),
        (True, "preprocessing.filter_bank.high_hz", 9000, "ends at half the sample_rate"),
        (True, "preprocessing.filter_bank.low_hz", 8000, "expected 0 <= low_hz < high_hz"),
        (True, "preprocessing.filter_bank.log_floor", 1e-300, "a log_floor that float32 holds"),
        (True, "preprocessing.shortest_samples", 399, "has a whole frame in the shortest recording"),
    ],
)
def test_what_contradicts_itself_is_refused(bank: bool, place: str, value: Any, why: str) -> None:
    manifest = tiny.recording(bank)
    data: Any = replace(manifest, files=tiny.listed(manifest)).to_data()
    found: Any = data
    *parts, last = (int(part) if part.isdecimal() else part for part in place.split("."))
    for part in parts:
        found = found[part]
    found[last] = value
    with pytest.raises(BundleError) as caught:
        parse(json.dumps(data))
    assert why in str(caught.value) and "\n" not in str(caught.value)
