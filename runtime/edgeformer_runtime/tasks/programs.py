"""Tasks whose answer is the output of one program: labels, scores, embeddings and tokens of texts, labels of images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeformer_runtime.bundle.manifest import MANIFEST_NAME, Manifest, check_unique
from edgeformer_runtime.bundle.specs import (
    MAX_TOKENIZER_BYTES,
    Classification,
    Embedding,
    ProgramSpec,
    Score,
    TensorSpec,
    TextPreprocessing,
)
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.tasks.task import MAX_NUMBER, AnswerKind, InputKind, NamedFile, Task
from edgeformer_runtime.tasks.vision import IMAGE

if TYPE_CHECKING:
    from edgeformer_runtime.pipelines.results import ClassificationResult, EmbeddingResult

MASK_POSITION = "mask_position"
"""1 at the position whose token is predicted, of programs that predict one."""
TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids", MASK_POSITION)
PACKED_PROGRAM = "packed"
PACKED_TEXTS = ("1", "N", "S")
"""The axes of its input that says which positions are whose."""
SHOWN_COMPONENTS = 4


# Texts.


def _text_files(spec: TextPreprocessing) -> tuple[NamedFile, ...]:
    if spec.tokenizer is None:
        return ()
    return (NamedFile("preprocessing.tokenizer", spec.tokenizer, MAX_TOKENIZER_BYTES, is_model=False),)


def _check_text(manifest: Manifest) -> None:
    """The programs are buckets of different lengths."""
    spec = manifest.preprocessing
    assert isinstance(spec, TextPreprocessing)
    if spec.pad_token_id >= (spec.vocab_size or 1 << 31):
        raise BundleError(f"{MANIFEST_NAME}: preprocessing.pad_token_id is not below vocab_size")
    for program in manifest.programs:
        _check_text_inputs(program, f"{MANIFEST_NAME}: program {program.name}")
    lengths = [program.inputs[0].shape[1] for program in manifest.programs]
    check_unique((str(length) for length in lengths), "sequence length")


def _check_packed(manifest: Manifest, packed: ProgramSpec) -> None:
    """It takes the tokens of several texts, and gives for each what the buckets give."""
    where = f"{MANIFEST_NAME}: packed"
    bucket = manifest.programs[0]
    names = [tensor.name for tensor in bucket.inputs]
    shapes = {tensor.name: tensor.shape for tensor in packed.inputs}
    texts = shapes.get("texts", ())
    if len(texts) != len(PACKED_TEXTS) or texts[0] != 1 or "attention_mask" not in names:
        raise BundleError(f"{where}: expected texts of shape (1, N, S), and buckets with an attention_mask")
    _, count, length = texts
    row = dict.fromkeys(("input_ids", "position_ids"), ("int32", (1, length)))
    row |= {name: ("int32", (1, length)) for name in names if name == "token_type_ids"}
    expected = row | {"texts": ("float32", texts)}
    if {tensor.name: (tensor.dtype, tensor.shape) for tensor in packed.inputs} != expected:
        raise BundleError(
            f"{where}: expected the inputs {', '.join(expected)}: texts in float32, the others of shape (1, {length}) "
            "in int32"
        )
    pooled = len(bucket.outputs[0].shape) < len(texts)
    outputs = tuple(
        TensorSpec(each.name, each.dtype, (count, *each.shape[1:]) if pooled else (1, length, *each.shape[2:]))
        for each in bucket.outputs
    )
    if packed.outputs != outputs:
        raise BundleError(f"{where}: expected the buckets' output, of each of {count} texts or {length} tokens")
    if not 1 <= length <= max(program.inputs[0].shape[1] for program in manifest.programs):
        raise BundleError(f"{where}: expected at most as many positions as the longest program has, found {length}")


def _check_text_inputs(program: ProgramSpec, where: str) -> None:
    shapes = {tensor.name: tensor.shape for tensor in program.inputs}
    length = shapes.get("input_ids", ())
    for tensor in program.inputs:
        if tensor.name not in TEXT_INPUTS:
            raise BundleError(f"{where}: unknown input {tensor.name!r}: text has {', '.join(TEXT_INPUTS)}")
        if tensor.dtype != "int32" or len(tensor.shape) != 2 or tensor.shape[0] != 1 or tensor.shape != length:
            raise BundleError(f"{where}: expected input_ids and other inputs of one shape (1, S) in int32")


def _largest_number(manifest: Manifest, program: ProgramSpec, name: str) -> int:
    """Of token ids, by the size of the vocabulary where it is known; a mask and a token type are 0 or 1."""
    spec = manifest.preprocessing
    assert isinstance(spec, TextPreprocessing)
    if name == "position_ids":
        return program.inputs[0].shape[1] - 1
    if name != "input_ids":
        return 1
    return MAX_NUMBER if spec.vocab_size is None else spec.vocab_size - 1


def _describe_text(spec: TextPreprocessing) -> str:
    return f"text, {spec.tokenizer}" if spec.tokenizer else "token ids: there is no tokenizer"


def is_batch_of_texts(raw: Any) -> bool:
    """A list of anything but integers is a batch; a tuple of two texts is a pair."""
    return isinstance(raw, list) and not (raw and all(isinstance(item, (int, np.integer)) for item in raw))


TEXT = InputKind(
    kind="text",
    record=TextPreprocessing,
    check=_check_text,
    check_packed=_check_packed,
    files=_text_files,
    stored_forms=(("text",), ("pair", "text"), ("token_ids",)),
    largest=_largest_number,
    describe=_describe_text,
    run="edgeformer_runtime.cli.text_files:run_texts",
    takes="texts: expected them without options for images or audio",
    asks_for="texts, or - for a text per line of stdin, or --input FILE",
    options=("--pair", "--token-ids", "--top", "--input", "--column", "--pair-column", "-"),
    is_batch=is_batch_of_texts,
    frame="edgeformer_runtime.isolation.messages:text_frame",
    several=True,
)


# Labels with scores.


def check_only_output(manifest: Manifest, width: int, per_token: bool = False) -> None:
    """Refuse programs whose outputs are not one float32 tensor (1, width), or (1, S, width) of S tokens."""
    for program in manifest.programs:
        shape = (1, program.inputs[0].shape[1], width) if per_token else (1, width)
        if [(tensor.dtype, tensor.shape) for tensor in program.outputs] != [("float32", shape)]:
            raise BundleError(f"{MANIFEST_NAME}: program {program.name}: expected one float32 output of shape {shape}")


def _check_labels(manifest: Manifest) -> None:
    head = manifest.postprocessing
    assert isinstance(head, Classification)
    check_unique(head.labels, "label")
    check_only_output(manifest, len(head.labels))


def _check_scores(case: Mapping[str, Any], head: Classification, where: str) -> None:
    expected = case["expected"]
    labels = expected.get("labels")
    if labels is None or sorted(labels) != sorted(head.labels) or len(expected["scores"]) != len(labels):
        raise BundleError(f"{where}: expected: expected a score for each label of the manifest")
    if not all(math.isfinite(score) and 0 <= score <= 1 for score in expected["scores"]):
        raise BundleError(f"{where}: expected.scores: expected numbers from 0 to 1")


def _show_labels(result: ClassificationResult, top: int) -> str:
    best = result.top(top)
    return "  ".join(f"{label} {score:.3f}" for label, score in zip(best.labels, best.scores, strict=True))


CLASSIFICATION = AnswerKind(
    kind="classification",
    record=Classification,
    check=_check_labels,
    check_expected=_check_scores,
    describe=lambda head: f"{len(head.labels)} labels, {head.activation}",
    result="edgeformer_runtime.pipelines.results:ClassificationResult",
    best=lambda result, top: result.top(top),
    show=_show_labels,
    has_confidence=True,
    plural="labels",
    replay="edgeformer_runtime.verify.program_replay:LabelReplay",
)


# Labels that a call names, of a model of natural language inference.


DEFAULT_TEMPLATE = "This example is {}."
"""That of transformers' pipeline."""
MAX_ZERO_SHOT_LABELS = 1000
"""Of one call: each is a run of the model."""
ENTAILMENT = "entail"
"""What the label of a hypothesis that follows starts with, whatever its capital letters."""


@dataclass(frozen=True)
class ZeroShotOptions:
    """Labels that the bundle was not trained for: how well each, as a hypothesis, follows from the text.

    Attributes:
        labels: to choose from.
        template: a sentence in which each label stands for {}.
        multi_label: any number of labels may hold, each by itself; else their scores sum to 1.
    """

    labels: tuple[str, ...]
    template: str = DEFAULT_TEMPLATE
    multi_label: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.labels) <= MAX_ZERO_SHOT_LABELS or not all(self.labels):
            raise InputError(f"labels: expected 1 to {MAX_ZERO_SHOT_LABELS}, none of them empty")
        if "{}" not in self.template:
            raise InputError(f"template: expected a sentence with {{}} for the label, found {self.template!r}")


def entailment_of(head: Classification) -> int:
    """The number of the label that says that a hypothesis follows.

    Raises:
        InputError: the labels are not those of natural language inference.
    """
    found = next((number for number, label in enumerate(head.labels) if label.lower().startswith(ENTAILMENT)), None)
    if found is None or len(head.labels) < 2:
        raise InputError(
            "labels of a call need a model of natural language inference, one of whose labels starts with "
            f"{ENTAILMENT!r}, found {shorten(list(head.labels))}"
        )
    return found


def _zero_shot_options(options: Any) -> ZeroShotOptions | None:
    if options.labels is None:
        if options.template is not None or options.multi_label:
            raise InputError("--template and --multi-label belong to --labels: add it")
        return None
    labels = tuple(label.strip() for label in options.labels.split(",") if label.strip())
    return ZeroShotOptions(labels, options.template or DEFAULT_TEMPLATE, options.multi_label)


TEXT_LABELS = replace(
    CLASSIFICATION,
    options="edgeformer_runtime.tasks.programs:ZeroShotOptions",
    answered=lambda head, options: head if options is None else replace(head, labels=options.labels),
    run_options=("--labels", "--template", "--multi-label"),
    call_options=_zero_shot_options,
)


# Embeddings.


def _check_embedding(manifest: Manifest) -> None:
    head = manifest.postprocessing
    assert isinstance(head, Embedding)
    check_only_output(manifest, head.dim)


def check_nothing_expected(case: Mapping[str, Any], _: Any, where: str) -> None:
    """Vectors store nothing of an answer that is the program's output itself."""
    if case["expected"]:
        raise BundleError(f'{where}: the output itself is the answer: "expected" must be empty')


def _show_embedding(result: EmbeddingResult, _: int) -> str:
    start = ", ".join(f"{value:.4f}" for value in result.vector[:SHOWN_COMPONENTS])
    return f"[{start}, ...] ({len(result.vector)} components)"


EMBEDDING = AnswerKind(
    kind="embedding",
    record=Embedding,
    check=_check_embedding,
    check_expected=check_nothing_expected,
    describe=lambda head: f"{head.dim} components{', normalised' if head.normalized else ''}",
    result="edgeformer_runtime.pipelines.results:EmbeddingResult",
    show=_show_embedding,
    plural="embeddings",
    replay="edgeformer_runtime.verify.program_replay:EmbeddingReplay",
)


# A score.


def _check_score(manifest: Manifest) -> None:
    check_only_output(manifest, 1)


SCORE = AnswerKind(
    kind="score",
    record=Score,
    check=_check_score,
    check_expected=check_nothing_expected,
    describe=lambda head: "a score" if head.activation == "none" else f"a score, {head.activation}",
    result="edgeformer_runtime.pipelines.results:ScoreResult",
    show=lambda result, _: f"{result.score:.4f}",
    plural="scores",
    replay="edgeformer_runtime.verify.program_replay:ScoreReplay",
)


TEXT_CLASSIFICATION = Task(
    name="text-classification",
    takes=TEXT,
    gives=TEXT_LABELS,
    pipeline="edgeformer_runtime.pipelines.text:TextClassifier",
    serve="edgeformer_runtime.serve.routes:add_text_classification",
)

TEXT_EMBEDDING = Task(
    name="text-embedding",
    takes=TEXT,
    gives=EMBEDDING,
    pipeline="edgeformer_runtime.pipelines.text:TextEmbedder",
    serve="edgeformer_runtime.serve.routes:add_text_embedding",
)

TEXT_SCORING = Task(
    name="text-scoring",
    takes=TEXT,
    gives=SCORE,
    pipeline="edgeformer_runtime.pipelines.text:TextScorer",
    serve="edgeformer_runtime.serve.routes:add_text_scoring",
)

IMAGE_CLASSIFICATION = Task(
    name="image-classification",
    takes=IMAGE,
    gives=CLASSIFICATION,
    pipeline="edgeformer_runtime.pipelines.vision:ImageClassifier",
    serve="edgeformer_runtime.serve.routes:add_image_classification",
)

IMAGE_EMBEDDING = Task(
    name="image-embedding",
    takes=IMAGE,
    gives=EMBEDDING,
    pipeline="edgeformer_runtime.pipelines.vision:ImageEmbedder",
    serve="edgeformer_runtime.serve.routes:add_image_embedding",
)
