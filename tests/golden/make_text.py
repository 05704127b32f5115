"""Writes text.json: WordPiece ids and class scores from transformers, for the tests of every language."""

from __future__ import annotations

import json

import torch
import transformers

from edgeformer.zoo import ZOO

MODEL = "clinc150-mobilebert"
SEQ_LEN = 32

INPUTS: tuple[tuple[str, str | None], ...] = (
    ("turn the lights off in the kitchen", None),
    ("How much money is in my SAVINGS account?", None),
    ("set a timer", "for ten minutes"),
    ("", None),
    ("naïve café, déjà vu; Ünïcödé", None),
    ("\u201cquoted\u201d — 3.14 & 50 % off!", None),
    ("emoji \U0001f600\U0001f44d\U0001f3fd mixed", None),
    ("שלום مرحبا", None),
    ("你好 world", None),
    ("tab\there\nnew line\u200bzero width\u0000nul", None),
    ("supercalifragilisticexpialidocious", None),
    ("a" * 120, None),
    ("the same sentence again and again " * 12, None),
    ("a long first part " * 8, "and a long second part " * 8),
)


def files() -> dict[str, bytes]:
    """The golden file by name."""
    return {"text.json": (json.dumps(_golden(), indent=1, ensure_ascii=False) + "\n").encode()}


def _golden() -> dict[str, object]:
    """Each input's ids and types, cut to SEQ_LEN, and the scores of the three best intents."""
    folder = ZOO[MODEL].folder
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    tokenizer = transformers.BertTokenizer(vocab=vocabulary, do_lower_case=True)
    model = transformers.MobileBertForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    cases = []
    for text, pair in INPUTS:
        encoded = tokenizer(text, pair, truncation="longest_first", max_length=SEQ_LEN, return_tensors="pt")
        with torch.inference_mode():
            scores = model(**encoded).logits.softmax(-1)[0]
        best = scores.topk(3)
        cases.append(
            {
                "text": text,
                "pair": pair,
                "input_ids": encoded["input_ids"][0].tolist(),
                "token_type_ids": encoded["token_type_ids"][0].tolist(),
                "labels": [model.config.id2label[index] for index in best.indices.tolist()],
                "scores": [round(score, 6) for score in best.values.tolist()],
            }
        )
    return {
        "made_by": f"transformers {transformers.__version__}",
        "model": f"edgeformer/zoo/{MODEL}",
        "seq_len": SEQ_LEN,
        "cases": cases,
    }
