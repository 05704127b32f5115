"""Check: the runtime's tokenizer gives what the reference gives, on text from all over Unicode."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edgeformer.doctor.corpus import LINES, LONE_SURROGATE
from edgeformer.doctor.examination import Examination
from edgeformer.doctor.finding import Finding, error, fine, info, warning
from edgeformer_runtime.bundle.manifest import ProgramSpec, TextPreprocessing
from edgeformer_runtime.bundle.specs import Transcription
from edgeformer_runtime.bundle.tensor_spec import TensorSpec
from edgeformer_runtime.decoding.tokenizer import SpeechTokenizer
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.preprocess.text import TextEncoder
from edgeformer_runtime.preprocess.tokenizer import Tokenizer

CHECK = "tokenizer"
WHY = "each token id selects another row of the embedding table: the answers are for another text"
# No line of the corpus is cut: what is compared is the tokenizer, and not its truncation.
LONGEST = 4096


def check_tokenizer(examination: Examination) -> Iterable[Finding]:
    """Of text the ids against a reference in Python, of speech the text of ids against the library's own decoder."""
    manifest = examination.bundle.manifest
    if isinstance(manifest.preprocessing, TextPreprocessing):
        if manifest.preprocessing.tokenizer is None:
            return [
                info(
                    CHECK,
                    "the bundle has no tokenizer: callers bring token ids",
                    "whether an app's own tokenizer is the checkpoint's cannot be checked here",
                )
            ]
        text = examination.bundle.read_bytes(manifest.preprocessing.tokenizer).decode("utf-8")
        return _check_encoding(text, manifest.preprocessing)
    if isinstance(manifest.postprocessing, Transcription):
        text = examination.bundle.read_bytes(manifest.postprocessing.tokenizer).decode("utf-8")
        return [_check_decoding(text, manifest.postprocessing.tokens.end)]
    return []


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
