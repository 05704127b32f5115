"""Prompts, greedy, sampling, beams and fallback on scripted decoders, which check rows and masks at every step."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scripted import MULTILINGUAL, SPACE, TOKENS, VOCABULARY, Script, ScriptedDecoder, byte_tokenizer, make_spec, says

from edgeformer_runtime.decoding.fallback import Decoded, decode_with_fallback
from edgeformer_runtime.decoding.logit_rules import LogitRules
from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.decoding.prompt import Prompt, build_prompt, check_language, detect_language, feed
from edgeformer_runtime.decoding.search import (
    Hypothesis,
    Search,
    beam_search,
    compression_ratio,
    follow,
    likeliest,
    loop_period,
    sampler,
)
from edgeformer_runtime.decoding.tokenizer import SpeechTokenizer
from edgeformer_runtime.errors import InputError

PLAIN = Prompt((TOKENS.start, TOKENS.no_timestamps), 0)


def search_of(
    script: Script, rows: int = 64, max_tokens: int = 40, prompt: Prompt = PLAIN, timestamps: bool = False, **changed
) -> Search:
    decoder = ScriptedDecoder(script, rows)
    rules = LogitRules(make_spec(rows), timestamps)
    return replace(Search(decoder, feed(decoder, prompt), rules, TOKENS, max_tokens, keep_alignments=False), **changed)


def random_script(tokens: tuple[int, ...]) -> np.ndarray:
    """Logits that depend on every token seen and its place; few tokens matter, so that searches have to choose."""
    generator = np.random.default_rng(list(tokens))
    logits = np.full(VOCABULARY, -30.0)
    logits[[*range(65, 71), TOKENS.end]] = generator.normal(0, 1.5, 7)
    return logits


# Prompts


def test_prompt_of_one_language() -> None:
    assert build_prompt(TOKENS, 64, TranscribeOptions(timestamps=False), "en") == PLAIN
    assert build_prompt(TOKENS, 64, TranscribeOptions(), "en") == Prompt((TOKENS.start,), 0)


def test_prompt_of_many_languages_with_text_before_it() -> None:
    options = TranscribeOptions(task="translate", timestamps=False)
    found = build_prompt(MULTILINGUAL, 64, options, "de", previous=range(100))
    kept = tuple(range(100))[-31:]
    assert found == Prompt((258, *kept, 257, 254, 261, 262), 32)
    assert build_prompt(MULTILINGUAL, 64, TranscribeOptions(timestamps=False), "en").tokens == (257, 255, 260, 262)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (TranscribeOptions(language="de"), "knows English only; expected none or 'en'"),
        (TranscribeOptions(task="translate"), "translation needs a multilingual model"),
    ],
)
def test_english_only_models_say_so(options: TranscribeOptions, problem: str) -> None:
    check_language(TranscribeOptions(language="en"), TOKENS)
    with pytest.raises(InputError, match=problem):
        check_language(options, TOKENS)


def test_unknown_languages_are_named() -> None:
    check_language(TranscribeOptions(language="de", task="translate"), MULTILINGUAL)
    with pytest.raises(InputError, match="'xx': this model knows de, en"):
        check_language(TranscribeOptions(language="xx"), MULTILINGUAL)
    with pytest.raises(InputError, match="'German': did you mean de\\? this model knows de, en"):
        check_language(TranscribeOptions(language="German"), MULTILINGUAL)
    fixed = replace(MULTILINGUAL, languages={"de": 255})
    with pytest.raises(InputError, match="'en': this bundle was made for de alone; convert the model again with --lan"):
        check_language(TranscribeOptions(language="en"), fixed)


@pytest.mark.parametrize("length", range(1, 14))
def test_prompts_of_any_length_are_fed_in_order(length: int) -> None:
    tokens = tuple(range(70, 70 + length))
    for start in range(length):
        decoder = ScriptedDecoder(random_script)
        context = feed(decoder, Prompt(tokens, start))
        np.testing.assert_array_equal(context.logits, random_script(tokens).astype(np.float32))
        np.testing.assert_array_equal(context.start_logits, random_script(tokens[: start + 1]).astype(np.float32))
        assert context.position == length
        assert list(np.flatnonzero(context.mask == 0)) == list(range(length))
        assert (context.alignment == length).all()


def test_language_is_the_likeliest_of_the_languages() -> None:
    logits = np.zeros(VOCABULARY)
    logits[[254, 255, 65]] = 1.0, 3.0, 99.0
    found = detect_language(ScriptedDecoder(lambda _: logits), MULTILINGUAL)
    assert list(found) == ["en", "de"]
    assert found["en"] == pytest.approx(1 / (1 + math.exp(-2)))
    assert sum(found.values()) == pytest.approx(1)


# Greedy


def test_greedy_says_what_is_likeliest_until_the_end() -> None:
    found = follow(search_of(says(72, 105, 33)), likeliest)
    assert (found.tokens, found.ended, found.looped) == ((72, 105, 33), True, False)
    assert len(found.log_probabilities) == 4
    possible = VOCABULARY - 2 - (VOCABULARY - 1 - TOKENS.end)  # neither suppressed nor special
    expected = 20 - math.log(math.exp(20) + possible - 1)
    assert found.log_probabilities[1:] == pytest.approx([expected] * 3, abs=1e-6)
    assert found.mean_log_probability == pytest.approx(sum(found.log_probabilities) / 4)


def test_greedy_equals_a_search_without_a_cache() -> None:
    said: list[int] = []
    rules = LogitRules(make_spec(), timestamps=False)
    while not said or said[-1] != TOKENS.end:
        logits = random_script((*PLAIN.tokens, *said)).astype(np.float32)
        rules.apply(logits, said)
        said.append(int(logits.argmax()))
    assert follow(search_of(random_script), likeliest).tokens == tuple(said[:-1])


@pytest.mark.parametrize(("rows", "max_tokens", "expected"), [(64, 7, 7), (12, 40, 11)])
def test_greedy_ends_where_tokens_or_rows_run_out(rows: int, max_tokens: int, expected: int) -> None:
    found = follow(search_of(says(*range(65, 95)), rows, max_tokens), likeliest)
    assert found.tokens == tuple(range(65, 65 + expected))
    assert not found.ended


def test_alignments_are_those_of_the_row_that_chose() -> None:
    found = follow(search_of(says(72, 105), keep_alignments=True), likeliest)
    assert [alignment[0, 0] for alignment in found.alignments] == [2, 3, 4]


def test_a_loop_ends_early() -> None:
    phrase = tuple(b" so it goes")
    search = search_of(says(65, *phrase * 9), rows=448, max_tokens=400)
    found = follow(search, likeliest)
    assert found.looped
    assert len(found.tokens) == 1 + 4 * len(phrase)
    assert not follow(replace(search, stop_loops=False), likeliest).looped


@pytest.mark.parametrize(
    ("tokens", "period"),
    [
        ([], 0),
        ([7] * 15, 0),
        ([7] * 16, 1),
        ([1, 2, 3] * 5, 0),
        ([1, 2, 3] * 6, 3),
        ([9, *range(40)] + list(range(40)) * 3, 40),
        (list(range(40)) * 3, 0),
        ([1, 2] * 20 + [3], 0),
    ],
)
def test_loops(tokens: list[int], period: int) -> None:
    assert loop_period(tokens) == period


def test_sampling_follows_the_probabilities_and_the_seed() -> None:
    logits = np.full(VOCABULARY, -np.inf, np.float32)
    logits[[65, 66, 67]] = 0.0, 1.0, 2.0
    pick = sampler(0.5, np.random.default_rng(3))
    drawn = [pick(logits) for _ in range(4000)]
    weights = np.exp(np.array([0.0, 2.0, 4.0]))
    shares = [drawn.count(token) / 4000 for token in (65, 66, 67)]
    assert shares == pytest.approx(list(weights / weights.sum()), abs=0.03)
    texts = [follow(search_of(random_script), sampler(1.0, np.random.default_rng(seed))).tokens for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


# Beams


def naive_beams(script: Script, width: int, patience: float, max_tokens: int) -> list[tuple[tuple[int, ...], float]]:
    """Beam search without a cache or shared rows: every prefix is scored anew."""
    rules = LogitRules(make_spec(), timestamps=False)
    live: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    done: list[tuple[tuple[int, ...], float]] = []
    wanted = round(width * patience)
    for _ in range(max_tokens):
        scored = []
        for said, score in live:
            logits = script((*PLAIN.tokens, *said)).astype(np.float32)
            rules.apply(logits, said)
            log_probabilities = logits - np.logaddexp.reduce(logits.astype(np.float64))
            scored += [(score + log_probabilities[token], (*said, token)) for token in np.flatnonzero(logits > -np.inf)]
        scored.sort(reverse=True)
        live = []
        for score, said in scored:
            if said[-1] == TOKENS.end:
                done += [(said[:-1], score)] if len(done) < wanted else []
            else:
                live.append((said, score))
            if len(live) == width:
                break
        if len(done) >= wanted:
            return done
    return done + live[: max(0, width - len(done))]


@pytest.mark.parametrize(("width", "patience"), [(1, 1.0), (2, 1.0), (5, 1.0), (3, 2.0)])
@pytest.mark.parametrize("seed", range(4))
def test_beams_equal_a_search_without_a_cache(width: int, patience: float, seed: int) -> None:
    def script(tokens: tuple[int, ...]) -> np.ndarray:
        return random_script((seed, *tokens))

    found = beam_search(search_of(script, rows=128, max_tokens=12), width, patience)
    expected = naive_beams(script, width, patience, 12)
    assert {hypothesis.tokens for hypothesis in found} == {tuple(map(int, said)) for said, _ in expected}
    scores = dict(expected)
    for hypothesis in found:
        assert hypothesis.log_probability == pytest.approx(scores[hypothesis.tokens], abs=1e-4)


def test_beams_find_what_greedy_misses() -> None:
    tree = {(): {65: 0.6, 66: 0.4}, (65,): {67: 0.5, 68: 0.5}, (66,): {67: 1.0}}

    def script(tokens: tuple[int, ...]) -> np.ndarray:
        logits = np.full(VOCABULARY, -40.0)
        for token, probability in tree.get(tokens[2:], {TOKENS.end: 1.0}).items():
            logits[token] = math.log(probability)
        return logits

    assert follow(search_of(script), likeliest).tokens[0] == 65
    best = max(beam_search(search_of(script), 2), key=lambda hypothesis: hypothesis.score(None))
    assert best.tokens == (66, 67)
    assert best.log_probability == pytest.approx(math.log(0.4), abs=1e-3)


def test_beams_use_freed_rows_again() -> None:
    search = search_of(says(*range(65, 95)), rows=40)
    best = max(beam_search(search, 4), key=lambda hypothesis: hypothesis.score(None))
    # 30 tokens and the prompt take 32 rows; the other beams' rows, 3 a step, only fit as they are freed.
    assert best.tokens == tuple(range(65, 95))
    assert best.ended


def test_beams_end_where_rows_run_out() -> None:
    found = beam_search(search_of(random_script_without_end, rows=16), 3)
    assert len(found) == 3
    assert all(not hypothesis.ended and len(hypothesis.tokens) <= 15 for hypothesis in found)


def random_script_without_end(tokens: tuple[int, ...]) -> np.ndarray:
    logits = random_script(tokens)
    logits[TOKENS.end] = -30
    return logits


def test_beams_keep_their_own_alignments() -> None:
    found = beam_search(search_of(random_script, keep_alignments=True, max_tokens=9), 3)
    for hypothesis in found:
        assert len(hypothesis.alignments) == len(hypothesis.log_probabilities)
        assert [alignment[0, 0] for alignment in hypothesis.alignments] == [
            2 + index for index in range(len(hypothesis.alignments))
        ]


def test_length_penalty() -> None:
    short = Hypothesis((1,), (-1.0, -0.2), ended=True, looped=False)
    long = Hypothesis((1, 2, 3, 4), (-0.5, -0.5, -0.5, -0.5, -0.1), ended=True, looped=False)
    assert long.score(None) == pytest.approx(-2.1 / 4)
    assert short.score(None) == pytest.approx(-1.2)
    assert long.score(0.0) == pytest.approx(-2.1)
    assert long.score(1.0) == pytest.approx(-2.1 / 1.5)


# Fallback


def fall_back(script: Script, options: TranscribeOptions | None = None, **changed) -> Decoded:
    tokenizer = SpeechTokenizer(byte_tokenizer(), TOKENS.end)
    chosen = options or TranscribeOptions()
    return decode_with_fallback(search_of(script, **changed), tokenizer, chosen, np.random.default_rng(0), 1.0)


def test_a_good_result_stays() -> None:
    found = fall_back(says(*b"Good morning"))
    assert (found.text, found.temperature, found.silent, found.doubtful) == ("Good morning", 0.0, False, False)
    assert found.compression_ratio == compression_ratio("Good morning")


def test_repetition_and_improbable_text_raise_the_temperature() -> None:
    looping = fall_back(says(*b"ab" * 30, likelihood=300.0), rows=448, max_tokens=100)
    assert (looping.text, looping.doubtful) == ("ab", True)
    flat = fall_back(says(*b"hi", likelihood=4.0), TranscribeOptions(log_probability_threshold=-3.0))
    assert (flat.text, flat.doubtful) == ("hi", False)
    accepted = fall_back(says(*b"hi", likelihood=4.0), TranscribeOptions(log_probability_threshold=None))
    assert (accepted.temperature, accepted.text) == (0.0, "hi")


def test_where_every_temperature_fails_the_likeliest_counts_and_is_marked() -> None:
    """The last one, a sample at 1.0, was delivered however improbable."""
    found = fall_back(says(*b"hi", likelihood=4.0))
    assert (found.text, found.temperature, found.doubtful) == ("hi", 0.0, True)
    last = fall_back(says(*b"hi", likelihood=4.0), TranscribeOptions(temperatures=(2.0,)))
    assert last.hypothesis.mean_log_probability < found.hypothesis.mean_log_probability < -1


def test_a_repetitive_text_comes_behind_an_improbable_one() -> None:
    """A loop is certain of itself."""

    def looping_unless_sampled(tokens: tuple[int, ...]) -> np.ndarray:
        return says(*b"ab" * 30, likelihood=6.0)(tokens)

    options = TranscribeOptions(temperatures=(0.0, 2.0), log_probability_threshold=-0.001)
    found = fall_back(looping_unless_sampled, options, rows=448, max_tokens=100)
    certain = fall_back(looping_unless_sampled, replace(options, temperatures=(0.0,)), rows=448, max_tokens=100)
    assert certain.hypothesis.looped
    assert (found.temperature, found.hypothesis.looped, found.doubtful) == (2.0, False, True)
    assert found.hypothesis.mean_log_probability < certain.hypothesis.mean_log_probability


def test_the_best_of_several_samples_counts() -> None:
    options = TranscribeOptions(temperatures=(0.9,), log_probability_threshold=None, no_speech_threshold=None)
    single = fall_back(random_script, options).hypothesis.score(None)
    several = fall_back(random_script, replace(options, best_of=8)).hypothesis.score(None)
    assert several > single


def test_repetition_that_is_no_loop_is_seen_afterwards() -> None:
    text = (
        b"one of the, two of the, one of the, six of the, one of the, ten of the, one of the, two of the, one of the,"
    )
    found = fall_back(
        says(*text, likelihood=300.0), TranscribeOptions(temperatures=(0.0, 0.2)), rows=448, max_tokens=200
    )
    assert not found.hypothesis.looped
    assert found.compression_ratio > 2.4
    assert found.doubtful


def test_a_sample_that_says_a_phrase_again_and_again_is_marked() -> None:
    """What Whisper makes of English that is to be German: probable enough, no loop, and not what was said."""
    text = b"what country you can, what you can, what country you can, what country you can."
    said = says(*text, likelihood=300.0)

    def found(temperature: float) -> Decoded:
        options = TranscribeOptions(temperatures=(temperature,), compression_ratio_threshold=None)
        return fall_back(said, options, rows=448, max_tokens=100)

    assert found(0.2).text == text.decode()
    assert (found(0.0).doubtful, found(0.2).doubtful) == (False, True)
    assert not fall_back(says(*b"Good morning, and good night", likelihood=300.0)).doubtful


@pytest.mark.parametrize(("stretches", "times"), [(0, 1), (9, 1), (10, 10), (15, 10)])
def test_what_is_said_ten_times_is_no_loop(stretches: int, times: int) -> None:
    script = says(*b"I will not be late. " * 10, likelihood=300.0)
    said = fall_back(script, rows=448, max_tokens=224, stretches=stretches)
    assert said.text == "I will not be late. " * times
    assert said.doubtful == (times == 1)
    if times == 10:
        assert said.temperature == 0.0 and said.compression_ratio > 2.4


def test_silence() -> None:
    def silent(tokens: tuple[int, ...]) -> np.ndarray:
        logits = says(*b"Thank you", likelihood=4.0)(tokens)
        if tokens[-1] == TOKENS.start:
            logits[TOKENS.no_speech] = 12.0
        return logits

    found = fall_back(silent)
    assert (found.silent, found.text, found.hypothesis.tokens) == (True, "", ())
    assert found.no_speech_probability > 0.9
    kept = fall_back(silent, TranscribeOptions(no_speech_threshold=None, temperatures=(0.0,)))
    assert kept.text == "Thank you"


def test_a_loop_among_timestamps_is_said_once() -> None:
    first = TOKENS.first_timestamp
    times = itertools.count(first, 10)
    tokens = [token for _ in range(8) for token in (next(times), *b"hello", next(times))]
    found = fall_back(
        says(*tokens, prompt=1), TranscribeOptions(temperatures=(0.0,), timestamps=True),
        rows=448, max_tokens=200, prompt=Prompt((TOKENS.start,), 0), timestamps=True,
    )  # fmt: skip
    assert found.hypothesis.looped
    assert found.text == "hello"
    assert SPACE not in found.hypothesis.tokens


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"task": "sing"}, "unknown task 'sing': expected one of transcribe, translate"),
        ({"beam_size": 0}, "beam_size: expected 1 to 64, found 0"),
        ({"best_of": True}, "best_of: expected 1 to 64"),
        ({"temperatures": ()}, "temperatures: expected at least one"),
        ({"temperatures": (-1.0,)}, "temperatures"),
        ({"length_penalty": 2.0}, "length_penalty: expected 0 to 1"),
        ({"patience": 0.0}, "patience: expected above 0"),
        ({"seed": -1}, "seed: expected"),
    ],
)
def test_options_are_checked(wrong: dict[str, object], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        TranscribeOptions(**wrong)
