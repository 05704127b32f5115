"""Writes decoding.json: what may follow a token, and whole windows decoded from a script of logits.

Logits are written as what differs from 0: pairs of a token and its value. The rules' answers are those of
transformers' processors, the windows' those of this repository's search.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers

from edgeformer_runtime.bundle.specs import Transcription
from edgeformer_runtime.bundle.strict_json import to_data
from edgeformer_runtime.decoding.fallback import decode_with_fallback
from edgeformer_runtime.decoding.logit_rules import LogitRules
from edgeformer_runtime.decoding.options import TranscribeOptions
from edgeformer_runtime.decoding.prompt import build_prompt, detect_language, feed
from edgeformer_runtime.decoding.search import Search, loop_period
from edgeformer_runtime.decoding.segments import Span, Spans, cut_at_skipped, fit_to_pauses, split_at_timestamps
from edgeformer_runtime.decoding.tokenizer import SpeechTokenizer
from edgeformer_runtime.engines.decoder import DecoderOutput
from tests.golden.golden_files import document
from tests.golden.tiny_bundles import byte_tokenizer
from tests.golden.tiny_manifests import MULTILINGUAL_TOKENS, SPACE, SPEECH_TOKENS, VOCABULARY, speech_spec

Sparse = list[tuple[int, float]]

FIRST = SPEECH_TOKENS.first_timestamp
END = SPEECH_TOKENS.end
ROWS = 64


def files() -> dict[str, bytes]:
    """The golden file by name."""
    spec = speech_spec(rows=ROWS)
    multilingual = speech_spec(MULTILINGUAL_TOKENS, rows=ROWS)
    cases = [_rule(spec, *case) for case in _rules()]
    cases += [_window(spec, *case) for case in _windows()]
    cases += [_window(multilingual, *case) for case in _multilingual_windows()]
    cases += [_fitted(*case) for case in _times()]
    cases += [_skipped(*case) for case in _SKIPPED]
    cases += [{"kind": "loop", "said": said, "stretches": n, "period": loop_period(said, n)} for said, n in _LOOPS]
    cases += [{"kind": "join", "texts": list(texts), "joined": joined} for texts, joined in _JOINED]
    versions = f"transformers {transformers.__version__}, edgeformer"
    return {
        "decoding.json": document(
            versions,
            cases,
            transcription=to_data(spec),
            multilingual_tokens=to_data(MULTILINGUAL_TOKENS),
            tokenizer=byte_tokenizer(),
        )
    }


def dense(logits: Sparse) -> np.ndarray:
    """(V,) float32."""
    values = np.zeros(VOCABULARY, np.float32)
    for token, value in logits:
        values[token] = value
    return values


class ScriptedDecoder:
    """A `SpeechDecoder` that gives the k-th logits of a script after the prompt and k - 1 more tokens."""

    rows = ROWS
    prefill_tokens = 4

    def __init__(self, detect: Sparse, start: Sparse, steps: list[Sparse], prompt: int) -> None:
        self._detect, self._start, self._steps = detect, start, steps
        self._prompt = prompt

    def encode(self, mel: np.ndarray) -> None:
        raise NotImplementedError

    def step(self, token: int, position: int, row: int, mask: np.ndarray) -> DecoderOutput:  # noqa: ARG002
        assert row == position and np.flatnonzero(mask == 0).tolist() == list(range(row))
        script = self._detect if position < self._prompt - 1 else self._steps[position - self._prompt + 1]
        return DecoderOutput(dense(script), np.zeros((1, 1), np.float32))

    def prefill(
        self, tokens: list[int], position: int, row: int, mask: np.ndarray, wanted: tuple[int, int]
    ) -> tuple[DecoderOutput, DecoderOutput]:
        assert row == position == 0 and (mask < 0).all() and len(tokens) == self._prompt == wanted[1] + 1
        outputs = (
            DecoderOutput(dense(script), np.zeros((1, 1), np.float32)) for script in (self._start, self._steps[0])
        )
        return next(outputs), next(outputs)

    def close(self) -> None:
        pass


def options_of(case: dict[str, Any]) -> TranscribeOptions:
    """How a window is decoded: greedily, without a second try."""
    return TranscribeOptions(
        language=case["language"], task=case["task"], timestamps=case["timestamps"], temperatures=(0.0,)
    )


def play(case: dict[str, Any], spec: Transcription, tokenizer: str) -> dict[str, Any]:
    """What comes out of a window's script."""
    options = options_of(case)
    detecting = bool(spec.tokens.languages) and options.language is None
    prompt_length = len(build_prompt(spec.tokens, ROWS, options, "en").tokens)
    decoder = ScriptedDecoder(case["detect"], case["start"], case["steps"], prompt_length)
    languages = detect_language(decoder, spec.tokens) if detecting else {}
    language = next(iter(languages), options.language or "en")
    prompt = build_prompt(spec.tokens, ROWS, options, language)
    rules = LogitRules(spec, options.timestamps)
    search = Search(decoder, feed(decoder, prompt), rules, spec.tokens, case["max_tokens"], keep_alignments=False)
    reader = SpeechTokenizer(tokenizer, spec.tokens.end)
    decoded = decode_with_fallback(search, reader, options, np.random.default_rng(0), case["seconds"])
    found = decoded.hypothesis
    spans = split_at_timestamps(found.tokens, spec, case["seconds"])
    said = [[found.tokens[index] for index in span.entries] for span in spans.segments]
    return {
        "language": language,
        "prompt": list(prompt.tokens),
        "tokens": list(found.tokens),
        "mean_log_probability": round(found.mean_log_probability, 6),
        "no_speech_probability": decoded.no_speech_probability,
        "ended": found.ended,
        "looped": found.looped,
        "silent": decoded.silent,
        "doubtful": decoded.doubtful,
        "text": decoded.text,
        "segments": [
            {"start": span.start, "end": span.end, "text": reader.text(tokens).strip()}
            for span, tokens in zip(spans.segments, said, strict=True)
        ],
        "resume": spans.resume,
    }


def _rule(spec: Transcription, timestamps: bool, said: list[int], logits: list[float]) -> dict[str, Any]:
    """What transformers leaves of logits after the prompt and `said`."""
    left = _processed(spec, timestamps, said, torch.tensor(logits))
    allowed = np.flatnonzero(np.isfinite(left.numpy())).tolist()
    token = int(left.argmax())
    return {
        "kind": "rules",
        "timestamps": timestamps,
        "said": said,
        "logits": logits,
        "allowed": _ranges(allowed),
        "token": token,
        "log_probability": round(float(left.double().log_softmax(0)[token]), 5),
    }


def _processed(spec: Transcription, timestamps: bool, said: list[int], logits: torch.Tensor) -> torch.Tensor:
    tokens = spec.tokens
    config = SimpleNamespace(
        no_timestamps_token_id=tokens.no_timestamps,
        eos_token_id=tokens.end,
        bos_token_id=tokens.start,
        max_initial_timestamp_index=round(spec.max_initial_timestamp / spec.seconds_per_timestamp),
        _detect_timestamp_from_logprob=True,
    )
    ids = torch.tensor([[tokens.start, *said]])
    processors: list[Any] = [
        transformers.SuppressTokensLogitsProcessor(list(spec.suppress)),
        transformers.SuppressTokensAtBeginLogitsProcessor(list(spec.suppress_at_start), begin_index=1),
    ]
    if timestamps:
        processors.append(transformers.WhisperTimeStampLogitsProcessor(config, begin_index=1))
    scores = logits[None].clone()
    # Special tokens stand in prompts only, which transformers leaves to the model; timestamps, where nobody asks.
    scores[:, tokens.end + 1 : tokens.first_timestamp if timestamps else None] = -torch.inf
    for processor in processors:
        scores = processor(ids, scores)
    return scores[0]


def _ranges(tokens: list[int]) -> list[list[int]]:
    """Runs of tokens as [first, last]."""
    runs: list[list[int]] = []
    for token in tokens:
        if runs and runs[-1][1] == token - 1:
            runs[-1][1] = token
        else:
            runs.append([token, token])
    return runs


def _rules() -> Iterator[tuple[bool, list[int], list[float]]]:
    text = 100
    said: tuple[list[int], ...] = (
        [],
        [FIRST],
        [FIRST + 20, text],
        [FIRST + 20, text, FIRST + 30],
        [FIRST + 20, text, FIRST + 30, FIRST + 30],
        [FIRST + 20, text, FIRST + 30, FIRST + 35, 11, 12],
        [FIRST, text, FIRST + 50],
        [FIRST, text, text, FIRST + 50, FIRST + 50],
    )
    generator = np.random.default_rng(5)
    for lift in (-4.0, 0.0, 4.0):  # from where text wins to where the times together win
        for tokens in said:
            logits = generator.normal(0, 3, VOCABULARY)
            logits[FIRST:] += lift
            yield True, tokens, [float(np.float32(round(value, 2))) for value in logits]
    for tokens in ([], [text]):
        logits = generator.normal(0, 3, VOCABULARY)
        yield False, tokens, [float(np.float32(round(value, 2))) for value in logits]


def _says(tokens: list[int], likelihood: float = 20.0) -> list[Sparse]:
    return [[(token, likelihood)] for token in tokens]


def _bytes(text: str) -> list[int]:
    return list(text.encode())


Window = tuple[str, bool, list[Sparse], float, dict[str, Any]]


def _windows() -> Iterator[Window]:
    """A name, whether times are asked for, the steps, the window's seconds, and what else differs from the usual."""
    hello = _bytes(" hello")
    yield "text", False, _says([*hello, END]), 1.0, {}
    yield "other letters", False, _says([*_bytes(" h\u00e9 \u4f60\U0001f600"), END]), 1.0, {}
    yield "cut off character", False, _says([*_bytes(" h\u00e9")[:-1], END]), 1.0, {}
    yield "nothing", False, [[(65, 1.0)], *_says([END])], 1.0, {}
    yield "the end comes second", False, [[(END, 9.0), (72, 5.0)], *_says([END])], 1.0, {}
    yield "a space cannot be first", False, [[(SPACE, 9.0), (72, 5.0)], *_says([SPACE, 73, END])], 1.0, {}
    yield (
        "suppressed",
        False,
        [[(1, 9.0), (2, 9.0), (72, 5.0)], [(2, 9.0), (FIRST, 8.0), (258, 8.0), (73, 3.0)], *_says([END])],
        1.0,
        {},
    )
    yield "ties", False, [[(72, 5.0), (71, 5.0)], *_says([END])], 1.0, {}
    unsure = [[(72, 5.2)], [(73, 5.2)], [(END, 5.2)]]
    yield "little text", False, unsure, 5.0, {"start": [(SPEECH_TOKENS.no_speech, 5.4)]}
    yield "little text that is said", False, unsure, 0.2, {"start": [(SPEECH_TOKENS.no_speech, 5.4)]}
    yield "nearly no text", False, unsure, 5.0, {"start": [(SPEECH_TOKENS.no_speech, 4.0)]}
    yield "little text of a speaker", False, unsure, 1.5, {"start": [(SPEECH_TOKENS.no_speech, 4.0)]}
    yield "surely no speech", False, unsure, 0.2, {"start": [(SPEECH_TOKENS.no_speech, 9.0)]}
    doubtful = [[(72, 0.5)], [(73, 0.5)], *_says([END])]
    yield "little doubtful text", False, doubtful, 5.0, {"start": [(SPEECH_TOKENS.no_speech, 4.0)]}
    yield "improbable", False, [[(72, 0.5)], [(73, 0.5)], *_says([END])], 1.0, {}
    yield "improbable and a loop", False, [[(72, 1.0)] for _ in range(40)], 1.0, {}
    yield "silence", False, [[(72, 0.5)], [(73, 0.5)], *_says([END])], 1.0, {"start": [(259, 30.0)]}
    yield "no silence: too probable", False, _says([*hello, END]), 1.0, {"start": [(259, 30.0)]}
    yield "too long", False, _says(hello), 1.0, {"max_tokens": 4}
    yield "the cache is full", False, _says([97 + index % 23 for index in range(ROWS)]), 1.0, {}
    yield "a loop", False, _says([*_bytes(" so"), *_bytes(" no!") * 12]), 1.0, {}
    yield "a loop of one", False, _says([72, *[33] * 40]), 1.0, {}
    yield "said three times", False, _says([*_bytes(" again") * 3, END]), 1.0, {}
    yield "one segment", True, _says([FIRST, *hello, FIRST + 30, END]), 1.0, {}
    yield (
        "two segments",
        True,
        _says([FIRST + 2, *hello, FIRST + 20, FIRST + 22, *_bytes(" you"), FIRST + 45, END]),
        1.0,
        {},
    )
    yield "resumed", True, _says([FIRST, *hello, FIRST + 30, FIRST + 30, END]), 1.0, {}
    yield "no end", True, _says([FIRST, *hello, FIRST + 10, FIRST + 12, *_bytes(" you"), END]), 1.0, {}
    yield "behind the window's end", True, _says([FIRST, *hello, FIRST + 50, END]), 0.6, {}
    yield "too late a start", True, [[(FIRST + 40, 9.0), (FIRST + 25, 5.0)], *_says([*hello, FIRST + 30, END])], 1.0, {}
    yield (
        "time cannot fall",
        True,
        [
            *_says([FIRST, *hello, FIRST + 30, FIRST + 32, 72]),
            [(FIRST + 20, 9.0), (FIRST + 32, 8.0), (FIRST + 33, 7.0)],
            *_says([END]),
        ],
        1.0,
        {},
    )
    yield (
        "times together",
        True,
        [*_says([FIRST, *hello]), [(72, 3.0), *((FIRST + 20 + index, 2.0) for index in range(10))], *_says([END])],
        1.0,
        {},
    )
    yield "a loop with times", True, _says([FIRST, *([*_bytes(" no!"), FIRST + 2, FIRST + 2] * 9)]), 1.0, {}


def _multilingual_windows() -> Iterator[Window]:
    hallo = _says([*_bytes(" hallo"), END])
    yield "language found", False, hallo, 1.0, {"detect": [(254, 3.0), (255, 1.0)]}
    yield "the other language", False, hallo, 1.0, {"detect": [(254, 1.0), (255, 3.0)]}
    yield "language given", False, hallo, 1.0, {"language": "de"}
    yield "translated", True, [*_says([FIRST]), *hallo], 1.0, {"language": "de", "task": "translate"}


def _fitted(name: str, times: list[list[float]], sounding: list[list[float]]) -> dict[str, Any]:
    spans = [Span(start, end, ()) for start, end in times]
    found = fit_to_pauses(spans, [(begin, end) for begin, end in sounding])
    fitted = [[span.start, span.end] for span in found]
    return {"kind": "times", "name": name, "times": times, "sounding": sounding, "fitted": fitted}


def _times() -> Iterator[tuple[str, list[list[float]], list[list[float]]]]:
    """A name, segments' times, and the audio between its pauses."""
    yield "starts where the last one ended", [[0.0, 2.0], [2.0, 4.0]], [[0.3, 1.9], [2.9, 4.1]]
    yield "ends where the next one starts", [[0.0, 2.9], [2.9, 5.0]], [[0.25, 1.5], [2.8, 4.5]]
    yield "far from every pause", [[0.0, 2.0], [2.0, 4.0]], [[0.0, 4.0]]
    yield "within a pause", [[1.0, 2.0]], [[0.0, 0.5], [2.5, 3.0]]
    yield "no audio", [[0.0, 1.0]], []
    yield "two in one", [[0.5, 0.6], [0.6, 0.7], [0.7, 3.0]], [[0.5, 3.25]]


def _skipped(times: list[list[float]], letters: list[int], sounding: list[list[float]]) -> dict[str, Any]:
    spans = Spans(tuple(Span(start, end, ()) for start, end in times), None)
    found = cut_at_skipped(spans, letters, [(begin, end) for begin, end in sounding])
    cut = [[span.start, span.end] for span in found.segments]
    return {
        "kind": "skipped", "times": times, "letters": letters, "sounding": sounding, "cut": cut, "resume": found.resume
    }  # fmt: skip


_SKIPPED = (
    ([[0.0, 3.0], [3.0, 18.0], [18.0, 20.0]], [30, 28, 20], [[0.2, 2.9], [3.5, 6.1], [6.9, 17.8], [18.4, 20.0]]),
    ([[0.0, 3.0], [3.0, 18.0]], [30, 70], [[0.2, 2.9], [3.5, 6.1], [6.9, 17.8]]),
    ([[0.0, 15.0]], [10], [[0.0, 15.0]]),
    ([[0.0, 15.0]], [0], [[1.0, 1.5], [4.0, 14.5]]),
    ([[0.0, 15.0]], [8], [[1.0, 1.5], [13.0, 14.5]]),
)
"""Segments' times and letters, and the audio between its pauses."""


_LOOPS = (
    ([7] * 15, 0),
    ([7] * 16, 0),
    ([7] * 16, 15),
    ([7] * 16, 16),
    ([9, *([1, 2, 3, 4, 5] * 10)], 3),
    ([9, *([1, 2, 3, 4, 5] * 10)], 9),
    ([9, *([1, 2, 3, 4, 5] * 10)], 10),
    ([1, 2, 3, 4, 5] * 4 + [6], 0),
)
"""Text tokens, and the stretches of audio between pauses: so often they may have been said."""


_JOINED = (
    (("It is Tokyo.", "We meet", "there."), "It is Tokyo. We meet there."),
    (("東京です。", "", "会いましょう"), "東京です。会いましょう"),
    (("สวัสดี", "ครับ"), "สวัสดีครับ"),
    (("안녕하세요.", "반갑습니다"), "안녕하세요. 반갑습니다"),
    (("我用", "iPhone", "and you?", "不错"), "我用iPhone and you?不错"),
    (("", ""), ""),
)
"""Texts of segments, and what they are as one: spaces are the scripts', not the spoken language's."""


def _window(
    spec: Transcription, name: str, timestamps: bool, steps: list[Sparse], seconds: float, other: dict[str, Any]
) -> dict[str, Any]:
    case: dict[str, Any] = {
        "kind": "window",
        "name": name,
        "multilingual": bool(spec.tokens.languages),
        "language": None,
        "task": "transcribe",
        "timestamps": timestamps,
        "max_tokens": 224,
        "seconds": seconds,
        "detect": [],
        "start": [],
        "steps": steps,
    } | other
    return case | {"expected": play(case, spec, byte_tokenizer())}
