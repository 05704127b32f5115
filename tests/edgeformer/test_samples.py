"""The sound that speech bundles are recorded from touches every bucket, and has an answer in the model's language."""

from __future__ import annotations

import io

import soundfile

from edgeformer.samples import speech

RATE = 16000


def test_each_bucket_hears_what_fits_it_and_not_the_one_below() -> None:
    capacities = [5 * RATE, 10 * RATE, 30 * RATE]
    wav, counts = speech(capacities, RATE)
    assert soundfile.info(io.BytesIO(wav)).frames == capacities[-1]
    assert 0 < counts[0] <= capacities[0] < counts[1] <= capacities[1] < counts[2] <= capacities[2]


def test_a_model_without_english_hears_one_sentence_of_it() -> None:
    """Of more, Whisper base makes German that int8 changes wholly; this sentence it repeats at any precision."""
    english, counts = speech([5 * RATE, 30 * RATE], RATE)
    wav, others = speech([5 * RATE, 30 * RATE], RATE, knows_english=False)
    whole, _ = soundfile.read(io.BytesIO(english))
    samples, _ = soundfile.read(io.BytesIO(wav))
    end = round(3.4 * RATE)  # the sentence ends at 3.098 s
    assert samples[:end].tolist() == whole[:end].tolist()
    assert not samples[end:].any()
    assert 0 < others[0] <= 5 * RATE < others[1] <= 30 * RATE
    assert counts != others
    assert speech([RATE], RATE, knows_english=False)[1][0] <= RATE
