"""The task of images and texts whose embeddings are compared: labels of a call for a photo, and photos for a text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from edgeformer_runtime.bundle.manifest import MANIFEST_NAME, Manifest, ProgramSpec
from edgeformer_runtime.bundle.specs import (
    Classification,
    Embedding,
    Score,
    TextPreprocessing,
)
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.registry import check_choice
from edgeformer_runtime.tasks.programs import (
    CLASSIFICATION,
    EMBEDDING,
    MAX_ZERO_SHOT_LABELS,
    SCORE,
    TEXT,
    check_only_output,
)
from edgeformer_runtime.tasks.task import AnswerKind, InputKind, NamedFile, Task
from edgeformer_runtime.tasks.vision import IMAGE, IMAGE_PROGRAM, PAD, ImagePreprocessing

if TYPE_CHECKING:
    from edgeformer_runtime.pipelines.results import ClassificationResult, EmbeddingResult, ScoreResult

    AnyResult: TypeAlias = "ClassificationResult | EmbeddingResult | ScoreResult"

PHOTO_TEMPLATE = "This is a photo of {}."
"""That of transformers' pipeline."""
ACTIVATIONS = ("softmax", "sigmoid")


@dataclass(frozen=True)
class ImageTextPreprocessing:
    """An image as of kind `image`, or a text as of kind `text`.

    Attributes:
        image: for the program `image`.
        text: for all other programs, which are its buckets.
    """

    image: ImagePreprocessing
    text: TextPreprocessing
    kind: str = "image-text"


@dataclass(frozen=True)
class Similarity:
    """Every program's output is an embedding of L2 norm 1; what compares them.

    Attributes:
        dim: components of an embedding.
        scale, bias: a cosine times `scale` plus `bias` is the logit of a text for an image.
        activation: "softmax" over the labels of a call, or "sigmoid" of each.
    """

    dim: int
    scale: float
    bias: float
    activation: str
    kind: str = "similarity"

    def __post_init__(self) -> None:
        check_choice(self.activation, ACTIVATIONS, "activation")


@dataclass(frozen=True)
class ImageTextOptions:
    """What an image is compared with; nothing: its embedding is the answer.

    Attributes:
        labels: to choose from.
        template: a sentence in which each label stands for {}.
        query: a text, to which the image's cosine is the answer.
    """

    labels: tuple[str, ...] | None = None
    template: str = PHOTO_TEMPLATE
    query: str | None = None

    def __post_init__(self) -> None:
        if (self.labels is None) == (self.query is None):
            raise InputError("expected labels to choose from, or a query to compare images with")
        if self.labels is not None and not (1 <= len(self.labels) <= MAX_ZERO_SHOT_LABELS and all(self.labels)):
            raise InputError(f"labels: expected 1 to {MAX_ZERO_SHOT_LABELS}, none of them empty")
        if "{}" not in self.template:
            raise InputError(f"template: expected a sentence with {{}} for the label, found {self.template!r}")

    @property
    def texts(self) -> tuple[str, ...]:
        """What the image is compared with."""
        if self.labels is None:
            return (self.query or "",)
        return tuple(self.template.replace("{}", label) for label in self.labels)


# Images and texts.


def text_of(raw: Mapping[str, Any]) -> str:
    """The text of a raw input that is none of an image.

    Raises:
        InputError: it has another form than {"text": "..."}.
    """
    text = raw.get("text")
    if len(raw) != 1 or not isinstance(text, str):
        raise InputError(f"expected an image, or a text as {{'text': '...'}}, found {shorten(dict(raw), 60)}")
    return text


def _text_part(manifest: Manifest) -> Manifest:
    """The manifest of the texts' programs alone."""
    spec = manifest.preprocessing
    assert isinstance(spec, ImageTextPreprocessing)
    return replace(manifest, programs=text_programs(manifest), preprocessing=spec.text)


def text_programs(manifest: Manifest) -> tuple[ProgramSpec, ...]:
    """The buckets of texts."""
    return tuple(program for program in manifest.programs if program.name != IMAGE_PROGRAM)


def _check_both(manifest: Manifest) -> None:
    spec, texts = manifest.preprocessing, text_programs(manifest)
    assert isinstance(spec, ImageTextPreprocessing)
    images = tuple(program for program in manifest.programs if program.name == IMAGE_PROGRAM)
    IMAGE.check(replace(manifest, programs=images, preprocessing=spec.image))
    if spec.image.crop == PAD:
        raise BundleError(f"{MANIFEST_NAME}: preprocessing.image.crop: {PAD!r} is of object detection")
    if not texts or spec.text.tokenizer is None:
        raise BundleError(f"{MANIFEST_NAME}: {manifest.task} needs a tokenizer, and programs for texts")
    TEXT.check(_text_part(manifest))


def _largest_number(manifest: Manifest, program: ProgramSpec, name: str) -> int | None:
    return None if program.name == IMAGE_PROGRAM else TEXT.largest(_text_part(manifest), program, name)


def _files(spec: ImageTextPreprocessing) -> tuple[NamedFile, ...]:
    return tuple(replace(file, key="preprocessing.text.tokenizer") for file in TEXT.files(spec.text))


def _to_stored(spec: ImageTextPreprocessing, tensor: Any) -> Any:
    return IMAGE.to_stored(spec.image, tensor) if tensor.dtype == np.float32 else tensor


def _from_stored(spec: ImageTextPreprocessing, tensor: Any) -> Any:
    return IMAGE.from_stored(spec.image, tensor) if tensor.dtype == np.uint8 else tensor


IMAGE_TEXT_INPUT = InputKind(
    kind="image-text",
    record=ImageTextPreprocessing,
    check=_check_both,
    files=_files,
    stored_forms=(("image",), ("image", "labels"), ("text",)),
    stored_file="image",
    stored_dtypes=IMAGE.stored_dtypes,
    to_stored=_to_stored,
    from_stored=_from_stored,
    largest=_largest_number,
    tolerance=lambda spec: IMAGE.tolerance(spec.image),
    describe=lambda spec: f"{IMAGE.describe(spec.image)}; or {TEXT.describe(spec.text)}",
    run="edgeformer_runtime.cli.run:run_images_or_texts",
    takes="images, and texts with --texts: expected paths of images",
    asks_for="paths of images, or texts with --texts",
    options=("--top", "--texts"),
    frame="edgeformer_runtime.isolation.messages:image_text_frame",
    several=True,
)


# Embeddings, labels with scores, or a cosine.


def _check_similarity(manifest: Manifest) -> None:
    head = manifest.postprocessing
    assert isinstance(head, Similarity)
    check_only_output(manifest, head.dim)


def _check_expected(case: Mapping[str, Any], head: Similarity, where: str) -> None:
    labels = case["input"].get("labels")
    if labels is None:
        EMBEDDING.check_expected(case, head, where)
    else:
        CLASSIFICATION.check_expected(case, Classification(tuple(labels), head.activation), where)


def _answered(head: Similarity, options: ImageTextOptions | None) -> Classification | Embedding | Score:
    """The record that an answer to a call follows."""
    if options is None:
        return Embedding(head.dim, normalized=True)
    return Score("none") if options.labels is None else Classification(options.labels, head.activation)


def _kind_of(result: AnyResult) -> AnswerKind:
    return next(kind for name, kind in _KINDS.items() if hasattr(result, name))


_KINDS = {"labels": CLASSIFICATION, "vector": EMBEDDING, "score": SCORE}
"""Of answers, by what they have."""


def _call_options(options: Any) -> ImageTextOptions | None:
    if options.labels is None and options.template is not None:
        raise InputError("--template belongs to --labels: add it")
    if (options.labels or options.query) is not None and options.texts:
        raise InputError("--labels and --query are for images: leave --texts out")
    if options.labels is None:
        return None if options.query is None else ImageTextOptions(query=options.query)
    labels = tuple(label.strip() for label in options.labels.split(",") if label.strip())
    return ImageTextOptions(labels, options.template or PHOTO_TEMPLATE, options.query)


SIMILARITY = AnswerKind(
    kind="similarity",
    record=Similarity,
    check=_check_similarity,
    check_expected=_check_expected,
    describe=lambda head: f"{head.dim} components, normalised; labels of a call, {head.activation}",
    result="edgeformer_runtime.pipelines.text:ComparedResult",
    best=lambda result, top: _kind_of(result).best(result, top),
    show=lambda result, top: _kind_of(result).show(result, top),
    plural="answers",
    replay="edgeformer_runtime.verify.program_replay:SimilarityReplay",
    options="edgeformer_runtime.tasks.image_text:ImageTextOptions",
    answered=_answered,
    run_options=("--labels", "--template", "--query"),
    call_options=_call_options,
)

IMAGE_TEXT = Task(
    name="image-text",
    takes=IMAGE_TEXT_INPUT,
    gives=SIMILARITY,
    pipeline="edgeformer_runtime.pipelines.text:ImageTextComparer",
    serve="edgeformer_runtime.serve.routes:add_image_text",
)
