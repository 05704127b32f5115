"""tiny.en on the assets' clips: texts, timestamps, beams, words and streams against public implementations."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from real_whisper import TOKENS
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.pipelines.speech import Transcriber
from edgeformer_runtime.pipelines.speech_stream import StreamOptions
from edgeformer_runtime.preprocess.audio import open_audio

pytestmark = pytest.mark.slow

PLAIN = TranscribeOptions(timestamps=False, temperatures=(0.0,), no_speech_threshold=None)

# Begin and end of each word of jfk.wav by openai-whisper 20250625 (word_timestamps=True, without_timestamps=True,
# temperature=0) on these weights in float32. Its path gives pauses to the words behind them: " ask" from 2.26 on.
JFK_WORDS = [
    ("And", 0.0, 0.76), ("so", 0.76, 1.06), ("my", 1.06, 1.46), ("fellow", 1.46, 1.76), ("Americans", 1.76, 2.26),
    ("ask", 2.26, 3.88), ("not", 3.88, 4.52), ("what", 4.52, 5.7), ("your", 5.7, 6.02), ("country", 6.02, 6.36),
    ("can", 6.36, 6.76), ("do", 6.76, 7.02), ("for", 7.02, 7.26), ("you", 7.26, 8.06), ("ask", 8.06, 8.66),
    ("what", 8.66, 8.94), ("you", 8.94, 9.28), ("can", 9.28, 9.5), ("do", 9.5, 9.72), ("for", 9.72, 9.92),
    ("your", 9.92, 10.22), ("country", 10.22, 10.5),
]  # fmt: skip
# Where the audio of jfk.wav is loud, in seconds, from its waveform: nobody speaks between these.
JFK_SPEECH = [(0.28, 2.16), (3.24, 3.74), (3.96, 4.34), (5.36, 7.6), (8.14, 10.42)]


def words_of(text: str) -> list[str]:
    return re.sub(r"[^a-z0-9' ]", "", text.lower()).split()


def word_errors(reference: str, found: str) -> int:
    """The least number of words to insert, delete or replace."""
    expected, said = words_of(reference), words_of(found)
    costs = np.arange(len(said) + 1)
    for word in expected:
        previous, costs = costs, np.empty_like(costs)
        costs[0] = previous[0] + 1
        for index, other in enumerate(said):
            costs[index + 1] = min(previous[index] + (word != other), previous[index + 1] + 1, costs[index] + 1)
    return int(costs[-1])


@pytest.fixture(scope="module")
def public(assets: Path) -> WhisperForConditionalGeneration:
    return WhisperForConditionalGeneration.from_pretrained(assets / "whisper-tiny.en", dtype=torch.float32).eval()


def samples_of(path: Path) -> np.ndarray:
    with open_audio(path, 16000) as reader:
        return reader.read(30 * 16000)


def test_clips_are_understood_as_by_the_baseline(tiny_english: Transcriber, assets: Path) -> None:
    baseline = json.loads((assets / "speech" / "baseline_tiny_en_fp32.json").read_text())["clips"]
    errors = expected = same = 0
    for clip in baseline:
        text = tiny_english.run(assets / "speech" / clip["file"], TranscribeOptions(timestamps=False)).text
        errors += word_errors(clip["ref"], text)
        expected += word_errors(clip["ref"], clip["hyp"])
        same += text == clip["hyp"].strip()
    assert errors <= expected + 3
    assert same >= 18


@pytest.mark.parametrize("file", ["jfk.wav", "harvard.wav"])
@pytest.mark.parametrize("timestamps", [False, True])
def test_tokens_as_in_transformers(
    tiny_english_full: Transcriber, public: WhisperForConditionalGeneration, assets: Path, file: str, timestamps: bool
) -> None:
    samples = samples_of(assets / "speech" / file)
    extractor = WhisperFeatureExtractor.from_pretrained(assets / "whisper-tiny.en")
    features = extractor(samples, sampling_rate=16000, return_tensors="pt").input_features
    with torch.inference_mode():
        generated = public.generate(features, return_timestamps=timestamps, do_sample=False, num_beams=1)
    special = range(TOKENS.end, TOKENS.first_timestamp)
    expected = [token for token in generated[0].tolist() if token not in special]
    found = tiny_english_full.run(samples, replace(PLAIN, timestamps=timestamps))
    text = [token for token in expected if token < TOKENS.end]
    assert [token for segment in found.segments for token in segment.tokens] == text
    if timestamps:
        times = [(token - TOKENS.first_timestamp) * 0.02 for token in expected if token >= TOKENS.first_timestamp]
        duration = len(samples) / 16000
        ours = [time for segment in found.segments for time in (segment.start, segment.end)]
        assert ours == pytest.approx([min(time, duration) for time in times], abs=1e-3)


def test_beams_are_at_least_as_likely(tiny_english: Transcriber, assets: Path) -> None:
    found = {}
    for width in (1, 5):
        (segment,) = tiny_english.run(assets / "speech" / "cards_002.wav", replace(PLAIN, beam_size=width)).segments
        found[width] = segment.mean_log_probability * (len(segment.tokens) + 1) / len(segment.tokens)
    assert found[5] >= found[1] - 1e-6


@pytest.mark.parametrize("timestamps", [False, True])
def test_times_of_words(tiny_english: Transcriber, assets: Path, timestamps: bool) -> None:
    options = TranscribeOptions(word_timestamps=True, timestamps=timestamps)
    found = tiny_english.run(assets / "speech" / "jfk.wav", options)
    words = [word for segment in found.segments for word in segment.words]
    assert [word.text.strip(",.") for word in words] == [text for text, _, _ in JFK_WORDS]
    for word, (_, start, end) in zip(words, JFK_WORDS, strict=True):
        # The reference without the pauses at its ends is ours, but for a few positions of 20 ms.
        heard = [(a, b) for a, b in JFK_SPEECH if min(b, end) - max(a, start) > 0.1]
        assert word.start == pytest.approx(max(start, heard[0][0]), abs=0.2)
        assert word.end == pytest.approx(min(end, heard[-1][1]), abs=0.2)
        assert 0 < word.end - word.start < 1.2
    assert words[5].start == pytest.approx(3.24, abs=0.06)  # "ask", behind a second of silence
    assert words[9].start == pytest.approx(6.02, abs=0.1)  # "country"


def test_long_audio_and_streams(tiny_english: Transcriber, assets: Path) -> None:
    """Clips one after the other: no window holds them all, and a stream cuts them at other pauses."""
    names = ["harvard.wav", "jfk.wav", "libri_3436-172162-0000.wav", "LJ050-0131.wav"]
    clips = {
        clip["file"]: clip for clip in map(json.loads, (assets / "speech" / "manifest.jsonl").read_text().splitlines())
    }
    pause = np.zeros(16000, np.float32)
    audio = np.concatenate([part for name in names for part in (samples_of(assets / "speech" / name), pause)])
    reference = " ".join(clips[name]["text"] for name in names)
    single = sum(word_errors(clips[name]["text"], tiny_english.run(assets / "speech" / name).text) for name in names)
    whole = tiny_english.run(audio)
    assert whole.statistics.windows > 1
    assert word_errors(reference, whole.text) <= single + 2
    blocks = np.array_split(audio, len(audio) // 8000)
    updates = list(tiny_english.stream(blocks, stream_options=StreamOptions(partial_seconds=15.0)))
    streamed = " ".join(segment.text for update in updates for segment in update.final)
    assert word_errors(reference, streamed) <= single + 2
    # They hear the clips in other windows: of 123 words a few come out as "asked" or "ask", "a" or "the".
    assert word_errors(whole.text, streamed) <= 5
    timed = tiny_english.run(audio, TranscribeOptions(timestamps=True, word_timestamps=True))
    assert word_errors(whole.text, timed.text) <= 6
    starts = [word.start for segment in timed.segments for word in segment.words]
    assert starts == sorted(starts)
