"""The host's cache holds each token's keys and values in the token's row, and nonsense is refused."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from edgeformer_runtime.bundle.specs import AudioBucket, SpeechTokens, Transcription
from edgeformer_runtime.engines.decoder import HostStateDecoder
from edgeformer_runtime.errors import EngineError, InputError

LAYERS, HEADS, HEAD_DIM, ROWS, PREFILL, POSITIONS, TAIL = 2, 2, 3, 10, 4, 5, 2
BUCKET = AudioBucket(POSITIONS, TAIL, ROWS, "encode_5", "prefill_5", "decode_5")
TOKENS = SpeechTokens(1, 2, None, None, 3, 4, None, None, {})
SPEC = Transcription(
    "tokenizer.json", TOKENS, (), (), 7, LAYERS, HEADS, HEAD_DIM, 1, PREFILL, "host", 0.02, 1.0, (BUCKET,)
)
MASK = np.zeros(ROWS, np.float32)


class Recorder:
    """Answers as programs of these shapes do; a token's keys are its id, its values the negative of it."""

    def __init__(self) -> None:
        self.inputs: dict[str, np.ndarray] = {}

    def run(self, program: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.inputs = {name: tensor.copy() for name, tensor in inputs.items()}
        if program == "encode_5":
            return {f"cross_{part}_{layer}": inputs["mel"] for layer in range(LAYERS) for part in "kv"}
        tokens = inputs["token"] if program == "decode_5" else inputs["tokens"]
        keys = np.broadcast_to(tokens, (HEADS, HEAD_DIM, tokens.size)).astype(np.float32)
        new = {f"new_k_{layer}": (keys + 100 * layer).reshape(-1) for layer in range(LAYERS)}
        new |= {f"new_v_{layer}": -(keys + 100 * layer).transpose(0, 2, 1).reshape(-1) for layer in range(LAYERS)}
        alignment = np.arange(POSITIONS + TAIL, dtype=np.float32)[None]
        return new | {"logits": np.zeros(7 if program == "decode_5" else (2, 7), np.float32), "alignment": alignment}


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def decoder(recorder: Recorder) -> HostStateDecoder:
    made = HostStateDecoder(recorder.run, BUCKET, SPEC)
    made.encode(np.ones(4, np.float32))
    return made


def cached(recorder: Recorder, layer: int) -> tuple[np.ndarray, np.ndarray]:
    """What the cache of a layer held for each row, (L,): keys, and values with their sign turned."""
    keys = recorder.inputs[f"self_k_{layer}"].reshape(HEADS, HEAD_DIM, ROWS)
    values = recorder.inputs[f"self_v_{layer}"].reshape(HEADS, ROWS, HEAD_DIM)
    assert (keys == keys[:1, :1]).all()
    assert (values == values[:1, :, :1]).all()
    return keys[0, 0], -values[0, :, 0]


def test_tokens_lie_in_their_rows(decoder: HostStateDecoder, recorder: Recorder) -> None:
    first, second = decoder.prefill([11, 12, 13], 0, 2, MASK, (0, 2))
    assert first.alignment.shape == (1, 0)
    np.testing.assert_array_equal(second.alignment, [[0, 1, 2, 3, 4]])
    output = decoder.step(21, 3, 9, MASK)
    np.testing.assert_array_equal(output.alignment, [[0, 1, 2, 3, 4]])
    decoder.step(22, 4, 0, MASK)
    for layer in range(LAYERS):
        expected = np.array([0, 0, 11, 12, 13, 0, 0, 0, 0, 21], np.float32)
        expected[expected > 0] += 100 * layer
        for found in cached(recorder, layer):
            np.testing.assert_array_equal(found, expected)


def test_padding_repeats_the_last_token(decoder: HostStateDecoder, recorder: Recorder) -> None:
    decoder.prefill([11, 12], 6, 0, MASK, (1, 1))
    np.testing.assert_array_equal(recorder.inputs["tokens"], np.array([11, 12, 12, 12], np.int32))
    np.testing.assert_array_equal(recorder.inputs["positions"], np.array([6, 7, 7, 7], np.int32))
    assert {recorder.inputs[name].dtype for name in ("tokens", "positions", "wanted")} == {np.dtype(np.int32)}


def test_what_encode_gives_is_what_the_others_take(decoder: HostStateDecoder, recorder: Recorder) -> None:
    decoder.encode(np.full(4, 3.0, np.float32))
    decoder.step(1, 0, 0, MASK)
    assert all((recorder.inputs[f"cross_{part}_{layer}"] == 3).all() for layer in range(LAYERS) for part in "kv")


def test_refuses(decoder: HostStateDecoder) -> None:
    for call, problem in (
        (lambda: decoder.step(1, 0, 10, MASK), "1 of the cache's slots 0 to 9, found 10 to 10"),
        (lambda: decoder.step(1, 0, -1, MASK), "found -1 to -1"),
        (lambda: decoder.prefill([1, 2], 0, 9, MASK, (0, 1)), "2 of the cache's slots 0 to 9, found 9 to 10"),
        (lambda: decoder.prefill([], 0, 0, MASK, (0, 0)), "expected 1 to 4 tokens, found 0"),
        (lambda: decoder.prefill([1] * 5, 0, 0, MASK, (0, 0)), "expected 1 to 4 tokens, found 5"),
        (lambda: decoder.prefill([1, 2], 0, 0, MASK, (0, 2)), "wanted tokens of 0 to 1, found 0, 2"),
        (lambda: decoder.step(1, 0, 0, MASK[:4]), r"mask: expected float32 \(10,\), found float32 \(4,\)"),
        (lambda: decoder.step(1, 0, 0, MASK.astype(np.float64)), "found float64"),
    ):
        with pytest.raises(InputError, match=problem):
            call()


def test_nothing_before_a_audio_and_after_the_end(recorder: Recorder) -> None:
    decoder = HostStateDecoder(recorder.run, BUCKET, SPEC)
    with pytest.raises(EngineError, match="encoded nothing yet: call encode first"):
        decoder.step(1, 0, 0, MASK)
    decoder.close()
    decoder.close()
    with pytest.raises(EngineError, match="the decoder is closed"):
        decoder.encode(np.ones(4, np.float32))
