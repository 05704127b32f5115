"""`convert` from a Whisper checkpoint to a bundle that says which stage is wrong when something in it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from edgeformer.checkpoints.checkpoint import open_checkpoint
from edgeformer.convert.bundle_writer import seal
from edgeformer.convert.convert import ConvertOptions
from edgeformer.convert.target import PRECISIONS, TARGETS
from edgeformer.models.whisper.programs import transcription_layout
from edgeformer.tasks.speech import RECOGNITION
from edgeformer.tasks.task import TaskSpec
from edgeformer_runtime import load
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.specs import Transcription
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.verify.verify import verify

pytestmark = pytest.mark.slow


def test_every_stage_is_verified_in_every_bucket(whisper_bundle: Path) -> None:
    with Bundle.open(whisper_bundle) as bundle:
        found = verify(bundle)
        assert found.ok
        assert [stage.name for stage in found.stages] == ["mel", "encode", "steps", "text"]
        head = bundle.manifest.postprocessing
        assert isinstance(head, Transcription)
        assert [bucket.positions for bucket in head.buckets] == [125, 1500]
        assert [bucket.tail for bucket in head.buckets] == [64, 0]


def test_a_bundle_transcribes_with_what_its_manifest_says(whisper_bundle: Path) -> None:
    generator = np.random.default_rng(0)
    audio = (generator.normal(size=20000) * 0.1).astype(np.float32)
    with load(whisper_bundle) as transcriber:
        first, again = transcriber(audio), transcriber([audio])[0]
    assert first.text == again.text
    assert first.duration == pytest.approx(20000 / 16000)


def test_the_full_window_has_one_bucket(whisper: Path) -> None:
    options = ConvertOptions(str(whisper), Path("unused"), window="full", audio_seconds=(2.5, 5.0))
    layout = transcription_layout(open_checkpoint(str(whisper)).config, options.programs_for(TARGETS["litert"]))
    assert [(bucket.positions, bucket.tail) for bucket in layout.buckets] == [(1500, 0)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"window": "half"}, "unknown window 'half'"),
        ({"audio_seconds": (0.0,)}, "above 0"),
        ({"audio_seconds": ()}, "above 0"),
    ],
)
def test_options_are_refused(wrong: dict[str, object], message: str, whisper: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        ConvertOptions(str(whisper), tmp_path, **wrong)  # type: ignore[arg-type]


def test_a_corrupted_filter_bank_is_the_stage_mel(whisper_bundle: Path, tmp_path: Path) -> None:
    def corrupt(folder: Path) -> None:
        file = folder / "mel_filters.safetensors"
        filters = load_file(file)["mel_filters"]
        filters[3] = filters[3, ::-1]
        save_file({"mel_filters": filters}, file)

    assert _first_diverging(whisper_bundle, tmp_path, corrupt) == "mel"


def test_a_corrupted_weight_of_the_encoder_is_the_stage_encode(
    whisper_bundle: Path, whisper: Path, tmp_path: Path
) -> None:
    weight = load_file(whisper / "model.safetensors")["model.encoder.conv1.weight"]
    assert _first_diverging(whisper_bundle, tmp_path, lambda folder: _change(folder, weight)) == "encode"


def test_a_corrupted_weight_of_the_decoder_is_its_first_step(
    whisper_bundle: Path, whisper: Path, tmp_path: Path
) -> None:
    weight = load_file(whisper / "model.safetensors")["model.decoder.layer_norm.bias"]
    assert _first_diverging(whisper_bundle, tmp_path, lambda folder: _change(folder, weight)) == "step 0"


def test_a_corrupted_position_is_the_step_that_stands_there(
    whisper_bundle: Path, whisper: Path, tmp_path: Path
) -> None:
    table = load_file(whisper / "model.safetensors")["model.decoder.embed_positions.weight"]
    # The prompt of a multilingual model takes 4 tokens, after which step 0 chooses; step k is fed position 3 + k.
    assert _first_diverging(whisper_bundle, tmp_path, lambda folder: _change(folder, table[10])) == "step 7"


def test_a_corrupted_tokenizer_is_the_stage_text(whisper_bundle: Path, tmp_path: Path) -> None:
    def corrupt(folder: Path) -> None:
        cases = json.loads((folder / "vectors" / "cases.json").read_text(encoding="utf-8"))["cases"]
        said = cases[0]["expected"]["tokens"][0]
        file = folder / "tokenizer.json"
        tokenizer = json.loads(file.read_text(encoding="utf-8"))
        vocabulary = tokenizer["model"]["vocab"]
        (spoken,) = (token for token, number in vocabulary.items() if number == said)
        vocabulary |= {spoken: vocabulary["a"], "a": said}
        file.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")

    assert _first_diverging(whisper_bundle, tmp_path, corrupt) == "text"


def _first_diverging(bundle_path: Path, folder: Path, corrupt: Callable[[Path], None]) -> str | None:
    """What verification names after a file of a copy was changed, and the copy sealed as if that were right."""
    copy = folder / "corrupted"
    shutil.copytree(bundle_path, copy)
    with Bundle.open(copy) as bundle:
        manifest = bundle.manifest
    corrupt(copy)
    with seal(copy, replace(manifest, files={})) as bundle:
        return verify(bundle).first_diverging


def _change(folder: Path, weight: NDArray[np.float32]) -> None:
    """Turn a tensor round wherever the model files hold it; a norm would take out what is added to all of it."""
    found = 0
    for file in folder.rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        if weight.tobytes() in content:
            found += 1
            file.write_bytes(content.replace(weight.tobytes(), np.flip(weight, -1).tobytes()))
    assert found, "the model files hold this tensor"


@pytest.mark.parametrize(
    ("name", "expected"), [("fp32", (4e-4 / 3, 2e-4)), ("fp16", (0.02, 0.02)), ("dynamic-int8", (0.4, 0.1))]
)
def test_below_fp16_letters_count_and_outputs_have_a_backstop(
    name: str, expected: tuple[float, float], whisper_bundle: Path
) -> None:
    with Bundle.open(whisper_bundle) as bundle:
        head, audio = bundle.manifest.postprocessing, bundle.manifest.preprocessing
    found = TaskSpec(RECOGNITION, audio, head, {}, ()).tolerances(PRECISIONS[name])
    assert (found.output, found.score) == pytest.approx(expected)
