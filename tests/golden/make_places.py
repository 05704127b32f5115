"""Writes places.json: where tokens stand in texts, and answers that are places, from logits that are a formula."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Tokenizer

from edgeformer_runtime import __version__
from edgeformer_runtime.bundle.manifest import Classification, TextPreprocessing
from edgeformer_runtime.pipelines.results import ClassificationResult, FillResult
from edgeformer_runtime.pipelines.tokens import EntityResult, SpanResult
from edgeformer_runtime.tasks.programs import ZeroShotOptions
from edgeformer_runtime.tasks.tokens import (
    AGGREGATIONS,
    EntityOptions,
    FillOptions,
    SpanExtraction,
    SpanOptions,
    TokenLabels,
)
from tests.golden import make_wordpiece
from tests.golden import tiny_manifests as tiny
from tests.golden.golden_files import FOLDER, document
from tests.golden.tiny_bundles import ENTITIES, FILLS, INFERENCE, SPANS, formula_pipeline, seal, zipped

LENGTHS = (24, 48)
STRIDE = 16
LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC")
QUESTIONS = ("who?", "\u5317 Zoe\u0308?")
LONG = " ".join((*make_wordpiece.LINES[2:7], *make_wordpiece.LINES[8:18], "Caf\u00e9 caf\u00e9 CAF\u00c9 cafe\u0301"))
TEXTS = (*(make_wordpiece.LINES[index] for index in (3, 4, 5, 6, 8, 10, 11, 13, 16, 17, 24)), LONG)
SPEC = TextPreprocessing("tokenizer.json", 0)
VOCABULARY = 680
"""More than the tokenizer has, as public models do."""
MASKED = (
    "[MASK]",
    "turn the lights [MASK] please",
    "na\u00efve cafe\u0301 [MASK] \U0001f600\U0001f44d\U0001f3fd",
    "\u05e9\u05dc\u05d5\u05dd [MASK] \u4f60\u597d\u5317\u4eac[MASK]\u3002",
    "[mask] [MASK]stop-me",
    f"[MASK] {LONG}",
)


def files() -> dict[str, bytes]:
    """The golden file by name."""
    words = json.loads((FOLDER / "wordpiece.json").read_text(encoding="utf-8"))
    made_by = f"tokenizers {tokenizers.__version__}, edgeformer-runtime {__version__}"
    return {"places.json": document(made_by, [*_tokens(words), *_answers()]), **_bundles()}


def _tokens(words: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Of each text of wordpiece.json all tokens, whatever is cut there."""
    seen = set()
    library: dict[str, Tokenizer] = {}
    for index, case in enumerate(words["cases"]):
        key = (case["tokenizer"], case["text"], case["pair"])
        if key in seen or case["tokenizer"] not in ("uncased", "accents", "stripped", "added"):
            continue
        seen.add(key)
        name = case["tokenizer"]
        library.setdefault(name, Tokenizer.from_str(words["tokenizers"][name])).no_truncation()
        found = library[name].encode(case["text"], case["pair"])
        texts = [-1 if number is None else number for number in found.sequence_ids]
        given = [case["text"], case["pair"] or ""]
        yield {
            "kind": "tokens",
            "of": index,
            "starts": [start for start, _ in found.offsets],
            "ends": [end for _, end in found.offsets],
            "texts": texts,
            # The first token of each word; the numbers of words are a reader's own.
            "begins": [
                int(
                    place == 0 or (texts[place - 1], found.word_ids[place - 1]) != (texts[place], found.word_ids[place])
                )
                for place in range(len(texts))
            ],
            "continues": [
                int(number >= 0 and piece != "[UNK]" and len(piece) != len(given[number][start:end]))
                for piece, number, (start, end) in zip(
                    map(library[name].id_to_token, found.ids), texts, found.offsets, strict=True
                )
            ],
        }


def _answers() -> Iterator[dict[str, Any]]:
    """Of pipelines whose answers tests/runtime/pipelines holds to transformers' own."""
    with tempfile.TemporaryDirectory() as place:
        for name, data in _bundles().items():
            Path(place, name).write_bytes(data)
        yield from _spans(formula_pipeline(Path(place, SPANS)))
        yield from _entities(formula_pipeline(Path(place, ENTITIES)))
        yield from _fills(formula_pipeline(Path(place, FILLS)))
        yield from _labels(formula_pipeline(Path(place, INFERENCE)))


def _spans(pipeline: Any) -> Iterator[dict[str, Any]]:
    for text in TEXTS:
        for question in QUESTIONS:
            for options in (SpanOptions(), SpanOptions(5, unanswerable=True), SpanOptions(3, max_answer_tokens=4)):
                found: SpanResult = pipeline.run((question, text), options)
                yield {
                    "kind": "spans",
                    "question": question,
                    "context": text,
                    "windows": [window.program for window in pipeline.windows((question, text))],
                    **vars(options),
                    "answers": [[each.start, each.end, round(each.score, 9)] for each in found.answers],
                }


def _entities(pipeline: Any) -> Iterator[dict[str, Any]]:
    for text in TEXTS:
        for aggregation in AGGREGATIONS:
            found: EntityResult = pipeline.run(text, EntityOptions(aggregation))
            yield {
                "kind": "entities",
                "text": text,
                "aggregation": aggregation,
                "entities": [[each.start, each.end, each.label, round(each.score, 9)] for each in found.entities],
            }


def _fills(pipeline: Any) -> Iterator[dict[str, Any]]:
    for text in MASKED:
        for options in (FillOptions(), FillOptions(2), FillOptions(3, ("inside", "##s", "\u4f60\u597d", "and", "and"))):
            found: FillResult = pipeline.run(text, options)
            yield {
                "kind": "fills",
                "text": text,
                "top": options.top,
                "targets": options.targets,
                "truncated": found.truncated,
                "fills": [[each.token, each.text, each.mask, round(each.score, 9)] for each in found.fills],
            }


def _labels(pipeline: Any) -> Iterator[dict[str, Any]]:
    """Labels of a call, whose hypotheses are pairs with the text."""
    for text in (TEXTS[0], TEXTS[4], "on"):
        for options in (
            ZeroShotOptions(("light", "\u4f60\u597d", "cafe\u0301 \U0001f44d\U0001f3fd")),
            ZeroShotOptions(("a", "b"), "{}?", multi_label=True),
        ):
            found: ClassificationResult = pipeline.run(text, options)
            yield {
                "kind": "labels",
                "text": text,
                **vars(options),
                "truncated": found.truncated,
                "found": [[label, round(score, 9)] for label, score in zip(found.labels, found.scores, strict=True)],
            }


def _bundles() -> dict[str, bytes]:
    """Bundles with the tokenizer that has tokens of each kind."""
    words = json.loads((FOLDER / "wordpiece.json").read_text(encoding="utf-8"))

    def make(task: str, head: Any, name: str) -> bytes:
        def fill(folder: Path) -> None:
            (folder / "tokenizer.json").write_text(words["tokenizers"]["added"], encoding="utf-8")
            seal(folder, replace(tiny.tokens(task, head, LENGTHS), name=name, preprocessing=SPEC))

        return zipped(fill)

    def masks(folder: Path) -> None:
        (folder / "tokenizer.json").write_text(words["tokenizers"]["added"], encoding="utf-8")
        seal(folder, replace(tiny.fills(VOCABULARY, 4, LENGTHS), name="places-fills"))

    def inference(folder: Path) -> None:
        (folder / "tokenizer.json").write_text(words["tokenizers"]["added"], encoding="utf-8")
        head = Classification(("contradiction", "neutral", "Entailment"), "softmax")
        seal(folder, replace(tiny.text(), name="places-labels", preprocessing=SPEC, postprocessing=head))

    return {
        INFERENCE: zipped(inference),
        FILLS: zipped(masks),
        SPANS: make("question-answering", SpanExtraction(STRIDE, 15), "places-spans"),
        ENTITIES: make("token-classification", TokenLabels(LABELS, ("O",), "simple", STRIDE), "places-entities"),
    }
