"""The transcriber on audio of any length, with a model that recognises tones: every word once, in order, in time."""

from __future__ import annotations

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from scripted import MULTILINGUAL, RATE, ToneEngine, tone_transcriber, tones

from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.pipelines.speech_session import SpeechSession
from edgeformer_runtime.pipelines.speech_stream import TranscriptStream, agreed
from edgeformer_runtime.pipelines.transcript import Transcript

ALPHABET = "abcdefghij"
TALK = "abc  dej  fghi  a" * 12
"""About two and a half minutes."""


def spaced(text: str) -> str:
    return " ".join(text.replace(" ", ""))


def check_times(transcript: Transcript) -> None:
    times = [time for segment in transcript.segments for time in (segment.start, segment.end)]
    times_of_words = [
        time for segment in transcript.segments for word in segment.words for time in (word.start, word.end)
    ]
    for series in (times, times_of_words):
        assert series == sorted(series)
        assert not series or (series[0] >= 0 and series[-1] <= transcript.duration)


def test_a_short_audio() -> None:
    engine = ToneEngine()
    transcriber = tone_transcriber(engine)
    found = transcriber.run(tones("abc"), TranscribeOptions(timestamps=False))
    assert (found.text, found.language, found.duration) == ("a b c", "en", pytest.approx(2.1))
    assert engine.opened == [250]
    (segment,) = found.segments
    assert (segment.start, segment.end, segment.text, segment.temperature) == (0.0, pytest.approx(2.1), "a b c", 0.0)
    cost = found.statistics
    assert (cost.tokens, cost.windows) == (5, 1)
    assert 0 < cost.mel_ms + cost.encode_ms + cost.decode_ms <= cost.total_ms
    assert json.loads(json.dumps(found.to_json()))["segments"][0]["tokens"] == list(b"a b c")
    assert "statistics" not in found.to_json()


@pytest.mark.parametrize(
    ("seconds", "positions"),
    [(0.3, 250), (4.5, 250), (4.6, 500), (9.6, 1000), (19.5, 1000), (29.0, 1500), (30.0, 1500)],
)
def test_half_a_second_of_silence_stays_behind_the_audio(seconds: float, positions: int) -> None:
    engine = ToneEngine()
    audio = np.resize(tones("ab"), round(seconds * RATE))
    tone_transcriber(engine).run(audio)
    assert engine.opened == [positions]


def test_times_are_where_the_tones_are() -> None:
    options = TranscribeOptions(word_timestamps=True, timestamps=False)
    for chosen in (options, replace(options, timestamps=True), replace(options, beam_size=3)):
        found = tone_transcriber().run(tones("a bc   d"), chosen)
        check_times(found)
        words = [word for segment in found.segments for word in segment.words]
        assert [word.text for word in words] == list("abcd")
        starts = np.array([0.0, 1.0, 1.7, 3.3])
        np.testing.assert_allclose([word.start for word in words], starts, atol=0.05)
        np.testing.assert_allclose([word.end for word in words], starts + 0.4, atol=0.12)
        assert len(found.segments) == (4 if chosen.timestamps else 1)


@pytest.mark.parametrize("timestamps", [False, True])
def test_long_audio_is_heard_once_and_in_order(timestamps: bool) -> None:
    engine = ToneEngine()
    transcriber = tone_transcriber(engine)
    done: list[tuple[float, float | None]] = []
    audio = tones(TALK)
    found = transcriber.run(audio, TranscribeOptions(timestamps=timestamps), lambda *at: done.append(at))
    assert found.text == spaced(TALK)
    assert found.duration == pytest.approx(len(audio) / RATE)
    check_times(found)
    assert done[-1] == (found.duration, found.duration)
    assert [at for at, _ in done] == sorted({at for at, _ in done})
    assert found.statistics.windows == len(done) < len(audio) / RATE / 15 + 1
    # The rest of the audio takes the smallest bucket that holds it; few decoders stay open.
    assert engine.open_now <= 3


def test_words_are_not_cut() -> None:
    rng = np.random.default_rng(5)
    text = "".join(rng.choice(list(ALPHABET + "  "), 150))
    audio = tones(text, letter_seconds=0.5, gap_seconds=0.15)
    assert tone_transcriber().run(audio).text == spaced(text)


def test_long_silence_is_skipped() -> None:
    engine = ToneEngine()
    silence = np.zeros(20 * RATE, np.float32)
    audio = np.concatenate([silence, tones("abc"), silence, silence, silence, tones("de"), silence])
    found = tone_transcriber(engine).run(audio, TranscribeOptions(timestamps=True))
    assert found.text == "a b c d e"
    assert engine.opened == [250]
    assert found.statistics.windows == 2
    starts = [segment.start for segment in found.segments]
    np.testing.assert_allclose(starts, [20, 20.7, 21.4, 82.1, 82.8], atol=0.05)


@pytest.mark.parametrize("count", [0, 1, 100, 3 * RATE, 70 * RATE])
def test_silence_has_no_text(count: int) -> None:
    found = tone_transcriber().run(np.zeros(count, np.float32))
    assert (found.text, found.segments, found.duration) == ("", (), count / RATE)


def test_what_a_window_leaves_over_is_heard_again() -> None:
    class Unfinished(ToneEngine):
        """Leaves out the last of 5 words: a pair of timestamps is all that follows the fourth."""

        def open_decoder(self, bucket, spec):
            decoder = super().open_decoder(bucket, spec)
            complete = decoder._transcript

            def transcript(timestamps: bool) -> list[tuple[int, int]]:
                said = complete(timestamps)
                return said if len(decoder._heard) < 5 else [*said[:-4], said[-1]]

            decoder._transcript = transcript
            return decoder

    found = tone_transcriber(Unfinished()).run(tones("abcde  "), TranscribeOptions(timestamps=True))
    assert found.text == "a b c d e"
    assert found.statistics.windows == 2
    check_times(found)


@pytest.mark.parametrize("words", [False, True])
def test_what_a_window_skips_is_heard_again_once(words: bool) -> None:
    class Skipping(ToneEngine):
        """Says the first word alone, which lasts until the window's last tone ends."""

        def open_decoder(self, bucket, spec):
            decoder = super().open_decoder(bucket, spec)
            complete = decoder._transcript

            def transcript(timestamps: bool) -> list[tuple[int, int]]:
                said = complete(timestamps)
                return [*said[:2], *said[-2:]] if len(decoder._heard) in skips else said

            decoder._transcript = transcript
            return decoder

    audio, options = tones("abcdef", 1.5, 0.5), TranscribeOptions(word_timestamps=words)
    skips = {6}
    found = tone_transcriber(Skipping()).run(audio, options)
    assert (found.text, found.statistics.windows) == ("a b c d e f", 2)
    check_times(found)
    assert found.segments[0].end == pytest.approx(1.5, abs=0.1)
    skips = {6, 5}
    found = tone_transcriber(Skipping()).run(audio, options)
    assert (found.text, found.statistics.windows) == ("a b", 2)


def test_prompts_reach_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeformer_runtime.pipelines import speech_session

    prompts = []

    def build(*arguments):
        prompts.append(original(*arguments))
        return prompts[-1]

    original = speech_session.build_prompt
    monkeypatch.setattr(speech_session, "build_prompt", build)
    options = TranscribeOptions(initial_prompt="names", condition_on_previous_text=True)
    transcriber = tone_transcriber()
    audio = tones(TALK[:60])
    assert transcriber.run(audio, options).text == spaced(TALK[:60])
    first, second = (bytes(token for token in prompt.tokens[1 : prompt.start]) for prompt in prompts)
    assert first == b" names"
    assert second.startswith(b" namesa b c d")
    prompts.clear()
    transcriber.run(audio, replace(options, condition_on_previous_text=False))
    assert {bytes(prompt.tokens[1 : prompt.start]) for prompt in prompts} == {b" names"}
    prompts.clear()
    long = replace(options, hotwords=" Anna, Otto ", initial_prompt="names" * 60)
    assert transcriber.run(audio, long).text == spaced(TALK[:60])
    room = 448 // 2 - 1
    for prompt in prompts:
        before = bytes(prompt.tokens[1 : prompt.start])
        assert before.startswith(b" Anna, Otto") and len(before) == room


@pytest.mark.parametrize(
    ("clips", "letters", "starts"),
    [
        ((), "abcdefghij", [0.0, 0.7]),
        ((0.0,), "abcdefghij", [0.0, 0.7]),
        ((1.4, 2.8), "cd", [1.4, 2.1]),
        ((0.0, 0.7, 2.8, 4.2, 6.3), "aefj", [0.0, 2.8]),
        ((60.0,), "", []),
        ((6.3, 70.0), "j", [6.3]),
    ],
)
def test_clips(clips: tuple[float, ...], letters: str, starts: list[float]) -> None:
    found = tone_transcriber().run(tones("abcdefghij"), TranscribeOptions(clip_timestamps=clips))
    assert found.text == spaced(letters)
    assert [segment.start for segment in found.segments[:2]] == pytest.approx(starts, abs=0.06)


def test_clips_that_are_none() -> None:
    for wrong in ((3.0, 2.0), (-1.0,), (float("nan"),)):
        with pytest.raises(InputError, match="clip_timestamps: expected seconds that never fall"):
            TranscribeOptions(clip_timestamps=wrong)
    with pytest.raises(InputError, match="clip_timestamps: expected none for a stream"):
        tone_transcriber().open_stream(TranscribeOptions(clip_timestamps=(1.0,)))


def test_segments_are_told_as_they_come() -> None:
    told: list[tuple[str, float]] = []
    done: list[float] = []
    audio = tones(TALK[:90])
    found = tone_transcriber().run(
        audio,
        progress=lambda seconds, _: done.append(seconds),
        on_segment=lambda segment: told.append((segment.text, done[-1] if done else 0.0)),
    )
    assert [text for text, _ in told] == [segment.text for segment in found.segments]
    assert told[0][1] == 0.0 and told[-1][1] > 25


def test_languages() -> None:
    transcriber = tone_transcriber(tokens=MULTILINGUAL)
    assert transcriber.run(tones("abc"), TranscribeOptions(language="de")).language == "de"
    with pytest.raises(InputError, match="knows de, en"):
        transcriber.run(tones("abc"), TranscribeOptions(language="fr"))
    assert transcriber.run(np.zeros(RATE, np.float32)).language is None
    with pytest.raises(InputError, match="knows English only"):
        tone_transcriber().run(tones("abc"), TranscribeOptions(task="translate"))


def test_batches_threads_and_errors() -> None:
    transcriber = tone_transcriber()
    first, second = transcriber([tones("abc"), (tones("de"), RATE)])
    assert (first.text, second.text) == ("a b c", "d e")
    with pytest.raises(InputError, match=r"input 1 of 2: .*NaN|input 1 of 2: .*nan"):
        transcriber([tones("abc"), np.full(RATE, np.nan, np.float32)])
    texts = ["abc", "de", "abcdefgh" * 2, "ja"] * 3
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda text: transcriber.run(tones(text)).text, texts))
    assert found == [spaced(text) for text in texts]


def test_decoders_are_closed() -> None:
    engine = ToneEngine()
    transcriber = tone_transcriber(engine)
    for text in ("a", "abcdefghij", "abcdefghij" * 2, "abcdefghij" * 4, "a"):
        assert transcriber.run(tones(text)).text == spaced(text)
        assert engine.open_now <= 3
    transcriber.close()
    assert engine.open_now == 0


def test_reference_answer() -> None:
    transcriber = tone_transcriber()
    assert transcriber.plain_prompt() == [257, 262]
    (bucket, *_) = transcriber.spec.buckets
    assert transcriber.plain_text(tones("abc"), bucket) == "a b c"
    logits = np.zeros(transcriber.spec.vocab_size, np.float32)
    logits[[32, 97, 1]] = 3, 2, 9
    assert transcriber.plain_choice(logits, first=True) == 97
    assert transcriber.plain_choice(logits, first=False) == 32


# Streams


@pytest.fixture
def free_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which guesses take no time, so that they are made as often as this machine likes."""
    monkeypatch.setattr(TranscriptStream, "clock", staticmethod(lambda: 0.0))


@pytest.mark.usefixtures("free_guesses")
@pytest.mark.parametrize("block_seconds", [0.02, 0.5, 7.0, 200.0])
def test_streams_agree_with_whole_recordings(block_seconds: float) -> None:
    audio = tones(TALK[:60] + "      " + TALK[60:90])
    size = round(block_seconds * RATE)
    blocks = [audio[begin : begin + size] for begin in range(0, len(audio), size)]
    updates = list(tone_transcriber().stream(blocks))
    final = [segment for update in updates for segment in update.final]
    assert " ".join(segment.text for segment in final) == spaced(TALK[:90])
    assert updates[-1].partial == ""
    check_times(Transcript("", None, tuple(final), len(audio) / RATE))
    partials = [update for update in updates if update.partial]
    if block_seconds <= 0.5:
        assert len(partials) > 40
        gaps = np.diff([update.seconds for update in partials])
        assert gaps.min() >= 0.1 - 1e-6 and np.median(gaps) == pytest.approx(0.5)
        assert all(update.partial.startswith(update.stable) for update in partials)
        # A guess is the start of what becomes final, but for the word that is being said.
        for update, following in itertools.pairwise(updates):
            if update.partial and following.final:
                assert " ".join(segment.text for segment in following.final).startswith(update.partial[:-2])


@pytest.mark.usefixtures("free_guesses")
def test_words_are_stable_soon() -> None:
    """A word is in two guesses a second after its end at the latest, or a breath after it in one."""
    audio = tones("abcdefghij", 0.4, 0.1)
    ends = [0.4 + 0.5 * index for index in range(10)]
    stream = tone_transcriber().open_stream()
    stable = [
        (update.seconds, update.stable)
        for start in range(0, len(audio), RATE // 50)
        for update in stream.feed(audio[start : start + RATE // 50])
    ]
    stable += [(update.seconds, update.stable) for update in stream.feed(np.zeros(round(0.35 * RATE), np.float32))]
    for letter, end in zip("abcdefghij", ends, strict=True):
        assert next(seconds for seconds, text in stable if letter in text) - end <= 1.0 + 0.1, letter
    assert stream.transcript().segments == ()  # all of it is still a guess


def test_guesses_take_a_fifth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that takes half a second for each, a guess is made every two and a half."""
    ticks = itertools.count()
    monkeypatch.setattr(TranscriptStream, "clock", staticmethod(lambda: next(ticks) * 0.5))
    audio = tones("abcdefghij", 0.4, 0.1)
    seconds = [update.seconds for update in tone_transcriber().stream(np.split(audio, 50)) if update.partial]
    assert np.diff(seconds).min() >= 2.5 - 1e-6 and len(seconds) == 2


@pytest.mark.usefixtures("free_guesses")
def test_a_guess_that_lost_the_thread_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model gives the first three words whatever follows; behind a cut it hears the rest."""
    transcriber = tone_transcriber()
    monkeypatch.setattr(SpeechSession, "guess", lambda _, samples: "a b c"[: len(samples) // RATE * 2])
    audio = tones("abcdefghijabcdefghij", 0.4, 0.1)
    updates = list(transcriber.stream(np.split(audio, 100)))
    finals = [update for update in updates if update.final]
    assert finals[0].seconds == pytest.approx(6.2, abs=0.4)  # three seconds after the third
    assert " ".join(segment.text for update in finals for segment in update.final) == spaced("abcdefghij" * 2)


@pytest.mark.parametrize(
    ("before", "now", "stable", "expected"),
    [
        ("", "the old", "", ""),
        ("The old beer.", "the old beard is", "", "the old"),
        ("the old beer.", "The old beer, which", "", "The old beer"),
        ("the old", "the new beer", "the old beer", "the"),
        ("the", "the old beer is", "the old beer", "the old beer"),
        ("今天天", "今天天气很好", "", "今天天"),
        ("don't do", "Don't  do it", "", "Don't  do"),
    ],
)
def test_agreement_of_guesses(before: str, now: str, stable: str, expected: str) -> None:
    assert agreed(before, now, stable) == expected


def test_a_stream_by_hand() -> None:
    transcriber = tone_transcriber()
    stream = transcriber.open_stream()
    assert stream.feed(np.zeros(10 * RATE, np.float32)) == []
    (guess,) = stream.feed(tones("abc"))
    assert (guess.final, guess.partial) == ((), "a b c")
    (final,) = stream.feed(np.zeros(2 * RATE, np.int16))
    assert [segment.text for segment in final.final] == ["a", "b", "c"]
    assert stream.feed(tones("d")[: RATE // 4]) == []
    (last,) = stream.finish()
    assert [segment.text for segment in last.final] == ["d"]
    assert stream.finish() == []
    assert stream.transcript().text == "a b c d"
    assert last.final[0].start >= final.final[-1].end >= 11.5
    with pytest.raises(InputError, match="the stream has ended"):
        stream.feed(tones("a"))


class Ears:
    """A detector that takes no tone below 500 Hz for a voice."""

    def process_samples(self, samples: list[float]) -> float:
        power = np.square(np.abs(np.fft.rfft(samples)))
        return float(power[16:].sum() > power[:16].sum())


def test_only_voices_are_transcribed(monkeypatch: pytest.MonkeyPatch) -> None:
    """ "a" is a hum of 300 Hz; a window of 30 s has what is nearer to a voice than three seconds."""
    monkeypatch.setattr("edgeformer_runtime.preprocess.silence.load_optional", lambda *_: Ears)
    hum = tones("a" * 20)
    audio = np.concatenate((hum, tones("def"), hum))
    options = TranscribeOptions(vad_filter=True)
    transcriber = tone_transcriber()
    assert transcriber.run(hum).text.count("a") == 20
    assert transcriber.run(hum, options).segments == ()
    found = transcriber.run(audio, options)
    assert found.text in ("d e f", "a d e f", "a d e f a", "d e f a")
    d = next(segment for segment in found.segments if segment.text == "d")
    assert d.start == pytest.approx(14.0, abs=0.1)
    updates = transcriber.stream([hum[start : start + 1600] for start in range(0, len(hum), 1600)], options)
    assert list(updates) == []
