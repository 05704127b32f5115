"""The tasks that answer with tokens of a text or places in it: what surrounds such a model, and texts to judge it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeformer.models.family import ProgramOptions
from edgeformer.tasks.task import Task, TaskSpec
from edgeformer.tasks.text import (
    CLASSIFICATION,
    MAX_CALIBRATION_SAMPLES,
    MOST_POSITIONS,
    bucket_lengths,
    calibrate_on,
    calibration_texts,
    sentences,
    text_spec,
)
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.tasks.tokens import SIMPLE, MaskedToken, SpanExtraction, TokenLabels

if TYPE_CHECKING:
    from edgeformer.checkpoints.checkpoint import Checkpoint
    from edgeformer.models.family import Program
    from edgeformer_runtime.pipelines.text import MaskFiller
    from edgeformer_runtime.pipelines.tokens import EntityFinder, QuestionAnswerer

MAX_STRIDE = 128
MAX_ANSWER_TOKENS = 15
"""Both of transformers' pipeline for question answering."""
OUTSIDE = "O"
"""The label of what is no entity, in every public data set."""

# A name twice, marks that normalisation changes or removes, other scripts, and a context of one word.
CONTEXT = (
    "The Rhine rises in the Swiss Alps and flows past Basel, Strasbourg and Cologne. It reaches the North Sea near "
    "Rotterdam after 1,233 kilometres. In 1815 the first steamboat sailed up the Rhine to Cologne."
)
QUESTIONS: tuple[dict[str, Any], ...] = (
    {"text": "Where does the Rhine rise?", "pair": CONTEXT},
    {"text": "How long is the river?", "pair": CONTEXT},
    {"text": "Who paid?", "pair": "na\u00efve Zo\u00eb paid 3 \u20ac in the cafe\u0301 \U0001f600\U0001f44d\U0001f3fd"},
    {
        "text": "\u5317\u4eac\u5728\u54ea\u91cc\uff1f",
        "pair": "\u5317\u4eac\u5728\u4e2d\u56fd\u3002 \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    },
    {"text": "When?", "pair": "tab\there\nnew line\u0000nul \u200bzero width on\u00a0Friday"},
    {"text": "What?", "pair": "nothing"},
)
MENTIONS: tuple[dict[str, Any], ...] = (
    {"text": CONTEXT},
    {"text": "na\u00efve Zo\u00eb met Jos\u00e9 in Z\u00fcrich \U0001f600\U0001f44d\U0001f3fd, cafe\u0301 Ko\u0308ln"},
    {"text": "\u5317\u4eac \u05d9\u05e8\u05d5\u05e9\u05dc\u05d9\u05dd \u0627\u0644\u0642\u0627\u0647\u0631\u0629"},
    {"text": "tab\there\nnew line\u0000nul \u200bzero width O'Neill-Smith"},
    {"text": ""},
)


def stride_for(lengths: Sequence[int]) -> int:
    """Tokens that neighbouring windows share, as transformers has it by default."""
    return min(max(lengths) // 2, MAX_STRIDE)


def _needs_tokenizer(task: Task, checkpoint: Checkpoint) -> None:
    if checkpoint.tokenizer_json is None:
        raise InputError(
            f"{task.name} answers with tokens or places of a text, for which the checkpoint has no tokenizer: add one"
        )


def _filling(length: int) -> str:
    """Words for a little less than the tokens of a bucket; a word is one token or a little more."""
    return " ".join(itertools.islice(itertools.cycle(CONTEXT.split()), length * 3 // 4))


# Question answering.


def _spans(checkpoint: Checkpoint, programs: tuple[Program, ...], options: ProgramOptions) -> TaskSpec:  # noqa: ARG001
    _needs_tokenizer(QUESTION_ANSWERING, checkpoint)
    lengths = bucket_lengths(programs)
    head = SpanExtraction(stride_for(lengths), min(MAX_ANSWER_TOKENS, lengths[-1]))
    question = QUESTIONS[0]["text"]
    # For each bucket a context that needs it, and one that takes several windows of the longest.
    contexts = [_filling(length) for length in lengths] + [_filling(3 * lengths[-1])]
    samples = (*QUESTIONS, *({"text": question, "pair": context} for context in contexts))
    return replace(text_spec(QUESTION_ANSWERING, checkpoint, programs, head), samples=samples)


def _asked_sentences(lengths: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Each built-in sentence asked of a context of its neighbours, which is longer from one to the next."""
    known = sentences()
    count = min(len(known), MOST_POSITIONS // lengths[0])
    for number in range(count):
        context = itertools.islice(itertools.cycle(known), number, number + 2 + number % 8)
        yield {"text": known[number], "pair": ". ".join(context)}


def _questions(pipeline: QuestionAnswerer) -> Iterator[tuple[str, Any]]:
    lengths = bucket_lengths(pipeline.bundle.manifest.programs)
    return ((shorten(each), pipeline.raw_from_json(each)) for each in _asked_sentences(lengths))


def _calibrate_questions(programs: tuple[Program, ...], spec: TaskSpec, data: Path) -> tuple[Program, ...]:
    from edgeformer.data.annotated import read_questions
    from edgeformer.data.labelled import spread

    chosen = spread(read_questions(str(data)), MAX_CALIBRATION_SAMPLES)
    stride = spec.postprocessing.stride  # type: ignore[attr-defined]
    return calibrate_on(
        programs,
        spec,
        chosen,
        lambda encoder, each: encoder.windows(each.question, each.context, stride),
        windowed=True,
    )


QUESTION_ANSWERING = replace(
    CLASSIFICATION,
    name="question-answering",
    noun="question answerer",
    spec=_spans,
    evaluation="edgeformer.evaluate.tokens:evaluate_questions",
    aliases=("qa", "extractivequestionanswering", "squad", "spanextraction"),
    architecture="ForQuestionAnswering",
    labelled=False,
    judged_by_labels=False,
    heads=("qa_outputs.",),
    headless="the checkpoint has no head for question answering: fine-tune it, or ask for the task text-embedding",
    calibrate=_calibrate_questions,
    gate_inputs=_questions,
    agreement="edgeformer.convert.agreement:compare_spans",
    metric=None,
    training=None,
    checks={"tokenizer": CLASSIFICATION.checks["tokenizer"]},
)


# Token classification.


def _entities(checkpoint: Checkpoint, programs: tuple[Program, ...], options: ProgramOptions) -> TaskSpec:  # noqa: ARG001
    _needs_tokenizer(TOKEN_CLASSIFICATION, checkpoint)
    lengths = bucket_lengths(programs)
    outside = (OUTSIDE,) if OUTSIDE in checkpoint.labels else ()
    head = TokenLabels(checkpoint.labels, outside, SIMPLE, stride_for(lengths))
    texts = [_filling(length) for length in lengths] + [_filling(3 * lengths[-1])]
    samples = (*MENTIONS, *({"text": text} for text in texts))
    return replace(text_spec(TOKEN_CLASSIFICATION, checkpoint, programs, head), samples=samples)


def _mentions(pipeline: EntityFinder) -> Iterator[tuple[str, Any]]:
    lengths = bucket_lengths(pipeline.bundle.manifest.programs)
    asked = ({"text": each["pair"]} for each in _asked_sentences(lengths))
    return ((shorten(each), pipeline.raw_from_json(each)) for each in asked)


def _calibrate_mentions(programs: tuple[Program, ...], spec: TaskSpec, data: Path) -> tuple[Program, ...]:
    from edgeformer.data.annotated import CONLL_SUFFIXES, read_tagged
    from edgeformer.data.labelled import spread

    tagged = data.suffix.lower() in CONLL_SUFFIXES
    texts = [each.text for each in read_tagged(str(data))] if tagged else calibration_texts(data)
    stride = spec.postprocessing.stride  # type: ignore[attr-defined]
    return calibrate_on(
        programs,
        spec,
        spread(texts, MAX_CALIBRATION_SAMPLES),
        lambda encoder, text: encoder.windows(text, None, stride),
        windowed=True,
    )


TOKEN_CLASSIFICATION = replace(
    QUESTION_ANSWERING,
    name="token-classification",
    noun="token classifier",
    spec=_entities,
    evaluation="edgeformer.evaluate.tokens:evaluate_entities",
    aliases=("ner", "tokenclassifier", "namedentityrecognition", "postagging", "slotfilling"),
    architecture="ForTokenClassification",
    labelled=True,
    heads=("classifier.",),
    headless="the checkpoint has no head that labels tokens: fine-tune it, or ask for the task text-embedding",
    calibrate=_calibrate_mentions,
    gate_inputs=_mentions,
    agreement="edgeformer.convert.agreement:compare_tokens",
)


# Masked tokens.


MASKED = (
    "turn the {} off in the living room",
    "na\u00efve Zo\u00eb paid 3 \u20ac in the {} cafe\u0301 \U0001f600\U0001f44d\U0001f3fd",
    "\u5317\u4eac\u5728{}\u3002 \u05e9\u05dc\u05d5\u05dd {} \u0645\u0631\u062d\u0628\u0627",
    "{}",
    "tab\there\nnew line\u0000nul {} \u200bzero width",
)
"""Of which one has two masks."""


def _fills(checkpoint: Checkpoint, programs: tuple[Program, ...], options: ProgramOptions) -> TaskSpec:  # noqa: ARG001
    from edgeformer.checkpoints.tokenizers import mask_token

    _needs_tokenizer(FILL_MASK, checkpoint)
    assert checkpoint.tokenizer_json is not None
    head = MaskedToken(*mask_token(checkpoint.folder, checkpoint.tokenizer_json))
    texts = (*MASKED, *(f"{{}} {_filling(length)}" for length in bucket_lengths(programs)))
    samples = tuple({"text": text.replace("{}", head.mask_token)} for text in texts)
    return replace(text_spec(FILL_MASK, checkpoint, programs, head), samples=samples)


def with_mask(text: str, mask: str) -> str:
    """A text whose middle word is masked, so that it is what a model predicts from both sides."""
    words = text.split()
    words[len(words) // 2 : len(words) // 2 + 1] = [mask]
    return " ".join(words)


def _masked_texts(pipeline: MaskFiller) -> Iterator[tuple[str, Any]]:
    lengths = bucket_lengths(pipeline.bundle.manifest.programs)
    head = pipeline.bundle.manifest.postprocessing
    assert isinstance(head, MaskedToken)
    for each in _asked_sentences(lengths):
        text = f"{with_mask(each['text'], head.mask_token)}. {each['pair']}"
        try:
            pipeline.windows(text)
        except InputError:  # a vocabulary of letters: the mask is cut off
            text = f"{head.mask_token} {text}"
        yield shorten(text), text


def _calibrate_masked(programs: tuple[Program, ...], spec: TaskSpec, data: Path) -> tuple[Program, ...]:
    from edgeformer.data.labelled import spread

    head = spec.postprocessing
    assert isinstance(head, MaskedToken)
    mask = head.mask_token
    texts = [text if mask in text else with_mask(text, mask) for text in calibration_texts(data)]
    return calibrate_on(
        programs,
        spec,
        # A mask in front is there, too, where the others are cut off.
        spread([f"{mask} {text}" for text in texts], MAX_CALIBRATION_SAMPLES),
        lambda encoder, text: encoder.at_masks(text, mask, head.mask_token_id),
    )


FILL_MASK = replace(
    QUESTION_ANSWERING,
    name="fill-mask",
    noun="masked language model",
    spec=_fills,
    evaluation="edgeformer.evaluate.tokens:evaluate_masks",
    aliases=("maskedlm", "mlm", "maskedlanguagemodelling", "maskedlanguagemodeling"),
    architecture="ForMaskedLM",
    also_in=("ForPreTraining",),
    heads=("cls.predictions.transform.",),
    headless="the checkpoint has no head that predicts tokens: take the model before it was fine-tuned",
    calibrate=_calibrate_masked,
    gate_inputs=_masked_texts,
    agreement="edgeformer.convert.agreement:compare_fills",
    pack=None,
)
