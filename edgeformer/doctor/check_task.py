"""The checks of tasks: tokenizers against a reference on text from all over Unicode, labels, alignment heads."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from edgeformer.checkpoints import source_index
from edgeformer.doctor.examination import Examination
from edgeformer.doctor.examiner import Finding, error, fine, info, warning
from edgeformer.models.config import read_object
from edgeformer.models.whisper.model import parse_config, with_alignment_heads
from edgeformer_runtime.bundle.manifest import Classification, Manifest, ProgramSpec, TextPreprocessing
from edgeformer_runtime.bundle.specs import TensorSpec, Transcription
from edgeformer_runtime.bundle.vectors import Case
from edgeformer_runtime.decoding.tokenizer import SpeechTokenizer
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.pipelines.results import ACTIVATIONS
from edgeformer_runtime.preprocess.text import TextEncoder
from edgeformer_runtime.preprocess.tokenizer import Tokenizer

CHECK = "tokenizer"
WHY = "each token id selects another row of the embedding table: the answers are for another text"
# No line of the corpus is cut: what is compared is the tokenizer, and not its truncation.
LONGEST = 4096


def check_encoding(examination: Examination) -> Iterable[Finding]:
    """The ids of texts against a reference in Python."""
    reads = examination.bundle.manifest.preprocessing
    spec = cast(TextPreprocessing, getattr(reads, "text", reads))
    if spec.tokenizer is None:
        return [
            info(
                CHECK,
                "the bundle has no tokenizer: callers bring token ids",
                "whether an app's own tokenizer is the checkpoint's cannot be checked here",
            )
        ]
    return _check_encoding(examination.bundle.read_bytes(spec.tokenizer).decode("utf-8"), spec)


def check_decoding(examination: Examination) -> Iterable[Finding]:
    """The text of token ids against the library's own decoder."""
    head = cast(Transcription, examination.bundle.manifest.postprocessing)
    return [_check_decoding(examination.bundle.read_bytes(head.tokenizer).decode("utf-8"), head.tokens.end)]


def _check_encoding(text: str, spec: TextPreprocessing) -> list[Finding]:
    runtime = _Runtime(text, spec)
    found = [_check_refusal(runtime)]
    settings = json.loads(text)
    kind = settings["model"].get("type", "BPE")
    if kind != "WordPiece" or (settings.get("normalizer") or {}).get("type") != "BertNormalizer":
        found.append(
            warning(
                CHECK,
                f"not compared: there is no reference for a {kind} tokenizer of this kind",
                "an app whose tokenizer differs gets other answers, without an error",
                "compare the app's token ids with those of the recorded vectors (edgeformer verify does)",
            )
        )
        return found
    try:
        reference = word_piece_reference(settings)
    except ImportError:
        found.append(
            warning(
                CHECK,
                "not compared: the reference is a part of transformers, which is not installed",
                "an app whose tokenizer differs gets other answers, without an error",
                "pip install transformers, and run doctor again",
            )
        )
        return found
    for number, line in enumerate(LINES):
        expected, given = reference(line), runtime.ids(line)
        if given != expected:
            found.append(
                error(
                    CHECK,
                    f"line {number} of the corpus, {_shown(line)}, gives the ids {_shown(given)}, the reference says"
                    f" {_shown(expected)}",
                    WHY,
                    "take tokenizer.json from the checkpoint again, and convert it again",
                )
            )
            return found
    found.append(fine(CHECK, f"equal to the reference on {len(LINES)} lines of Unicode"))
    return found


def _check_refusal(runtime: _Runtime) -> Finding:
    try:
        runtime.ids(LONE_SURROGATE)
    except InputError:
        return fine(CHECK, "half a surrogate pair is refused")
    return error(CHECK, "half a surrogate pair is taken for text", WHY, "upgrade edgeformer-runtime")


class _Runtime:
    """The ids that the runtime feeds to a program, without their padding."""

    def __init__(self, text: str, spec: TextPreprocessing) -> None:
        inputs = tuple(TensorSpec(name, "int32", (1, LONGEST)) for name in ("input_ids", "attention_mask"))
        self._encoder = TextEncoder(spec, text, (ProgramSpec("corpus", "", "", inputs, ()),))

    def ids(self, line: str) -> list[int]:
        inputs = self._encoder.encode(line).inputs
        kept: list[int] = inputs["input_ids"][inputs["attention_mask"] == 1].tolist()
        return kept


def word_piece_reference(settings: dict[str, Any]) -> Callable[[str], list[int]]:
    """A function from a line to its ids: BERT's tokenizer in Python, as transformers keeps it, with the same settings.

    Args:
        settings: the JSON of a tokenizers file with a WordPiece model and a BertNormalizer.

    Raises:
        ImportError: transformers is not installed, or no longer has it.
    """
    from transformers.models.bert import tokenization_bert_legacy

    make: Any = tokenization_bert_legacy.BertTokenizerLegacy
    vocabulary: dict[str, int] = settings["model"]["vocab"]
    normalizer = settings["normalizer"]
    added = {token["content"] for token in settings.get("added_tokens") or []}
    roles = {"sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vocab.txt"
        # Ids are the numbers of lines; a gap gets a line that no text can be.
        by_id = {index: token for token, index in vocabulary.items()}
        lines = [by_id.get(index, f"\x00{index}") for index in range(max(by_id) + 1)]
        file.write_text("\n".join(lines), encoding="utf-8")
        tokenizer = make(
            str(file),
            do_lower_case=normalizer["lowercase"],
            tokenize_chinese_chars=normalizer["handle_chinese_chars"],
            strip_accents=normalizer["strip_accents"],
            unk_token=settings["model"]["unk_token"],
            # Only tokens that were added are found whole inside of text.
            **{role: token if token in added else None for role, token in roles.items()},
        )
    tokenizer.basic_tokenizer = _without_composing(tokenizer.basic_tokenizer)
    start, end = _frame(settings)

    def ids(line: str) -> list[int]:
        inner: list[int] = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(line, split_special_tokens=not added))
        return [*start, *inner, *end]

    return ids


def _without_composing(basic: Any) -> Any:
    """The reference's splitter into words, as it is where it strips accents: it composes no Unicode (NFC) first.

    BERT's own code never did, nor do the tokenizers that people use; only this class of transformers does, and it tells
    a composed letter from a decomposed one where a cased vocabulary does not.
    """
    from transformers.models.bert import tokenization_bert_legacy as legacy

    def words(text: str, never_split: Any = None) -> list[str]:
        kept = basic.never_split.union(set(never_split or ()))
        text = basic._clean_text(text)
        if basic.tokenize_chinese_chars:
            text = basic._tokenize_chinese_chars(text)
        pieces: list[str] = []
        for word in legacy.whitespace_tokenize(text):
            if word not in kept:
                word = word.lower() if basic.do_lower_case else word
                if basic.strip_accents or (basic.do_lower_case and basic.strip_accents is None):
                    word = basic._run_strip_accents(word)
            pieces += basic._run_split_on_punc(word, kept)
        found: list[str] = legacy.whitespace_tokenize(" ".join(pieces))
        return found

    return SimpleNamespace(tokenize=words, never_split=basic.never_split, do_lower_case=basic.do_lower_case)


def _frame(settings: dict[str, Any]) -> tuple[list[int], list[int]]:
    """The ids that stand before and behind every text; a prompt stands before it too."""
    ids = list(Tokenizer(json.dumps(settings), "tokenizer.json").encode("").ids)
    pieces = (settings.get("post_processor") or {}).get("single")
    before = 1 if pieces is None else next(index for index, piece in enumerate(pieces) if "Sequence" in piece)
    return ids[:before], ids[before:]


def _check_decoding(text: str, end: int) -> Finding:
    """The runtime reads bytes of tokens itself; the library's own decoder is the reference."""
    runtime, library = SpeechTokenizer(text, end), Tokenizer(text, "the tokenizer")
    for number, line in enumerate(LINES):
        ids = runtime.tokens(line)
        given, expected = runtime.text(ids), library.decode(ids)
        if given != expected:
            return error(
                CHECK,
                f"line {number} of the corpus reads {_shown(given)}, the reference says {_shown(expected)}",
                "transcripts have other letters than the model meant",
                "take tokenizer.json from the checkpoint again, and convert it again",
            )
    return fine(CHECK, f"reads {len(LINES)} lines of Unicode as the reference does")


def _shown(value: object) -> str:
    """A value as ASCII, not too long for a line."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


# Check: the labels stand in the order of the recorded logits.


LABELS = "labels"
# Recorded logits give the recorded scores but for the rounding of float32.
TOLERANCE = 1e-4
LABELS_WHY = "the app would show another label than the model means"
LABELS_DO = "put the labels back into the order of the checkpoint's id2label, or convert it again with --labels"


def check_labels(examination: Examination) -> Iterable[Finding]:
    """Recorded logits under the manifest's labels against recorded answers; no engine takes part."""
    head = cast(Classification, examination.bundle.manifest.postprocessing)
    if not examination.cases:
        return []
    if all(label == f"LABEL_{index}" for index, label in enumerate(head.labels)):
        return [
            warning(
                LABELS,
                f"the {len(head.labels)} labels are LABEL_0, LABEL_1, ...",
                "the checkpoint does not say what its classes are called, and an app would show these names",
                "convert it again with --labels FILE",
            )
        ]
    moved: dict[str, set[str]] = {}
    for case in examination.cases:
        for label, candidates in _moved(case, head).items():
            moved[label] = moved[label] & candidates if label in moved else candidates
    if not moved:
        return [fine(LABELS, f"{len(head.labels)} labels, in the order of the recorded logits")]
    pair = sorted(moved)
    if len(pair) == 2 and all(moved[pair[i]] == {pair[1 - i]} for i in (0, 1)):
        return [
            error(
                LABELS,
                f"the scores are right, but the labels {pair[0]!r} and {pair[1]!r} are exchanged",
                LABELS_WHY,
                LABELS_DO,
            )
        ]
    shown = ", ".join(map(repr, pair[:6])) + (", ..." if len(pair) > 6 else "")
    return [error(LABELS, f"{len(pair)} labels do not belong to their logits: {shown}", LABELS_WHY, LABELS_DO)]


def _moved(case: Case, head: Classification) -> dict[str, set[str]]:
    """Labels whose score is not the recorded one, each with the labels whose recorded score it has."""
    (logits,) = case.outputs.values()
    scores = dict(zip(head.labels, ACTIVATIONS[head.activation](logits.ravel().astype(np.float64)), strict=True))
    expected = dict(zip(case.expected["labels"], case.expected["scores"], strict=True))
    return {
        label: {other for other, recorded in expected.items() if abs(recorded - score) <= TOLERANCE}
        for label, score in scores.items()
        if abs(expected.get(label, np.inf) - score) > TOLERANCE
    }


# Check: a speech model's alignment heads, which times of words come from, are heads that the decoder has.


ALIGNMENT_HEADS = "alignment_heads"
HEADS_WHY = "times of words come from these heads alone: others give times that are off or jump"
HEADS_DO = "measure which heads align, name them in generation_config.json and convert again"


def check_alignment_heads(examination: Examination) -> Iterable[Finding]:
    """How many there are, and where the source is at hand, which of those that it states were dropped."""
    manifest = examination.bundle.manifest
    head = cast(Transcription, manifest.postprocessing)
    available = head.layers * head.heads
    if head.alignment_heads > available:
        yield error(
            ALIGNMENT_HEADS,
            f"{head.alignment_heads} alignment heads, but the decoder's {head.layers} layers have {available} heads",
            HEADS_WHY,
            "convert the checkpoint again",
        )
        return
    if head.alignment_heads == (head.layers - head.layers // 2) * head.heads:
        yield info(
            ALIGNMENT_HEADS,
            f"{head.alignment_heads} alignment heads: as many as the upper half of the {head.layers} layers has",
            "that half stands in where a checkpoint states no heads that it has; times of words are then rougher",
            HEADS_DO,
        )
    else:
        yield fine(ALIGNMENT_HEADS, f"{head.alignment_heads} of the decoder's {available} heads")
    for note in _dropped(manifest):
        yield warning(ALIGNMENT_HEADS, f"the checkpoint's list does not fit it: {note}", HEADS_WHY, HEADS_DO)


def _dropped(manifest: Manifest) -> tuple[str, ...]:
    """What conversion said of heads that the decoder does not have; nothing where the source is not at hand."""
    try:
        folder = source_index.find(manifest.source)
        stated = read_object(folder / "generation_config.json").get("alignment_heads") or []
        config = parse_config(read_object(folder / "config.json"))
        return with_alignment_heads(config, [(int(layer), int(number)) for layer, number in stated])[1]
    except (InputError, TypeError, ValueError):
        return ()


# Lines of text on which tokenizers are compared: scripts, marks, controls and what people paste.
#
# All characters are of Unicode 9 or older, so that libraries with tables of different age agree on them. No word in
# capitals ends with a sigma, and no code point is unassigned: there the original BERT, whose Python knows the end of a
# word and drops what is unassigned, and the `tokenizers` library have always differed.


LINES: tuple[str, ...] = (
    "",
    " ",
    "turn the lights off",
    "  leading,   inner\tand trailing spaces  ",
    "How much is 3.14 * 50 % of $1,299.99? #1 @home a_b c-d e/f",
    "don't can't it's we'll I'm they've o'clock",
    "UPPER Title camelCase SNAKE_CASE kebab-case v1.2.3-rc4",
    "https://example.org/path?q=1&r=%20#top name@example.org C:\\temp\\x",
    "na\u00efve caf\u00e9 d\u00e9j\u00e0 vu \u00dcn\u00efc\u00f6d\u00e9 \u00c5ngstr\u00f6m",
    "nai\u0308ve cafe\u0301 U\u0308ni\u0308co\u0308de\u0301 a\u0301\u0323 a\u0323\u0301",
    "Stra\u00dfe \u0130stanbul \u0131stanbul \ufb01ne \ufb00ects \u01c5 \u1e9e",
    "\u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2 \u039f\u0394\u039f\u0399 \u03ac\u03bb\u03c6\u03b1",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u0401\u043b\u043a\u0430 \u0439 \u0438\u0306",
    "\u05e9\u05dc\u05d5\u05dd \u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd",
    "\u0645\u0631\u062d\u0628\u0627 \u0645\u064e\u0631\u0652\u062d\u064e\u0628\u064b\u0627 \u0661\u0662\u0663",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0995\u09cd\u09b7 \u0ba4\u0bcd\u0bb0\u0bc1",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01",
    "\u1780\u1798\u17d2\u1796\u17bb\u1787\u17b6 \u1019\u103c\u1014\u103a\u1019\u102c",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01 hello\u4e16\u754cworld \u3400 \U00020000",
    "\u6f22\u5b57\u304b\u306a\u4ea4\u3058\u308a\u6587 \u30ab\u30bf\u30ab\u30ca \uff76\uff80\uff76\uff85",
    "\ud55c\uad6d\uc5b4 \u1112\u1161\u11ab\u1100\u116e\u11a8",
    "\U0001f600\U0001f44d\U0001f3fd",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1eb\U0001f1f7 \u2615\ufe0f 1\ufe0f\u20e3",
    "\u201cquoted\u201d \u2018single\u2019 \u00abguillemets\u00bb \u2013 \u2014 \u2026 \u2030 \u00bf \u00a1",
    "\u20ac \u00a3 \u00a5 \u00a9 \u00ae \u2122 \u00b0 \u00b1 \u00d7 \u00f7 \u2260 \u221e \u2192 \u2713",
    "\uff21\uff22\uff23\uff11\uff12\uff13 \u00bd \u00b2 \u2462 \u2167 \u212b \u2126",
    "zero\u200bwidth non\u200cjoiner jo\u200diner soft\u00adhyphen \u2060word \ufefforder",
    "nul\u0000 bell\u0007 escape\u001b delete\u007f next\u0085 line\u2028 paragraph\u2029",
    "\u202eright to left\u202c \u2066isolate\u2069 \u200emark\u200f",
    "spaces\u00a0of\u2007many\u2009kinds\u202fand\u3000widths\u1680here",
    "line\nbreaks\r\nand\ttabs\x0b\x0c",
    "private \ue000 replacement \ufffd",
    "[CLS] inside [SEP] text [MASK]ed [PAD][UNK] [sep] <|endoftext|>",
    "supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis",
    "a" * 100,
    "b" * 101,
    "e\u0301" * 60,
    "\u0301\u0302 marks first",
    "!?...---___***" * 4,
    "the same words " * 40,
)

LONE_SURROGATE = "half a pair \ud83d here"
"""What no tokenizer can take: it has no UTF-8, and an app must get an error and not another text."""
