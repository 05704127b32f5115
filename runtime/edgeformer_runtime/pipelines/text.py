"""Text pipelines: classification, scoring, embedding and masked tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import Classification, Score, TextPreprocessing
from edgeformer_runtime.engines.base import Engine, Tensor
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
from edgeformer_runtime.tasks.programs import ZeroShotOptions, entailment_of

if TYPE_CHECKING:
    from edgeformer_runtime.tasks.tokens import FillOptions, MaskedToken


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


def tokenizer_json(bundle: Bundle, spec: TextPreprocessing) -> str | None:
    """The text of the tokenizer's file, None where the bundle has none."""
    if spec.tokenizer is None:
        return None
    try:
        return bundle.read_bytes(spec.tokenizer).decode("utf-8")
    except UnicodeDecodeError:
        raise BundleError(f"{spec.tokenizer}: expected UTF-8 text") from None
