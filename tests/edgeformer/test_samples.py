"""The audio that speech bundles are recorded from touches every bucket, and has an answer in the model's language."""

from __future__ import annotations

import io

import soundfile

from edgeformer.tasks.speech import speech

RATE = 16000


def test_each_bucket_hears_what_fits_it_and_not_the_one_below() -> None:
    capacities = [5 * RATE, 10 * RATE, 30 * RATE]
    wav, counts = speech(capacities, RATE)
    assert soundfile.info(io.BytesIO(wav)).frames == capacities[-1]
    assert 0 < counts[0] <= capacities[0] < counts[1] <= capacities[1] < counts[2] <= capacities[2]


def test_a_model_without_english_hears_one_sentence_of_it() -> None:
    """Of more, Whisper base makes German that int8 changes wholly; this sentence it repeats at any precision."""
    english, _ = speech([5 * RATE, 30 * RATE], RATE)
    wav, counts = speech([5 * RATE, 30 * RATE], RATE, knows_english=False)
    whole, _ = soundfile.read(io.BytesIO(english))
    samples, _ = soundfile.read(io.BytesIO(wav))
    sentence = whole[: round(3.55 * RATE)]  # it ends at 3.098 s, and the next one starts at 3.698 s
    assert len(samples) == 30 * RATE
    for start in range(0, 30 * RATE, len(sentence)):
        part = samples[start : start + len(sentence)]
        assert part.tolist() == sentence[: len(part)].tolist()
    assert 0 < counts[0] <= 5 * RATE < counts[1] <= 30 * RATE
    assert speech([RATE], RATE, knows_english=False)[1][0] <= RATE
