"""Records and replays the cases of decoders, each step with the recorded tokens: of speech, and of generated text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgeformer_runtime.bench.workload import Workload
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import CASES_FILE
from edgeformer_runtime.bundle.specs import AudioBucket, bucket_of
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.bundle.vectors import Case, Tolerances, read_vectors
from edgeformer_runtime.decoding.logit_rules import softmax
from edgeformer_runtime.decoding.options import GenerateOptions
from edgeformer_runtime.decoding.prompt import Prompt, feed
from edgeformer_runtime.engines import Engine, Tensor
from edgeformer_runtime.engines.decoder import SEEN, Floats, SpeechDecoder
from edgeformer_runtime.errors import BundleError, EngineError, InputError
from edgeformer_runtime.pipelines.generation import PromptCache, TextGenerator
from edgeformer_runtime.pipelines.speech import Transcriber, read_wav
from edgeformer_runtime.registry import did_you_mean
from edgeformer_runtime.tasks.generation import TextBucket
from edgeformer_runtime.tasks.speech import SAMPLED_VALUES
from edgeformer_runtime.verify.verify import Comparison, compare, compare_scaled, scales, worst_of

MEL_TOLERANCE = 1e-3
"""Of values around -1 to 2: what another FFT and another order of float32 sums may change."""


class SpeechReplay:
    """Compares the stages "mel", "encode", "steps" and "text"; a step that diverges is named."""

    def __init__(self, bundle: Bundle, engine: Engine, tolerances: Tolerances, cases: Sequence[Case]) -> None:
        """See `verify.Replay`."""
        self._transcriber = Transcriber(bundle, engine)
        self._tolerances = tolerances
        self._scales = scales(_centered(case) for case in cases)
        self._mel: list[Comparison] = []
        self._encode: list[Comparison] = []
        self._steps: list[list[Comparison]] = []
        self._text: list[Comparison] = []

    def play(self, case: Case) -> None:
        """Replay one case."""
        bucket = bucket_of(self._transcriber.spec, case.program)
        try:
            samples = read_wav(self._transcriber.bundle, case.raw)
            mel = self._transcriber.mel(samples, bucket)
        except InputError as error:
            raise BundleError(f"{CASES_FILE}: the input {shorten(case.raw)} cannot be used: {error}") from None
        self._mel.append(compare(sampled(mel), case.inputs["mel"], MEL_TOLERANCE))
        self._encode.append(self._compare_encoded(case, mel))
        self._steps.append(self._compare_steps(case, bucket, mel))
        self._text.append(self._compare_text(case, bucket, samples))

    def comparisons(self) -> dict[str, list[Comparison]]:
        """What was found so far: every stage in the order of execution."""
        wrong = [index for steps in self._steps for index, found in enumerate(steps) if not found.ok]
        steps = f"step {min(wrong)}" if wrong else "steps"
        return {
            "mel": self._mel,
            "encode": self._encode,
            steps: [found for steps in self._steps for found in steps],
            "text": self._text,
        }

    def _compare_encoded(self, case: Case, mel: Floats) -> Comparison:
        references = {name: tensor for name, tensor in case.outputs.items() if name != "logits"}
        tolerance, known = self._tolerances.output, self._scales
        try:
            outputs = self._transcriber.engine.run(case.program, {"mel": mel})
        except EngineError as error:
            limit = tolerance * max(known[name] for name in references)
            return Comparison(None, None, limit, ok=False, reason=str(error))
        return worst_of(
            [
                compare_scaled(sampled(outputs[name]), tensor, tolerance, known[name])
                for name, tensor in references.items()
            ]
        )

    def _compare_steps(self, case: Case, bucket: AudioBucket, mel: Floats) -> list[Comparison]:
        """One comparison per step, the recorded tokens fed whatever the bundle itself would choose."""
        tolerance, scale = self._tolerances.output, self._scales["logits"]
        found: list[Comparison] = []
        try:
            decoder = self._transcriber.decoder(bucket)
            tokens: Iterator[int] = iter(case.expected["tokens"])
            for logits in steps(decoder, mel, case.expected["prompt"], lambda _: next(tokens, None)):
                row = centered(case.outputs["logits"][len(found)])
                found.append(compare_scaled(centered(sampled(logits)), row, tolerance, scale))
        except EngineError as error:
            found.append(Comparison(None, None, tolerance * scale, ok=False, reason=str(error)))
        return found

    def _compare_text(self, case: Case, bucket: AudioBucket, samples: Floats) -> Comparison:
        """Letters that differ, as a fraction of the reference's; one too many in an empty answer is all of them."""
        tolerance = self._tolerances.score
        reference = letters(case.expected["text"])
        try:
            found = letters(self._transcriber.plain_text(samples, bucket))
        except EngineError as error:
            return Comparison(None, None, tolerance, ok=False, reason=str(error))
        share = edit_distance(found, reference) / max(len(reference), 1)
        return Comparison(share, None, tolerance, share <= tolerance)


def record(transcriber: Transcriber, stored: Mapping[str, Any], bucket: AudioBucket) -> Case:
    """Transcribe one stored recording in a bucket and keep each stage, as vectors need it."""
    samples = read_wav(transcriber.bundle, stored)
    mel = transcriber.mel(samples, bucket)
    encoded = transcriber.engine.run(bucket.encode, {"mel": mel})
    prompt = transcriber.plain_prompt()
    tokens: list[int] = []

    def choose(logits: Floats) -> int | None:
        token = transcriber.plain_choice(logits, first=not tokens)
        # The last row of the cache is for the token that would end it all.
        if token == transcriber.spec.tokens.end or len(prompt) + len(tokens) >= bucket.rows - 1:
            return None
        tokens.append(token)
        return token

    rows = [sampled(logits).copy() for logits in steps(transcriber.decoder(bucket), mel, prompt, choose)]
    return Case(
        program=bucket.encode,
        raw=dict(stored),
        expected={"text": transcriber.text(tokens), "prompt": prompt, "tokens": tokens},
        inputs={"mel": sampled(mel)},
        outputs={name: sampled(tensor) for name, tensor in encoded.items()} | {"logits": np.stack(rows)},
    )


def steps(
    decoder: SpeechDecoder, mel: Floats, prompt: list[int], choose: Callable[[Floats], int | None]
) -> list[Floats]:
    """Encode, feed the prompt, then token by token what `choose` makes of the logits (V,), until it says None.

    Returns:
        The logits before each choice, the last one included.
    """
    decoder.encode(mel)
    context = feed(decoder, Prompt(tuple(prompt), start=0))
    mask, position = context.mask, context.position
    seen = [context.logits]
    while (token := choose(seen[-1])) is not None:
        output = decoder.step(token, position, position, mask)
        mask[position] = SEEN
        position += 1
        seen.append(output.logits.copy())
    return seen


def speech_workload(bundle: Bundle, program: str | None) -> Workload:
    """What a benchmark runs: the audio in the middle of the recorded ones, or that of an `encode`, from mel to text.

    Raises:
        BundleError: the bundle has no vectors.
        InputError: no case starts with that program.
    """
    cases = {case.program: case for case in read_vectors(bundle)[0]}
    chosen = program or list(cases)[len(cases) // 2]
    if chosen not in cases:
        guess = did_you_mean(chosen, cases)
        raise InputError(
            "a benchmark of speech runs whole transcriptions, which are named by their encoder: "
            f"{guess}expected one of {', '.join(cases)}, found {program!r}"
        )

    def bind(bundle: Bundle, engine: Engine) -> Callable[[], object]:
        transcriber = Transcriber(bundle, engine)
        samples = read_wav(transcriber.bundle, cases[chosen].raw)
        bucket = bucket_of(transcriber.spec, chosen)
        return lambda: transcriber.plain_text(samples, bucket)

    return Workload(chosen, cases[chosen], bind)


def sampled(tensor: Tensor) -> Tensor:
    """(512,) values spread evenly over a tensor, or all of a smaller one: enough to see that it is another."""
    flat = tensor.reshape(-1)
    if flat.size <= SAMPLED_VALUES:
        return flat
    taken: Tensor = flat[np.arange(SAMPLED_VALUES) * flat.size // SAMPLED_VALUES]
    return taken


def centered(logits: Tensor) -> Tensor:
    """Logits less their mean: what all of them have in common changes no probability."""
    result: Tensor = logits - logits.mean()
    return result


def _centered(case: Case) -> dict[str, Tensor]:
    """A case's outputs with its logits as they are compared: each row less its mean."""
    rows = case.outputs["logits"]
    return {**case.outputs, "logits": rows - rows.mean(axis=1, keepdims=True)}


def letters(text: str) -> str:
    """The letters and digits of a text in lower case: a comma more or less is no other answer."""
    return "".join(character for character in text.casefold() if character.isalnum())


def edit_distance(found: str, reference: str) -> int:
    """How many characters have to be changed, put in or taken out (Levenshtein 1966)."""
    row = list(range(len(reference) + 1))
    for i, character in enumerate(found, 1):
        above, row = row, [i]
        for j, other in enumerate(reference, 1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (character != other)))
    return row[-1]


# Generated text: the prompt's tokens, the logits of each step, next tokens, perplexity.


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
        self._scale = scales({"logits": _centered(case)["logits"]} for case in cases)["logits"]
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


def record_text(generator: TextGenerator, stored: Mapping[str, Any], bucket: TextBucket, most: int) -> Case:
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
