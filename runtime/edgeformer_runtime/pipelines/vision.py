"""Image pipelines: classification and embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.specs import Classification, ImagePreprocessing
from edgeformer_runtime.engines.base import Engine, Tensor
from edgeformer_runtime.pipelines.program import Prepared, ProgramPipeline
from edgeformer_runtime.pipelines.results import ClassificationResult, EmbeddingResult, ProgramResult, classify, embed
from edgeformer_runtime.preprocess.image import ImageEncoder, RawImage
from edgeformer_runtime.tasks.programs import IMAGE_INPUT, IMAGE_PROGRAM

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
