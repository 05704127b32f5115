"""`eval` of speech: errors that can be counted by hand, a real model's recorded ones, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edgeformer.data.annotated import SpeechData, read_speech_data
from edgeformer.evaluate.evaluate import evaluate
from edgeformer.evaluate.speech import SpeechEvaluation, WordErrors, measure
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.pipelines.transcript import Transcript
from edgeformer_runtime.preprocess.audio import open_audio
from tests.edgeformer.compress.tiny import save_clips
from tests.runtime.decoding.real_whisper import open_tiny_english

pytestmark = pytest.mark.slow
SAID = {"a": "It cost twenty dollars, Mr. Smith.", "b": "good morning", "c": ""}


class Parrot:
    """Answers with what it was taught by a file's name, and reads the audio for its length."""

    def __init__(self, texts: dict[str, str], language: str | None = "en") -> None:
        self.texts, self.language, self.heard = texts, language, []  # type: ignore[var-annotated]

    def run(self, raw: Any) -> Transcript:
        with open_audio(raw, 16000) as reader:
            duration = reader.seconds
        assert duration is not None
        self.heard.append(raw.stem)
        return Transcript(self.texts[raw.stem], self.language, (), duration)


@pytest.fixture
def data(tmp_path: Path) -> SpeechData:
    for index, (name, text) in enumerate(SAID.items()):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(8000 * (index + 1)), 16000)
        (tmp_path / f"{name}.txt").write_text(text)
    return read_speech_data(str(tmp_path))


def test_what_is_counted(data: SpeechData) -> None:
    own = Parrot({"a": "it cost $20 mister smith", "b": "good evening everyone", "c": "thank you"})
    source = Parrot({"a": "It cost twenty dollars Mr Smith!", "b": "Good evening, everyone.", "c": ""})
    seen: list[tuple[int, int]] = []
    found = measure(own, source, data, "a parrot", lambda *done: seen.append(done))
    # Of 6, 2 and 0 words: "20" and "mister" are wrong and a word is missing; one wrong, one too many; two made up.
    assert [row.bundle.simple for row in found.rows] == [WordErrors(3, 6), WordErrors(2, 2), WordErrors(2, 0)]
    assert found.bundle.simple == WordErrors(7, 8)
    # To Whisper "twenty dollars" is "$20", and "Mr." is "mister".
    assert found.rows[0].bundle.whisper == WordErrors(0, 5)
    assert found.bundle.whisper == WordErrors(4, 7)
    assert found.source is not None
    assert found.source.simple == WordErrors(2, 8)
    assert found.agreement == pytest.approx(1 / 3)  # of the second alone
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert own.heard == ["a", "a", "b", "c"]  # the first once before
    assert [row.bundle.sound_seconds for row in found.rows] == [0.5, 1.0, 1.5]
    spent = sum(row.bundle.run_seconds for row in found.rows)
    assert found.bundle.real_time_factor == pytest.approx(spent / 3.0)
    assert found.notes == ()


def test_the_document_and_the_table(data: SpeechData) -> None:
    found = measure(Parrot(SAID), None, data, "a parrot")
    document = json.loads(json.dumps(found.to_json()))
    assert (document["metric"], document["value"], document["n"]) == ("wer", 0.0, 3)
    assert (document["source_value"], document["agreement"], document["words"]) == (None, None, 8)
    assert document["wer_whisper_english"] == 0.0
    assert document["executed_by"] == "a parrot"
    assert document["clips"][1]["said"] == "good morning"
    assert document["clips"][1]["bundle"]["simple"] == {"errors": 0, "words": 2}
    assert [table.row_count for table in found.tables()] == [1]
    both = measure(Parrot(SAID), Parrot(SAID), data, "a parrot")
    assert [table.row_count for table in both.tables()] == [2]


def test_other_languages_have_no_english_words(data: SpeechData) -> None:
    found = measure(Parrot(SAID, "de"), Parrot(SAID, None), data, "a parrot")
    assert found.bundle.whisper is None
    assert found.source is not None
    assert found.source.whisper is not None  # None: nobody speaks
    assert found.to_json()["wer_whisper_english"] is None


def test_without_the_normaliser(data: SpeechData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "whisper_normalizer.english", None)
    found = measure(Parrot(SAID), None, data, "a parrot")
    assert found.bundle.whisper is None
    assert ["edgeformer[speech]" in note for note in found.notes] == [True]


def test_a_corrupted_clip_is_named(data: SpeechData) -> None:
    data.clips[1].path.write_bytes(b"no audio")
    with pytest.raises(InputError, match=r"^b\.wav: .* is not an audio file"):
        measure(Parrot(SAID), None, data, "a parrot")


def test_an_isolated_bundle_hears_the_same(whisper_bundle: Path, tmp_path: Path) -> None:
    clips = save_clips(tmp_path / "clips")
    with Bundle.open(whisper_bundle) as bundle:
        plain, isolated = (evaluate(bundle, clips, limit=3, isolated=each) for each in (False, True))
        assert isinstance(plain, SpeechEvaluation)
        assert isinstance(isolated, SpeechEvaluation)
        assert [each.bundle.text for each in isolated.rows] == [each.bundle.text for each in plain.rows]
        assert (isolated.bundle.simple, isolated.agreement) == (plain.bundle.simple, plain.agreement)
        assert isolated.executed_by == plain.executed_by
        (clips / "0.wav").write_bytes(b"no audio")
        with pytest.raises(InputError, match=r"^0\.wav: .* is not an audio file"):
            evaluate(bundle, clips, isolated=True)


def test_recorded_errors_of_a_real_model(assets: Path) -> None:
    recorded = json.loads((assets / "speech" / "baseline_tiny_en_fp32.json").read_text())["clips"]
    plain = open_tiny_english(assets / "whisper-tiny.en", "full")
    found: SpeechEvaluation = measure(plain, None, read_speech_data(str(assets / "speech")), "torch")
    assert [row.name for row in found.rows] == [clip["file"] for clip in recorded]
    heard = {row.name: [row.bundle.simple.errors, row.bundle.simple.words] for row in found.rows}
    unlike = {clip["file"]: heard[clip["file"]] for clip in recorded if clip["err_simple"] != heard[clip["file"]]}
    assert not unlike
    assert found.bundle.whisper == WordErrors(
        sum(clip["err_whisper_norm"][0] for clip in recorded), sum(clip["err_whisper_norm"][1] for clip in recorded)
    )
