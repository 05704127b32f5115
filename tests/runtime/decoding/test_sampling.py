"""Tokens are drawn as transformers draws them, and text comes in whole characters up to a stop string."""

from __future__ import annotations

import numpy as np
import pytest

from edgeformer_runtime.decoding.logit_rules import Sampler, split_typed
from edgeformer_runtime.decoding.options import GenerateOptions
from edgeformer_runtime.decoding.tokenizer import TextStream
from edgeformer_runtime.errors import InputError

LOGITS = np.random.default_rng(0).standard_normal(40).astype(np.float32) * 3


@pytest.mark.parametrize(
    "options",
    [
        GenerateOptions(temperature=0.7),
        GenerateOptions(temperature=1.0, top_k=5),
        GenerateOptions(temperature=1.3, top_p=0.8),
        GenerateOptions(temperature=0.9, top_k=12, top_p=0.6, repetition_penalty=1.4),
        GenerateOptions(temperature=1.0, top_p=1e-6),
    ],
)
def test_probabilities_are_those_of_transformers(options: GenerateOptions) -> None:
    torch, process = pytest.importorskip("torch"), pytest.importorskip("transformers.generation.logits_process")
    said = [3, 17, 3, 8]
    steps = [process.RepetitionPenaltyLogitsProcessor(options.repetition_penalty)]
    steps += [process.TemperatureLogitsWarper(options.temperature)]
    steps += [process.TopKLogitsWarper(options.top_k)] if options.top_k else []
    steps += [process.TopPLogitsWarper(options.top_p)] if options.top_p < 1 else []
    scores = torch.from_numpy(LOGITS.copy())[None]
    for step in steps:
        scores = step(torch.tensor([said]), scores)
    expected = scores.softmax(-1)[0].numpy()
    sampler = Sampler(options)
    order, probabilities = sampler.distribution(sampler._penalized(LOGITS, said))
    found = np.zeros(len(LOGITS))
    found[order] = probabilities
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_seed_gives_the_same_tokens_and_the_likeliest_come_most() -> None:
    options = GenerateOptions(temperature=1.0, top_k=3, seed=7)
    drawn = [[sampler.choose(LOGITS, []) for _ in range(200)] for sampler in (Sampler(options), Sampler(options))]
    assert drawn[0] == drawn[1]
    best = np.argsort(-LOGITS)[:3].tolist()
    counts = [drawn[0].count(token) for token in best]
    assert sum(counts) == 200 and counts == sorted(counts, reverse=True)
    assert Sampler(GenerateOptions()).choose(LOGITS, []) == best[0]
    assert Sampler(GenerateOptions(repetition_penalty=9.0)).choose(np.abs(LOGITS), [best[0]]) != best[0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_tokens": 0}, "max_tokens: expected 1 to"),
        ({"temperature": -1.0}, "temperature: expected 0 to 100"),
        ({"temperature": float("nan")}, "temperature: expected 0 to 100"),
        ({"top_p": 0.0}, "top_p: expected above 0 and at most 1"),
        ({"top_k": True}, "top_k: expected 0 to"),
        ({"repetition_penalty": 0.0}, "repetition_penalty: expected above 0"),
        ({"stop": ("",)}, "stop: expected at most 16 texts of 1 to 1000 characters"),
        ({"suggest": 101}, "suggest: expected 0 to 100"),
    ],
)
def test_options_are_checked(given: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        GenerateOptions(**given)  # type: ignore[arg-type]


def test_text_comes_in_whole_characters() -> None:
    stream = TextStream()
    parts = [stream.feed(bytes([each])) for each in "é😀a".encode()]
    assert parts == ["", "é", "", "", "", "😀", "a"]
    assert stream.feed(b"\xff!") == "\ufffd!"
    assert (stream.feed("€".encode()[:2]), stream.finish()) == ("", "")


def test_text_ends_before_the_first_stop_string() -> None:
    stream = TextStream(("\n\n", "END"))
    assert [stream.feed(each) for each in (b"one\n", b"two EN", b"TRY")] == ["one", "\ntwo ", "ENTRY"]
    assert (stream.feed(b"three E"), stream.feed(b"ND\n\n"), stream.stopped) == ("three ", "", True)
    held = TextStream(("\n\n",))
    assert (held.feed(b"a\n"), held.finish(), held.stopped) == ("a", "\n", False)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("see you tom", ("see you", " tom")),
        ("see you ", ("see you", " ")),
        ("see you", ("see", " you")),
        ("don't", ("", "don't")),
        ("Hi!", ("Hi!", "")),
        ("line\n", ("line\n", "")),
        ("", ("", "")),
    ],
)
def test_the_word_that_is_being_typed_is_told_from_the_text(text: str, parts: tuple[str, str]) -> None:
    assert split_typed(text) == parts
