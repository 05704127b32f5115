"""Records and replays the cases of generated text: the prompt's tokens, each step's logits, next tokens, perplexity."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgeformer_runtime.bench.workload import Workload
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import CASES_FILE
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.bundle.vectors import Case, Tolerances, read_vectors
from edgeformer_runtime.decoding.logit_rules import softmax
from edgeformer_runtime.decoding.options import GenerateOptions
from edgeformer_runtime.engines.base import Engine
from edgeformer_runtime.engines.decoder import Floats
from edgeformer_runtime.errors import BundleError, EngineError, InputError
from edgeformer_runtime.pipelines.generation import PromptCache, TextGenerator
from edgeformer_runtime.registry import did_you_mean
from edgeformer_runtime.tasks.generation import TextBucket
from edgeformer_runtime.verify.speech_replay import centered, sampled
from edgeformer_runtime.verify.verify import Comparison, compare_scaled, scales

SURE = math.log(2)
"""The margin, in logits, from which on the reference is sure of a token: the next one is half as probable."""


class GenerationReplay:
    """Compares the stages "prompt", "steps", "tokens" and "perplexity"; a step that diverges is named.

    At each step the recorded tokens are fed, whatever the bundle itself would choose. "tokens" is the share of steps at
    which it would choose another although the reference is sure, "perplexity" by which share the recorded tokens are
    less probable to it: both over all cases.
    """

    def __init__(self, bundle: Bundle, engine: Engine, tolerances: Tolerances, cases: Sequence[Case]) -> None:
        """See `verify.Replay`."""
        self._generator = TextGenerator(bundle, engine)
        self._tolerances = tolerances
        self._scale = scales({"logits": _rows_centered(case.outputs["logits"])} for case in cases)["logits"]
        self._prompts: list[Comparison] = []
        self._steps: list[list[Comparison]] = []
        self._others: list[bool] = []
        self._surprises: list[float] = []
        self._failed: str | None = None

    def play(self, case: Case) -> None:
        """Replay one case."""
        expected, sample = case.expected, shorten(case.raw)
        try:
            found = self._generator.prompt_tokens(raw_prompt(case.raw))
        except InputError as error:
            raise BundleError(f"{CASES_FILE}: the input {sample} cannot be used: {error}") from None
        same = found == expected["prompt"]
        reason = None if same else "the tokenizer gives other tokens"
        self._prompts.append(Comparison(float(not same), None, 0.0, same, reason, sample))
        bucket = next(each for each in self._generator.head.buckets if each.prefill == case.program)
        limit = self._tolerances.output * self._scale
        steps: list[Comparison] = []
        self._steps.append(steps)
        try:
            seen = recorded_logits(self._generator, bucket, expected["prompt"], expected["tokens"])
        except EngineError as error:
            self._failed = str(error)
            steps.append(Comparison(None, None, limit, ok=False, reason=str(error), sample=sample))
            return
        for number, (logits, token) in enumerate(zip(seen, expected["tokens"], strict=True)):
            reference = centered(case.outputs["logits"][number])
            steps.append(compare_scaled(centered(sampled(logits)), reference, self._tolerances.output, self._scale))
            if case.outputs["margins"][number] > SURE:
                self._others.append(int(logits.argmax()) != token)
            self._surprises.append(float(case.outputs["log_probabilities"][number]) - log_probability(logits, token))

    def comparisons(self) -> dict[str, list[Comparison]]:
        """What was found so far: every stage in the order of execution."""
        wrong = [index for steps in self._steps for index, found in enumerate(steps) if not found.ok]
        others = float(np.mean(self._others)) if self._others else 0.0
        rise = math.expm1(float(np.mean(self._surprises))) if self._surprises else 0.0
        return {
            "prompt": self._prompts,
            f"step {min(wrong)}" if wrong else "steps": [found for steps in self._steps for found in steps],
            "tokens": [self._share(others)],
            "perplexity": [self._share(max(rise, 0.0))],
        }

    def _share(self, found: float) -> Comparison:
        tolerance = self._tolerances.score
        if self._failed is not None:
            return Comparison(None, None, tolerance, ok=False, reason=self._failed)
        return Comparison(found, None, tolerance, found <= tolerance)


def record(generator: TextGenerator, stored: Mapping[str, Any], bucket: TextBucket, most: int) -> Case:
    """Go on greedily with one stored prompt in a bucket, by so many tokens at most, as vectors need it."""
    prompt = generator.prompt_tokens(raw_prompt(stored))
    prompt = prompt[-bucket.rows :]
    cache = PromptCache(generator.engine.open_decoder(bucket, generator.head))
    tokens: list[int] = []
    rows: list[Floats] = []
    while len(tokens) < most and len(prompt) + len(tokens) <= bucket.rows:
        rows.append(cache.logits_after([*prompt, *tokens]).copy())
        tokens.append(int(rows[-1].argmax()))
    cache.decoder.close()
    best = [np.sort(logits)[-2:] for logits in rows]
    return Case(
        program=bucket.prefill,
        raw=dict(stored),
        expected={
            "text": b"".join(map(generator.text_tokens.bytes_of, tokens)).decode("utf-8", "replace"),
            "prompt": prompt,
            "tokens": tokens,
        },
        inputs={},
        outputs={
            "logits": np.stack([sampled(logits) for logits in rows]),
            "margins": np.array([pair[-1] - pair[0] for pair in best], np.float32),
            "log_probabilities": np.array(
                [log_probability(logits, token) for logits, token in zip(rows, tokens, strict=True)], np.float32
            ),
        },
    )


def recorded_logits(
    generator: TextGenerator, bucket: TextBucket, prompt: Sequence[int], tokens: Sequence[int]
) -> list[Floats]:
    """The logits (V,) from which each recorded token is to be chosen, those before it fed."""
    decoder = generator.engine.open_decoder(bucket, generator.head)
    try:
        cache = PromptCache(decoder)
        return [cache.logits_after([*prompt, *tokens[:count]]).copy() for count in range(len(tokens))]
    finally:
        decoder.close()


def log_probability(logits: Floats, token: int) -> float:
    """Of a token, in nats."""
    return float(np.log(max(softmax(logits)[token], np.finfo(np.float64).tiny)))


def raw_prompt(stored: Mapping[str, Any]) -> str | list[int]:
    """What the pipeline takes of a stored input."""
    return stored["text"] if "text" in stored else list(stored["token_ids"])


def _rows_centered(logits: Any) -> Any:
    return logits - logits.mean(axis=1, keepdims=True)


def generation_workload(bundle: Bundle, program: str | None) -> Workload:
    """What a benchmark runs: the recorded text of a bucket with the most tokens, from its prompt on.

    Raises:
        BundleError: the bundle has no vectors.
        InputError: no case starts with that program.
    """
    cases, _ = read_vectors(bundle)
    names = [case.program for case in cases]
    chosen = [case for case in cases if program in (None, case.program)]
    if not chosen:
        raise InputError(
            "a benchmark of generated text runs prompt and answer, named by their prefill: "
            f"{did_you_mean(str(program), names)}expected one of {', '.join(dict.fromkeys(names))}, found {program!r}"
        )
    case = max(chosen, key=lambda each: len(each.expected["prompt"]) + len(each.expected["tokens"]))

    def bind(bundle: Bundle, engine: Engine) -> Callable[[], object]:
        generator = TextGenerator(bundle, engine)
        options = GenerateOptions(max_tokens=len(case.expected["tokens"]))

        def call() -> object:
            generator.forget()
            return generator.run(case.expected["prompt"], options)

        return call

    return Workload(case.program, case, bind)
