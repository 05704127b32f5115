"""Text to token ids: buckets, truncation, pairs, and input that no tokenizer expects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny_bundle import WORDS, manifest, word_piece

from edgeformer_runtime.bundle.manifest import TensorSpec, TextPreprocessing
from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.preprocess.text import TextEncoder

PROGRAMS = manifest().programs
SPEC = TextPreprocessing("tokenizer.json", pad_token_id=0)


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(SPEC, word_piece(), PROGRAMS)


def ids(encoder: TextEncoder, raw) -> list[int]:
    """The token ids without padding."""
    encoded = encoder.encode(raw)
    length = int(encoded.inputs["attention_mask"].sum())
    assert not encoded.inputs["input_ids"][0, length:].any()
    return encoded.inputs["input_ids"][0, :length].tolist()


@pytest.mark.parametrize(
    ("words", "program", "truncated"),
    [(0, "seq_8", False), (6, "seq_8", False), (7, "seq_16", False), (14, "seq_16", False), (15, "seq_16", True)],
)
def test_smallest_bucket_that_fits(encoder: TextEncoder, words: int, program: str, truncated: bool) -> None:
    encoded = encoder.encode("hello " * words)
    assert (encoded.program, encoded.truncated) == (program, truncated)
    length = int(program.removeprefix("seq_"))
    for tensor in encoded.inputs.values():
        assert tensor.dtype == np.int32
        assert tensor.shape == (1, length)
    assert ids(encoder, "hello " * words) == [2, *[9] * min(words, 14), 3]


def test_pairs_and_their_types() -> None:
    specs = tuple(TensorSpec(name, "int32", (1, 16)) for name in ("input_ids", "token_type_ids"))
    encoder = TextEncoder(SPEC, word_piece(), [replace(PROGRAMS[1], inputs=specs)])
    encoded = encoder.encode(("hello", "turn the lights"))
    assert list(encoded.inputs) == ["input_ids", "token_type_ids"]  # only what the program declares
    assert encoded.inputs["input_ids"][0, :8].tolist() == [2, 9, 3, 4, 5, 6, 3, 0]
    assert encoded.inputs["token_type_ids"][0].tolist() == [0, 0, 0, 1, 1, 1, 1] + [0] * 9
    long = encoder.encode(("hello " * 30, "turn off"))
    assert long.truncated
    assert long.inputs["input_ids"][0].tolist() == [2, *[9] * 11, 3, 4, 7, 3]  # the longer text gives way


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \t\r\n",
        "\0\x01\x7f",
        "hello\0hello",
        "😀👍🏽👩‍👩‍👧‍👦",
        "שלום مرحبا",
        "你好 สวัสดี",
        "\u202ehello\u202c",
        "\u200b\ufeff",
        "a" * 100_000,
        "hello " * 17_000,
        "e" + "\u0301" * 1000,
        "[CLS] [SEP] [PAD]",
        "\U0010ffff",
    ],
)
def test_any_text_is_encoded(encoder: TextEncoder, text: str) -> None:
    found = ids(encoder, text)
    assert found[0] == 2
    assert found[-1] == 3
    assert all(0 <= token < len(WORDS) for token in found)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ("half \ud83d", "not valid Unicode: half of a surrogate pair at character 5"),
        (("ok", "\udc00"), "not valid Unicode"),
        (b"bytes", "expected a text, a pair of texts or a list of token ids, found bytes"),
        (None, "found NoneType"),
        (3.5, "found float"),
        ({"text": "x"}, "found dict"),
        ("a" * 1_000_001, "1000001 characters: expected at most 1000000"),
        ([], "at least one token id"),
        ([1, "a"], "expected token ids as integers, found str 'a'"),
        (["a", "b", "c"], "expected token ids as integers, found str 'a'"),
        ([1.0], "found float 1.0"),
        ([True], "found bool True"),
        ([-1], "token id -1 is out of range: this model's are 0 to 11"),
        ([12], "token id 12 is out of range"),
        ([2**70], "out of range"),
    ],
)
def test_what_is_no_input(encoder: TextEncoder, raw: object, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        encoder.encode(raw)  # type: ignore[arg-type]
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_token_ids(encoder: TextEncoder) -> None:
    assert ids(encoder, [2, 9, 3]) == [2, 9, 3]
    assert ids(encoder, np.array([2, 9, 3]).tolist()) == [2, 9, 3]
    assert ids(encoder, tuple(np.array([2, 9, 3]))) == [2, 9, 3]
    long = encoder.encode([9] * 20)
    assert long.truncated
    assert long.inputs["input_ids"].tolist() == [[9] * 16]


def test_without_a_tokenizer() -> None:
    encoder = TextEncoder(TextPreprocessing(None, pad_token_id=7, vocab_size=10), None, PROGRAMS)
    assert encoder.encode([1, 2]).inputs["input_ids"].tolist() == [[1, 2, 7, 7, 7, 7, 7, 7]]
    with pytest.raises(InputError, match="takes token ids only"):
        encoder.encode("hello")
    with pytest.raises(InputError, match="0 to 9"):
        encoder.encode([10])
    unknown = TextEncoder(TextPreprocessing(None, pad_token_id=0), None, PROGRAMS)
    assert unknown.encode([2**31 - 1]).inputs["input_ids"][0, 0] == 2**31 - 1


def test_a_tokenizer_with_more_tokens_than_the_model() -> None:
    """Such a token would be read beyond the end of the embedding table."""
    encoder = TextEncoder(TextPreprocessing("tokenizer.json", 0, vocab_size=9), word_piece(), PROGRAMS)
    encoder.encode("turn the lights on")
    with pytest.raises(InputError, match="the tokenizer gave token id 9, this model's are 0 to 8"):
        encoder.encode("hello")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"model": 1}', "x" * 1000])
def test_no_tokenizer_file(text: str) -> None:
    with pytest.raises(BundleError, match=r"^tokenizer.json: (not|model: expected)"):
        TextEncoder(SPEC, text, PROGRAMS)


def test_settings_in_the_file_do_not_matter() -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(word_piece())
    tokenizer.enable_padding(length=64, pad_id=1)
    tokenizer.enable_truncation(4)
    encoder = TextEncoder(SPEC, tokenizer.to_str(), PROGRAMS)
    assert ids(encoder, "turn the lights off") == [2, 4, 5, 6, 7, 3]


def test_buckets_too_short_for_special_tokens() -> None:
    specs = tuple(TensorSpec(name, "int32", (1, 3)) for name in ("input_ids", "attention_mask"))
    encoder = TextEncoder(SPEC, word_piece(), [replace(PROGRAMS[0], inputs=specs)])
    assert ids(encoder, "hello hello") == [2, 9, 3]
    with pytest.raises(InputError, match="a pair of texts does not fit into the 3 positions"):
        encoder.encode(("hello", "hello"))
    specs = tuple(TensorSpec(name, "int32", (1, 2)) for name in ("input_ids", "attention_mask"))
    with pytest.raises(BundleError, match="2 special tokens leave no room for text in 2 positions"):
        TextEncoder(SPEC, word_piece(), [replace(PROGRAMS[0], inputs=specs)])
