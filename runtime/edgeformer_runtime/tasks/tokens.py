"""Tasks whose answers are places in a text or tokens: question answering, token classification and masked tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgeformer_runtime.bundle.manifest import MANIFEST_NAME, Manifest, check_unique
from edgeformer_runtime.bundle.specs import TextPreprocessing
from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.records import dataclass
from edgeformer_runtime.registry import check_choice
from edgeformer_runtime.tasks.programs import MASK_POSITION, TEXT, check_only_output
from edgeformer_runtime.tasks.task import AnswerKind, Task

if TYPE_CHECKING:
    from edgeformer_runtime.pipelines.results import FillResult
    from edgeformer_runtime.pipelines.tokens import EntityResult, SpanResult

SPAN_ENDS = 2
"""Columns of a span program's logits: that an answer starts at a token, and that it ends there."""
MAX_ANSWERS = 100
"""That one question asks for."""
MAX_ANSWER_TOKENS = 512
NONE, SIMPLE, FIRST, AVERAGE, MAX = AGGREGATIONS = ("none", "simple", "first", "average", "max")


@dataclass(frozen=True)
class SpanExtraction:
    """An answer is a span of the second text, scored by its first token and its last.

    Attributes:
        stride: tokens that neighbouring windows of a long text share.
        max_answer_tokens: the longest answer.
    """

    stride: int
    max_answer_tokens: int
    kind: str = "spans"


@dataclass(frozen=True)
class TokenLabels:
    """Every token gets a label; tokens of one label become an entity.

    Attributes:
        labels: in the order of the logits. "B-" and "I-" before a label say that an entity begins or goes on.
        outside: labels of what is no entity.
        aggregation: how tokens become entities: one of `AGGREGATIONS`, as BUNDLE.md defines them.
        stride: tokens that neighbouring windows of a long text share.
    """

    labels: tuple[str, ...]
    outside: tuple[str, ...]
    aggregation: str
    stride: int
    kind: str = "entities"


@dataclass(frozen=True)
class SpanOptions:
    """What a question may ask for.

    Attributes:
        top: how many answers.
        unanswerable: one of them may be that the text has no answer: an empty one.
        max_answer_tokens: the longest answer; None: as the bundle says.
    """

    top: int = 1
    unanswerable: bool = False
    max_answer_tokens: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.top <= MAX_ANSWERS:
            raise InputError(f"top: expected 1 to {MAX_ANSWERS} answers, found {self.top}")
        if self.max_answer_tokens is not None and not 1 <= self.max_answer_tokens <= MAX_ANSWER_TOKENS:
            raise InputError(f"max_answer_tokens: expected 1 to {MAX_ANSWER_TOKENS}, found {self.max_answer_tokens}")


@dataclass(frozen=True)
class EntityOptions:
    """How tokens become entities; None: as the bundle says."""

    aggregation: str | None = None

    def __post_init__(self) -> None:
        if self.aggregation is not None:
            check_choice(self.aggregation, AGGREGATIONS, "aggregation")


def check_token_outputs(manifest: Manifest, width: int, stride: int) -> None:
    """Refuse programs that do not score every token, and windows of which neighbours share more than half."""
    check_only_output(manifest, width, per_token=True)
    longest = max(program.inputs[0].shape[1] for program in manifest.programs)
    if stride > longest // 2:
        raise BundleError(
            f"{MANIFEST_NAME}: postprocessing.stride: expected at most half of the longest program's {longest}"
        )
    if getattr(manifest.preprocessing, "tokenizer", None) is None:
        raise BundleError(f"{MANIFEST_NAME}: preprocessing.tokenizer: {manifest.task} needs one: places in a text")


# Question answering.


def _check_spans(manifest: Manifest) -> None:
    head = manifest.postprocessing
    assert isinstance(head, SpanExtraction)
    check_token_outputs(manifest, SPAN_ENDS, head.stride)


def _check_answers(case: Mapping[str, Any], _: SpanExtraction, where: str) -> None:
    context = case["input"].get("pair")
    if context is None:
        raise BundleError(f"{where}: input: expected a question as text and its context as pair")
    check_places(case["expected"], "answers", context, where)


def check_places(expected: Mapping[str, Any], key: str, text: str, where: str) -> None:
    """Refuse stored answers that are no places in the text, or stand beside others."""
    if expected.keys() != {key}:
        raise BundleError(f"{where}: expected: expected {key}, found {' and '.join(sorted(expected)) or 'nothing'}")
    for each in expected[key]:
        if text[each["start"] : each["end"]] != each["text"] or not math.isfinite(each["score"]):
            raise BundleError(
                f"{where}: expected.{key}: expected places in the text, with what stands there and a score"
            )


def _show_answers(result: SpanResult, top: int) -> str:
    return "  ".join(f"{answer.text or '(no answer)'} {answer.score:.3f}" for answer in result.answers[:top]) or "-"


def _span_options(options: Any) -> SpanOptions | None:
    if options.top is None and not options.unanswerable:
        return None
    return SpanOptions(options.top or 1, options.unanswerable)


SPANS = AnswerKind(
    kind="spans",
    record=SpanExtraction,
    check=_check_spans,
    check_expected=_check_answers,
    describe=lambda head: f"answers of up to {head.max_answer_tokens} tokens, windows share {head.stride}",
    result="edgeformer_runtime.pipelines.tokens:SpanResult",
    show=_show_answers,
    plural="answers",
    replay="edgeformer_runtime.verify.program_replay:SpanReplay",
    options="edgeformer_runtime.tasks.tokens:SpanOptions",
    run_options=("--unanswerable",),
    call_options=_span_options,
)

QUESTION_ANSWERING = Task(
    name="question-answering",
    takes=TEXT,
    gives=SPANS,
    pipeline="edgeformer_runtime.pipelines.tokens:QuestionAnswerer",
    serve="edgeformer_runtime.serve.routes:add_question_answering",
)


# Token classification.


def _check_entities(manifest: Manifest) -> None:
    head = manifest.postprocessing
    assert isinstance(head, TokenLabels)
    check_unique(head.labels, "label")
    check_token_outputs(manifest, len(head.labels), head.stride)


def _check_found(case: Mapping[str, Any], head: TokenLabels, where: str) -> None:
    text, expected = case["input"].get("text"), case["expected"]
    if text is None or "pair" in case["input"]:
        raise BundleError(f"{where}: input: expected one text")
    check_places(expected, "entities", text, where)
    known = {*head.labels, *(label.split("-", 1)[-1] for label in head.labels)}
    if not {entity["label"] for entity in expected["entities"]} <= known:
        raise BundleError(f"{where}: expected.entities: expected labels of the manifest")


def _show_entities(result: EntityResult, _: int) -> str:
    return "  ".join(f"{entity.text} {entity.label} {entity.score:.3f}" for entity in result.entities) or "-"


ENTITIES = AnswerKind(
    kind="entities",
    record=TokenLabels,
    check=_check_entities,
    check_expected=_check_found,
    describe=lambda head: f"{len(head.labels)} labels, aggregation {head.aggregation}, windows share {head.stride}",
    result="edgeformer_runtime.pipelines.tokens:EntityResult",
    show=_show_entities,
    plural="entities",
    replay="edgeformer_runtime.verify.program_replay:EntityReplay",
    options="edgeformer_runtime.tasks.tokens:EntityOptions",
    run_options=("--aggregation",),
    call_options=lambda options: None if options.aggregation is None else EntityOptions(options.aggregation),
)

TOKEN_CLASSIFICATION = Task(
    name="token-classification",
    takes=TEXT,
    gives=ENTITIES,
    pipeline="edgeformer_runtime.pipelines.tokens:EntityFinder",
    serve="edgeformer_runtime.serve.routes:add_token_classification",
)


# Tokens for a masked one.


DEFAULT_FILLS, MAX_FILLS = 5, 100
"""Tokens that are told for each mask."""
MAX_TARGETS = 1000


@dataclass(frozen=True)
class MaskedToken:
    """The program's only output is the logits (1, V) of every token of the vocabulary, at one position.

    Attributes:
        mask_token: what stands in a text for the token that is looked for, as [MASK].
        mask_token_id: its id.
    """

    mask_token: str
    mask_token_id: int
    kind: str = "fills"


@dataclass(frozen=True)
class FillOptions:
    """What a masked text may ask for.

    Attributes:
        top: how many tokens for each mask.
        targets: the only ones that are wanted, each a token of the vocabulary or a word that is one; None: all.
    """

    top: int = DEFAULT_FILLS
    targets: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.top <= MAX_FILLS:
            raise InputError(f"top: expected 1 to {MAX_FILLS} tokens, found {self.top}")
        if self.targets is not None and not 1 <= len(self.targets) <= MAX_TARGETS:
            raise InputError(f"targets: expected 1 to {MAX_TARGETS} words, found {len(self.targets)}")


def _check_fills(manifest: Manifest) -> None:
    head, spec = manifest.postprocessing, manifest.preprocessing
    assert isinstance(head, MaskedToken) and isinstance(spec, TextPreprocessing)
    if spec.tokenizer is None or spec.vocab_size is None:
        raise BundleError(f"{MANIFEST_NAME}: preprocessing: {manifest.task} needs a tokenizer and vocab_size")
    if head.mask_token_id >= spec.vocab_size or head.mask_token_id == spec.pad_token_id:
        raise BundleError(f"{MANIFEST_NAME}: postprocessing.mask_token_id: expected an id that is no padding's")
    check_only_output(manifest, spec.vocab_size)
    for program in manifest.programs:
        if MASK_POSITION not in {tensor.name for tensor in program.inputs}:
            raise BundleError(f"{MANIFEST_NAME}: program {program.name}: expected an input {MASK_POSITION}")


def _check_filled(case: Mapping[str, Any], head: MaskedToken, where: str) -> None:
    text = case["input"].get("text")
    if text is None or "pair" in case["input"] or head.mask_token not in text:
        raise BundleError(f"{where}: input: expected one text with {head.mask_token}")
    fills = case["expected"].get("fills")
    if not fills or not all(math.isfinite(fill["score"]) and 0 <= fill["score"] <= 1 for fill in fills):
        raise BundleError(f"{where}: expected.fills: expected tokens with scores from 0 to 1")


def _show_fills(result: FillResult, _: int) -> str:
    several = result.masks > 1
    return "  ".join(f"{f'{fill.mask}: ' if several else ''}{fill.text} {fill.score:.3f}" for fill in result.fills)


def _fill_options(options: Any) -> FillOptions | None:
    if options.top is None and options.targets is None:
        return None
    targets = None if options.targets is None else tuple(each.strip() for each in options.targets.split(","))
    return FillOptions(options.top or DEFAULT_FILLS, targets)


FILLS = AnswerKind(
    kind="fills",
    record=MaskedToken,
    check=_check_fills,
    check_expected=_check_filled,
    describe=lambda head: f"tokens for {head.mask_token}",
    result="edgeformer_runtime.pipelines.results:FillResult",
    show=_show_fills,
    plural="fills",
    replay="edgeformer_runtime.verify.program_replay:FillReplay",
    options="edgeformer_runtime.tasks.tokens:FillOptions",
    run_options=("--targets",),
    call_options=_fill_options,
)

FILL_MASK = Task(
    name="fill-mask",
    takes=TEXT,
    gives=FILLS,
    pipeline="edgeformer_runtime.pipelines.text:MaskFiller",
    serve="edgeformer_runtime.serve.routes:add_fill_mask",
)
