"""The tokenizers' reference is right where its answers are known, and what differs from it is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from edgeformer.checkpoints.sentence import with_prompt
from edgeformer.doctor.check_task import (
    LINES,
    LONE_SURROGATE,
    _check_decoding,
    _check_encoding,
    word_piece_reference,
)
from edgeformer.doctor.examiner import Severity
from edgeformer.zoo import ZOO
from edgeformer_runtime.bundle.manifest import TextPreprocessing
from tests.checkpoint_factory import whisper_tokenizer
from tests.runtime.tiny_bundle import word_piece

GOLDEN = Path(__file__).parents[2] / "golden" / "text.json"
SPEC = TextPreprocessing("tokenizer.json", pad_token_id=0)


@pytest.fixture(scope="module")
def zoo_tokenizer() -> str:
    return (ZOO["clinc150-mobilebert"].folder / "tokenizer.json").read_text(encoding="utf-8")


def test_the_reference_gives_the_golden_ids(zoo_tokenizer: str) -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    reference = word_piece_reference(json.loads(zoo_tokenizer))
    compared = 0
    for case in golden["cases"]:
        if case["pair"] is None and len(case["input_ids"]) < golden["seq_len"]:
            assert reference(case["text"]) == case["input_ids"], case["text"]
            compared += 1
    assert compared >= 9


def test_the_corpus_is_all_over_unicode() -> None:
    characters = set("".join(LINES))
    planes = {ord(character) >> 16 for character in characters}
    assert planes == {0, 1, 2}
    assert len(LINES) == len(set(LINES)) and len(characters) > 250
    with pytest.raises(UnicodeEncodeError):
        LONE_SURROGATE.encode()


def test_an_intact_tokenizer_is_equal(zoo_tokenizer: str) -> None:
    assert {finding.severity for finding in _check_encoding(zoo_tokenizer, SPEC)} == {Severity.FINE}


@pytest.mark.parametrize("strip_accents", [None, True, False])
@pytest.mark.parametrize("lowercase", [False, True])
def test_cased_tokenizers_are_equal_too(zoo_tokenizer: str, lowercase: bool, strip_accents: bool | None) -> None:
    """Nothing composes Unicode before it is tokenized: a cased vocabulary has composed letters and decomposed ones."""
    spec = json.loads(zoo_tokenizer)
    spec["normalizer"] |= {"lowercase": lowercase, "strip_accents": strip_accents}
    vocabulary = spec["model"]["vocab"]
    for token in ("caf\u00e9", "cafe", "##\u0301", "##\u00e9", "Z", "##\u00fc", "##u", "##\u0308"):
        vocabulary.setdefault(token, len(vocabulary))
    text = json.dumps(spec)
    assert {finding.severity for finding in _check_encoding(text, SPEC)} == {Severity.FINE}
    reference, tokenizer = word_piece_reference(spec), Tokenizer.from_str(text)
    for line in ("nai\u0308ve cafe\u0301 caf\u00e9", "Zu\u0308rich Z\u00fcrich \u01c4 \u0130"):
        assert reference(line) == tokenizer.encode(line).ids


def test_a_prompt_stands_before_the_text(zoo_tokenizer: str) -> None:
    assert {finding.severity for finding in _check_encoding(with_prompt(zoo_tokenizer, "turn on: "), SPEC)} == {
        Severity.FINE
    }


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("pre_tokenizer", {"type": "WhitespaceSplit"}, "leading,"),
        ("normalizer.clean_text", False, "zero\\u200bwidth"),
    ],
)
def test_a_tokenizer_that_differs_is_named_with_the_line(
    zoo_tokenizer: str, key: str, value: object, line: str
) -> None:
    settings = json.loads(zoo_tokenizer)
    *parents, last = key.split(".")
    place = settings
    for parent in parents:
        place = place[parent]
    place[last] = value
    errors = [each for each in _check_encoding(json.dumps(settings), SPEC) if each.severity is Severity.ERROR]
    assert len(errors) == 1
    assert line in errors[0].what, errors[0].what


def test_what_has_no_reference_says_so() -> None:
    settings = json.loads(word_piece())
    settings["normalizer"] = {"type": "Lowercase"}
    found = _check_encoding(json.dumps(settings), SPEC)
    assert [each.severity for each in found] == [Severity.FINE, Severity.WARNING]
    assert "not compared" in found[1].what


def test_a_missing_reference_is_not_passed_over(zoo_tokenizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: object) -> None:
        raise ImportError("No module named 'transformers'", name="transformers")

    monkeypatch.setattr("edgeformer.doctor.check_task.word_piece_reference", missing)
    found = _check_encoding(zoo_tokenizer, SPEC)
    assert found[1].severity is Severity.WARNING
    assert "pip install transformers" in found[1].do


def test_speech_tokens_are_read_as_the_library_reads_them() -> None:
    tokenizer = whisper_tokenizer()
    end = tokenizer.token_to_id("<|endoftext|>")
    assert _check_decoding(tokenizer.to_str(), end).severity is Severity.FINE
    settings = json.loads(tokenizer.to_str())
    settings["decoder"] = {"type": "Fuse"}
    found = _check_decoding(json.dumps(settings), end)
    assert found.severity is Severity.ERROR
    assert "line 0 " in found.what, found.what
