"""Image pipelines: classification, embedding, and comparison with texts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.specs import Classification, Embedding, ImagePreprocessing, Score
from edgeformer_runtime.engines.base import Engine, Tensor
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.pipelines.program import Prepared, ProgramPipeline
from edgeformer_runtime.pipelines.results import (
    ClassificationResult,
    EmbeddingResult,
    ProgramResult,
    ScoreResult,
    classify,
    embed,
    finite_row,
)
from edgeformer_runtime.preprocess.image import ImageEncoder, RawImage
from edgeformer_runtime.tasks.image_text import (
    ImageTextOptions,
    ImageTextPreprocessing,
    Similarity,
    text_of,
    text_programs,
)
from edgeformer_runtime.tasks.programs import IMAGE_INPUT, IMAGE_PROGRAM

if TYPE_CHECKING:
    from edgeformer_runtime.pipelines.results import Result

KEPT_TEXTS = 4096
"""Embeddings of texts that a pipeline keeps, a few kB each; the one that was asked for the longest ago makes room."""

Answer = TypeVar("Answer", bound=ProgramResult)


class ImagePipeline(ProgramPipeline[RawImage, Answer]):
    """Answers an image: a path, a file's bytes, a Pillow image or an array."""

    def __init__(self, bundle: Bundle, engine: Engine, owned: bool = False) -> None:
        """Use `edgeformer_runtime.load`."""
        super().__init__(bundle, engine, owned)
        self._encode = ImageEncoder(cast(ImagePreprocessing, bundle.manifest.preprocessing))

    def prepare(self, raw: RawImage) -> Prepared:
        """Decode, resize, crop and normalise one image."""
        return Prepared(IMAGE_PROGRAM, {IMAGE_INPUT: self._encode(raw)}, truncated=False)

    def raw_from_json(self, stored: Mapping[str, Any]) -> RawImage:
        """{"image"}: the name of a file of the bundle."""
        return self.bundle.path(stored["image"])


class ImageClassifier(ImagePipeline[ClassificationResult]):
    """Scores every label of the bundle for an image."""

    def answer(self, outputs: Mapping[str, Tensor], prepared: Prepared) -> ClassificationResult:
        """Labels and probabilities, best first."""
        return classify(outputs, cast(Classification, self.bundle.manifest.postprocessing), prepared.truncated)


class ImageEmbedder(ImagePipeline[EmbeddingResult]):
    """Gives an image's embedding."""

    def answer(self, outputs: Mapping[str, Tensor], prepared: Prepared) -> EmbeddingResult:
        """The program's output."""
        return embed(outputs, prepared.truncated)


class ComparedResult:
    """The answers of an `ImageTextComparer`, as a helper process sends them."""

    @classmethod
    def from_frame(cls, header: dict[str, Any], body: bytes, head: Any) -> Result:
        """See `Result.from_frame`: labels, an embedding or a score, by the record that the answer follows."""
        kinds = {Classification: ClassificationResult, Embedding: EmbeddingResult, Score: ScoreResult}
        kind: Any = kinds[type(head)]
        return cast("Result", kind.from_frame(header, body, head))


class ImageTextComparer(ProgramPipeline[RawImage | Mapping[str, str], Any]):
    """Embeds images and texts into one space, and compares them there.

    An image is what `ImagePipeline` takes, a text is {"text": "..."}. Of a call without options the answer is the
    embedding; with `labels` an image gets their scores, as of transformers' pipeline zero-shot-image-classification;
    with `query` its cosine to that text.

        model("photo.jpg", labels=["cat", "dog"]).label
        sorted(photos, key=lambda photo: -model(photo, query="a dog on a beach").score)

    A text's embedding is computed once, and kept for later calls.
    """

    def __init__(self, bundle: Bundle, engine: Engine, owned: bool = False) -> None:
        """Use `edgeformer_runtime.load`."""
        from edgeformer_runtime.pipelines.text import tokenizer_json
        from edgeformer_runtime.preprocess.text import TextEncoder

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
