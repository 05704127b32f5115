"""Text pipelines: classification, scoring, embedding, masked tokens, and texts beside images."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import Classification, Embedding, Score, TextPreprocessing
from edgeformer_runtime.engines import Engine, Tensor
from edgeformer_runtime.errors import BundleError, InputError
from edgeformer_runtime.pipelines.program import Prepared, ProgramPipeline, Result
from edgeformer_runtime.pipelines.results import (
    ClassificationResult,
    EmbeddingResult,
    Fill,
    FillResult,
    ScoreResult,
    classify,
    embed,
    finite_row,
    score_of,
    softmax,
    zero_shot,
)
from edgeformer_runtime.preprocess.text import RawText, TextEncoder
from edgeformer_runtime.tasks.image_text import (
    ImageTextOptions,
    ImageTextPreprocessing,
    Similarity,
    text_of,
    text_programs,
)
from edgeformer_runtime.tasks.programs import ZeroShotOptions, entailment_of
from edgeformer_runtime.tasks.vision import IMAGE_INPUT, IMAGE_PROGRAM

if TYPE_CHECKING:
    from edgeformer_runtime.pipelines.results import Result as AnyResult
    from edgeformer_runtime.preprocess.image import RawImage
    from edgeformer_runtime.tasks.tokens import FillOptions, MaskedToken


KEPT_TEXTS = 4096
"""Embeddings of texts that a pipeline keeps, a few kB each; the one that was asked for the longest ago makes room."""


class TextPipeline(ProgramPipeline[RawText, Result]):
    """What text pipelines share: the encoder, and what one input looks like."""

    def __init__(self, bundle: Bundle, engine: Engine, owned: bool = False) -> None:
        """Use `edgeformer_runtime.load`."""
        super().__init__(bundle, engine, owned)
        spec = cast(TextPreprocessing, bundle.manifest.preprocessing)
        self._encoder = self.make_encoder(bundle, spec)

    def make_encoder(self, bundle: Bundle, spec: TextPreprocessing) -> TextEncoder:
        """What makes tensors of a text."""
        return TextEncoder(spec, tokenizer_json(bundle, spec), bundle.manifest.programs, known=bundle.known)

    def prepare(self, raw: RawText) -> Prepared:
        """Encode a text, a pair of texts or token ids in the smallest bucket that fits."""
        encoded = self._encoder.encode(raw)
        return Prepared(encoded.program, encoded.inputs, encoded.truncated)

    def raw_from_json(self, stored: Mapping[str, Any]) -> RawText:
        """{"text", "pair"?} or {"token_ids"}."""
        if "token_ids" in stored:
            return [int(token) for token in stored["token_ids"]]
        return (stored["text"], stored["pair"]) if "pair" in stored else cast(str, stored["text"])


class TextClassifier(TextPipeline[ClassificationResult]):
    """Scores every label of the bundle for a text."""

    def answer(self, outputs: Mapping[str, Tensor], prepared: Prepared) -> ClassificationResult:
        """Labels and probabilities, best first."""
        return classify(outputs, self._head, prepared.truncated)

    def asked_windows(self, raw: RawText, options: Any) -> tuple[Prepared, ...]:
        """A run for each label of a call that names some: the text, and that it is about the label."""
        if options is None:
            return self.windows(raw)
        asked: ZeroShotOptions = options
        entailment_of(self._head)
        if not isinstance(raw, str):
            raise InputError("labels of a call take one text, found a pair of texts or token ids")
        return tuple(self.prepare((raw, asked.template.replace("{}", label))) for label in asked.labels)

    def answer_windows(
        self, outputs: Sequence[Mapping[str, Tensor]], windows: Sequence[Prepared], options: Any = None
    ) -> ClassificationResult:
        """The bundle's labels, or those of the call as transformers' pipeline for zero-shot classification has it."""
        if options is None:
            return self.answer(outputs[0], windows[0])
        logits = np.stack([finite_row(output).astype(np.float64) for output in outputs])  # (labels, bundle's labels)
        return zero_shot(logits, self._head, options, any(window.truncated for window in windows))

    @property
    def _head(self) -> Classification:
        return cast(Classification, self.bundle.manifest.postprocessing)


class TextScorer(TextPipeline[ScoreResult]):
    """Gives a text's score, or a pair's."""

    def answer(self, outputs: Mapping[str, Tensor], prepared: Prepared) -> ScoreResult:
        """The program's output as a score."""
        return score_of(outputs, cast(Score, self.bundle.manifest.postprocessing), prepared.truncated)


class TextEmbedder(TextPipeline[EmbeddingResult]):
    """Gives a text's embedding."""

    def answer(self, outputs: Mapping[str, Tensor], prepared: Prepared) -> EmbeddingResult:
        """The program's output as a vector."""
        return embed(outputs, prepared.truncated)


class MaskFiller(TextPipeline[FillResult]):
    """Predicts the masked tokens of a text, each by itself, as transformers' pipeline for fill-mask does."""

    def windows(self, raw: RawText) -> tuple[Prepared, ...]:
        """A run for each mask of the text."""
        if not isinstance(raw, str):
            raise InputError("expected one text, found a pair of texts or token ids")
        found = self._encoder.at_masks(raw, self._head.mask_token, self._head.mask_token_id)
        return tuple(Prepared(each.program, each.inputs, each.truncated) for each in found)

    def prepare(self, raw: RawText) -> Prepared:
        """The first mask."""
        return self.windows(raw)[0]

    def answer(self, outputs: Mapping[str, Tensor], prepared: Prepared) -> FillResult:
        """The answer of a text with one mask."""
        return self.answer_windows([outputs], [prepared])

    def answer_windows(
        self, outputs: Sequence[Mapping[str, Tensor]], windows: Sequence[Prepared], options: Any = None
    ) -> FillResult:
        """The best tokens for each mask."""
        from edgeformer_runtime.tasks.tokens import FillOptions

        asked: FillOptions = options or FillOptions()
        wanted = None if asked.targets is None else sorted({self._encoder.token_of(word) for word in asked.targets})
        fills = []
        for mask, output in enumerate(outputs):
            scores = softmax(finite_row(output).astype(np.float64))  # (V,)
            tokens = np.arange(len(scores)) if wanted is None else np.array(wanted)
            best = tokens[np.argsort(-scores[tokens], kind="stable")[: asked.top]]
            fills += [Fill(int(token), self._encoder.text_of(int(token)), float(scores[token]), mask) for token in best]
        return FillResult(tuple(fills), windows[0].truncated)

    @property
    def _head(self) -> MaskedToken:
        return cast("MaskedToken", self.bundle.manifest.postprocessing)


class ComparedResult:
    """The answers of an `ImageTextComparer`, as a helper process sends them: labels, an embedding or a score."""

    KINDS: ClassVar[dict[type, type]] = {
        Classification: ClassificationResult,
        Embedding: EmbeddingResult,
        Score: ScoreResult,
    }
    """By the record that an answer follows."""

    @classmethod
    def from_frame(cls, header: dict[str, Any], body: bytes, head: Any) -> AnyResult:
        """See `Result.from_frame`."""
        kind: Any = cls.KINDS[type(head)]
        return cast("AnyResult", kind.from_frame(header, body, head))


class ImageTextComparer(ProgramPipeline[Any, Any]):
    """Embeds images and texts into one space, and compares them there.

    An image is what a classifier of images takes, a text is {"text": "..."}. A call without options is answered by the
    embedding; with `labels` an image gets their scores, as of transformers' pipeline zero-shot-image-classification;
    with `query` its cosine to that text.

        model("photo.jpg", labels=["cat", "dog"]).label
        sorted(photos, key=lambda photo: -model(photo, query="a dog on a beach").score)

    A text's embedding is computed once, and kept for later calls.
    """

    def __init__(self, bundle: Bundle, engine: Engine, owned: bool = False) -> None:
        """Use `edgeformer_runtime.load`."""
        from edgeformer_runtime.preprocess.image import ImageEncoder  # Pillow, which texts alone do not need

        super().__init__(bundle, engine, owned)
        spec = cast(ImageTextPreprocessing, bundle.manifest.preprocessing)
        self._encode_image = ImageEncoder(spec.image)
        texts = text_programs(bundle.manifest)
        self._encode_text = TextEncoder(spec.text, tokenizer_json(bundle, spec.text), texts, known=bundle.known).encode
        self._kept: OrderedDict[tuple[str, bytes], dict[str, Tensor]] = OrderedDict()
        self._lock = Lock()

    def prepare(self, raw: RawImage | Mapping[str, str]) -> Prepared:
        """Decode, resize, crop and normalise an image, or encode a text in the smallest bucket that fits."""
        if not isinstance(raw, Mapping):
            return Prepared(IMAGE_PROGRAM, {IMAGE_INPUT: self._encode_image(raw)}, truncated=False)
        encoded = self._encode_text(text_of(raw))
        return Prepared(encoded.program, encoded.inputs, encoded.truncated)

    def raw_from_json(self, stored: Mapping[str, Any]) -> RawImage | Mapping[str, str]:
        """{"image"}: the name of a file of the bundle; or {"text"}."""
        return self.bundle.path(stored["image"]) if "image" in stored else {"text": stored["text"]}

    def options_from_json(self, stored: Mapping[str, Any]) -> ImageTextOptions | None:
        """{"labels"}, of an image that is compared with them."""
        return ImageTextOptions(tuple(stored["labels"])) if "labels" in stored else None

    def asked_windows(self, raw: RawImage | Mapping[str, str], options: Any) -> tuple[Prepared, ...]:
        """The image, and each text that it is compared with."""
        if options is None:
            return self.windows(raw)
        if isinstance(raw, Mapping):
            raise InputError("labels and a query of a call are for images, found a text")
        asked: ImageTextOptions = options
        return (self.prepare(raw), *(self.prepare({"text": text}) for text in asked.texts))

    def outputs_of(self, window: Prepared) -> dict[str, Tensor]:
        """The embedding; of a text that was embedded before the one that was kept."""
        if window.program == IMAGE_PROGRAM:
            return super().outputs_of(window)
        key = window.program, b"".join(tensor.tobytes() for tensor in window.inputs.values())
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
        found = super().outputs_of(window)
        with self._lock:
            self._kept[key] = found
            while len(self._kept) > KEPT_TEXTS:
                self._kept.popitem(last=False)
        return found

    def answer(self, outputs: Mapping[str, Tensor], prepared: Prepared) -> EmbeddingResult:
        """The embedding of one image or text."""
        return embed(outputs, prepared.truncated)

    def answer_windows(
        self, outputs: Sequence[Mapping[str, Tensor]], windows: Sequence[Prepared], options: Any = None
    ) -> Any:
        """An embedding, labels or a cosine: see the class."""
        if options is None:
            return self.answer(outputs[0], windows[0])
        asked: ImageTextOptions = options
        image, *texts = (finite_row(output).astype(np.float64) for output in outputs)  # (D,) each
        cosines = np.stack(texts) @ image  # (texts,)
        truncated = any(window.truncated for window in windows)
        if asked.labels is None:
            return ScoreResult(float(cosines[0]), truncated)
        head = cast(Similarity, self.bundle.manifest.postprocessing)
        logits = (cosines * head.scale + head.bias)[None]
        return classify({"logits": logits}, Classification(asked.labels, head.activation), truncated)


def tokenizer_json(bundle: Bundle, spec: TextPreprocessing) -> str | None:
    """The text of the tokenizer's file, None where the bundle has none."""
    if spec.tokenizer is None:
        return None
    try:
        return bundle.read_bytes(spec.tokenizer).decode("utf-8")
    except UnicodeDecodeError:
        raise BundleError(f"{spec.tokenizer}: expected UTF-8 text") from None
