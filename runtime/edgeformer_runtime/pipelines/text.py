"""Text pipelines: classification, scoring and embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import Classification, Score, TextPreprocessing
from edgeformer_runtime.engines.base import Engine, Tensor
from edgeformer_runtime.errors import BundleError
from edgeformer_runtime.pipelines.program import Prepared, ProgramPipeline, Result
from edgeformer_runtime.pipelines.results import (
    ClassificationResult,
    EmbeddingResult,
    ScoreResult,
    classify,
    embed,
    score_of,
)
from edgeformer_runtime.preprocess.text import RawText, TextEncoder


class TextPipeline(ProgramPipeline[RawText, Result]):
    """What text pipelines share: the encoder, and what one input looks like."""

    def __init__(self, bundle: Bundle, engine: Engine, owned: bool = False) -> None:
        """Use `edgeformer_runtime.load`."""
        super().__init__(bundle, engine, owned)
        spec = cast(TextPreprocessing, bundle.manifest.preprocessing)
        self.encoder = self.make_encoder(bundle, spec)

    def make_encoder(self, bundle: Bundle, spec: TextPreprocessing) -> TextEncoder:
        """What makes tensors of a text."""
        return TextEncoder(spec, tokenizer_json(bundle, spec), bundle.manifest.programs, known=bundle.known)

    def prepare(self, raw: RawText) -> Prepared:
        """Encode a text, a pair of texts or token ids in the smallest bucket that fits."""
        encoded = self.encoder.encode(raw)
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
        return classify(outputs, cast(Classification, self.bundle.manifest.postprocessing), prepared.truncated)


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


def tokenizer_json(bundle: Bundle, spec: TextPreprocessing) -> str | None:
    """The text of the tokenizer's file, None where the bundle has none."""
    if spec.tokenizer is None:
        return None
    try:
        return bundle.read_bytes(spec.tokenizer).decode("utf-8")
    except UnicodeDecodeError:
        raise BundleError(f"{spec.tokenizer}: expected UTF-8 text") from None
