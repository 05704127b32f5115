"""The rules on logits, against the processors of transformers."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from real_whisper import TOKENS
from transformers import (
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    WhisperTimeStampLogitsProcessor,
)

from edgeformer_runtime.bundle.specs import AudioBucket, Transcription
from edgeformer_runtime.decoding.logit_rules import LogitRules
from edgeformer_runtime.errors import EngineError

VOCABULARY = 51864
SUPPRESSED = (1, 2, 7, 50257, 50358)
FIRST = TOKENS.first_timestamp


@pytest.fixture(scope="module")
def spec() -> Transcription:
    bucket = AudioBucket(1500, 0, 448, "encode", "prefill", "decode")
    return Transcription(
        "t.json", TOKENS, SUPPRESSED, (220, TOKENS.end), VOCABULARY, 1, 1, 1, 1, 8, "host", 0.02, 1.0, (bucket,)
    )


def reference(said: list[int], logits: np.ndarray) -> np.ndarray:
    """What transformers leaves of logits after <|startoftranscript|> and `said`."""
    config = SimpleNamespace(
        no_timestamps_token_id=TOKENS.no_timestamps,
        eos_token_id=TOKENS.end,
        bos_token_id=TOKENS.start,
        max_initial_timestamp_index=50,
        _detect_timestamp_from_logprob=True,
    )
    ids = torch.tensor([[TOKENS.start, *said]])
    processors = [
        SuppressTokensLogitsProcessor(list(SUPPRESSED)),
        SuppressTokensAtBeginLogitsProcessor([220, TOKENS.end], begin_index=1),
        WhisperTimeStampLogitsProcessor(config, begin_index=1),
    ]
    scores = torch.from_numpy(logits)[None].clone()
    scores[:, TOKENS.end + 1 : FIRST] = -torch.inf  # special tokens, which transformers leaves possible
    for processor in processors:
        scores = processor(ids, scores)
    return scores[0].numpy()


@pytest.mark.parametrize(
    "said",
    [
        [],
        [FIRST],
        [FIRST + 20, 300],
        [FIRST + 20, 300, FIRST + 60],
        [FIRST + 20, 300, FIRST + 60, FIRST + 60],
        [FIRST + 20, 300, FIRST + 60, FIRST + 70, 11, 12],
        [FIRST, 300, FIRST + 1500],
    ],
)
@pytest.mark.parametrize("seed", range(6))
def test_timestamps_as_in_transformers(spec: Transcription, said: list[int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 4, VOCABULARY).astype(np.float32)
    logits[FIRST:] += (seed - 3) * 4  # from where text wins to where the times together win
    expected = reference(said, logits)
    LogitRules(spec, timestamps=True).apply(logits, said)
    np.testing.assert_array_equal(logits, expected)


def test_text_alone(spec: Transcription) -> None:
    rules = LogitRules(spec, timestamps=False)
    logits = np.zeros(VOCABULARY, np.float32)
    rules.apply(logits, [])
    assert set(np.flatnonzero(logits < 0)) == {*SUPPRESSED, 220, *range(TOKENS.end, VOCABULARY)}
    logits = np.zeros(VOCABULARY, np.float32)
    rules.apply(logits, [5])
    assert set(np.flatnonzero(logits < 0)) == {*SUPPRESSED, *range(TOKENS.end + 1, VOCABULARY)}


def test_log_normalizer(spec: Transcription) -> None:
    rules = LogitRules(spec, timestamps=False)
    logits = np.random.default_rng(1).normal(40, 9, VOCABULARY).astype(np.float32)
    rules.apply(logits, [])
    found = rules.log_normalizer(logits, float(logits.max()))
    assert found == pytest.approx(torch.logsumexp(torch.from_numpy(logits).double(), 0).item(), abs=1e-4)
    for value in (np.nan, np.inf):
        logits[500] = value
        with pytest.raises(EngineError, match="NaN or infinity"):
            rules.log_normalizer(logits, float(logits[logits.argmax()]))
