"""Texts of many scripts, tokenizers for them, and a formula as a model, for tests of answers that are places.

`python -m tests.runtime.pipelines.token_cases spans` writes what transformers' pipeline for question answering makes of
them; it is a part of version 4 (4.57 was taken). `... entities` does so for token classification, a part of version 5,
too.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

LENGTHS = (48, 384)
"""Positions of the models; stride is what transformers takes by default."""
LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC")
AGGREGATIONS = ("none", "simple", "first", "average", "max")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SAID = (
    "the rhine rises in swiss alps and flows past basel , strasbourg cologne . it reaches north sea near rotterdam "
    "after kilometres where does who was when how long is what caf\u00e9 cafe na\u00efve Zo\u00eb Zoe Paris"
)
WORDS = tuple(SAID.split())
LETTERS = [
    *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,?!'-\u00e9\u00eb\u00fc\u00df\u0301\u0308",
    *map(chr, range(0x5D0, 0x5EB)), *map(chr, range(0x621, 0x64B)), *map(chr, range(0x4E00, 0x4E20)),
    *"\u5317\u4eac\u4e2d\u56fd",
    *"\U0001f600\U0001f44d\U0001f3fd\u200d\u2764\ufe0f", *"\uac00\u1100\u1161\u0e01\u0e33\u0928\u092e",
]  # fmt: skip
PARIS = "The Rhine rises in the Swiss Alps and flows past Basel, Strasbourg and Cologne. It reaches the North Sea."


def long_text(words: int) -> str:
    """Words of all the scripts, some with marks, drawn."""
    drawn = random.Random(words)
    odd = (
        "caf\u00e9", "cafe\u0301", "Zoe\u0308", "\U0001f600\U0001f44d\U0001f3fd", "\u5317\u4eac",
        "\u05e9\u05dc\u05d5\u05dd", "\u0645\u064e\u0631\u062d\u0628\u0627", "O'Neill-Smith", "unknowable\u00a0word",
        "zero\u200bwidth", "\ud55c\uad6d\uc5b4", "e\u0301\u0323x",
    )  # fmt: skip
    return " ".join(drawn.choice(odd) if drawn.random() < 0.2 else drawn.choice(WORDS) for _ in range(words))


TEXTS = (
    PARIS,
    "na\u00efve Zo\u00eb paid 3 \u20ac in the cafe\u0301 \U0001f600\U0001f44d\U0001f3fd, in Cologne\u2764\ufe0f!",
    "Zoe\u0308 met Jose\u0301 \u2014 \u201cquoted\u201d e\u0301\u0323 \u0301first",
    "\u5317\u4eac\u5728\u4e2d\u56fd\u3002 hello\u4e2d\u56fdworld",
    "\u05e9\u05dc\u05d5\u05dd \u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd "
    "\u0645\u064e\u0631\u0652\u062d\u064e\u0628\u064b\u0627 \u202eright\u202c left",
    "tab\there\nnew line\u0000nul \u200bzero width\u00a0no break soft\u00adhyphen \ufffd end",
    "inside [SEP] text and [MASK]ed words, Basel basel BASEL basel",
    "\ud55c\uad6d\uc5b4 \u1112\u1161\u11ab \u0e2a\u0e33 \u0928\u092e\u0938\u094d\u0924\u0947 "
    "\u0130stanbul Stra\u00dfe \ufb01ne",
    "nothing",
    long_text(60),
    long_text(400),
    long_text(3000),
)


def texts_for(length: int) -> tuple[str, ...]:
    """The longest takes hundreds of windows of a short model, and seconds."""
    return TEXTS if length > LENGTHS[0] else TEXTS[:-1]


QUESTIONS = ("Where does the Rhine rise?", "\u5317\u4eac? who was Zoe\u0308 \U0001f600")


def tokenizer(cased: bool) -> Tokenizer:
    """BERT's WordPiece, which keeps case and marks or takes them off."""
    pieces = dict.fromkeys([*SPECIAL, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)])
    made = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]"))
    made.add_special_tokens([*SPECIAL])
    made.normalizer = normalizers.BertNormalizer(lowercase=not cased)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return made


def logits(ids: NDArray[Any], width: int) -> NDArray[np.float32]:
    """(S,) token ids to (S, width): each token's by itself and its position, as irregular as a sine."""
    places = np.arange(len(ids))[:, None]
    return (4 * np.sin(ids[:, None] * 1.7 + places * 0.37 + np.arange(width) * 2.1)).astype(np.float32)


def spans_of(cased: bool, length: int) -> list[list[dict[str, Any]]]:
    """Answers to every question and text in every way of asking, by transformers."""
    import torch
    from transformers import BertConfig, BertForQuestionAnswering, QuestionAnsweringPipeline

    class Formula(BertForQuestionAnswering):
        def forward(self, input_ids: Any, **_: Any) -> Any:
            found = torch.from_numpy(logits(input_ids[0].numpy(), 2))[None]
            return (found[..., 0], found[..., 1])

    pipeline = QuestionAnsweringPipeline(model=Formula(_config(BertConfig)), tokenizer=_transformers_tokenizer(cased))
    found = []
    for text in texts_for(length):
        for question in QUESTIONS:
            for options in WAYS:
                given = pipeline(question=question, context=text, max_seq_len=length, **options)
                answers = given if isinstance(given, list) else [given]
                found.append([[each["start"], each["end"], each["score"]] for each in answers])
    return found


WAYS: tuple[dict[str, Any], ...] = (
    {"top_k": 1},
    {"top_k": 5, "handle_impossible_answer": True},
    {"top_k": 3, "max_answer_len": 4},
)
"""As transformers spells them."""


def entities_of(cased: bool, length: int) -> list[list[list[Any]]]:
    """Entities of every text under every aggregation, by transformers; windows where it has some."""
    import torch
    from transformers import BertConfig, BertForTokenClassification, TokenClassificationPipeline

    class Formula(BertForTokenClassification):
        def forward(self, input_ids: Any, **_: Any) -> Any:
            rows = [torch.from_numpy(logits(row.numpy(), len(LABELS))) for row in input_ids]
            return {"logits": torch.stack(rows)}

    config = _config(BertConfig, id2label=dict(enumerate(LABELS)))
    tokens = _transformers_tokenizer(cased)
    tokens.model_max_length = length
    pipeline = TokenClassificationPipeline(model=Formula(config), tokenizer=tokens)
    found = []
    for text in TEXTS[:-1]:
        for aggregation in AGGREGATIONS:
            stride = {} if aggregation == "none" else {"stride": min(length // 2, 128)}
            given = pipeline(text, aggregation_strategy=aggregation, **stride)
            key = "entity" if aggregation == "none" else "entity_group"
            found.append([[each["start"], each["end"], each[key], float(each["score"])] for each in given])
    return found


def _config(make: Any, **more: Any) -> Any:
    return make(hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4, vocab_size=512, **more)


def _transformers_tokenizer(cased: bool) -> Any:
    from transformers import BertTokenizerFast

    with tempfile.TemporaryDirectory() as folder:
        made = tokenizer(cased)
        made.save(f"{folder}/tokenizer.json")
        pieces = sorted(made.get_vocab().items(), key=lambda item: item[1])
        Path(folder, "vocab.txt").write_text("\n".join(piece for piece, _ in pieces), encoding="utf-8")
        Path(folder, "tokenizer_config.json").write_text(
            json.dumps({"do_lower_case": not cased, "model_max_length": 512}), encoding="utf-8"
        )
        return BertTokenizerFast.from_pretrained(folder)


RECORDED = Path(__file__).parent


def main() -> None:
    import transformers

    what = sys.argv[1]
    make = {"spans": spans_of, "entities": entities_of}[what]
    cases = [
        {"cased": cased, "length": length, "found": make(cased, length)}
        for cased in (False, True)
        for length in LENGTHS
    ]
    document = {"made_by": f"transformers {transformers.__version__}", "cases": cases}
    rounded = json.loads(json.dumps(document), parse_float=lambda number: float(f"{float(number):.7g}"))
    (RECORDED / f"{what}.json").write_text(json.dumps(rounded, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
