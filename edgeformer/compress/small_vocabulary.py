"""Cuts a WordPiece tokenizer down to the pieces that matter, keeping its normalisation."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

from edgeformer.checkpoints.tokenizers import bert_template

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def shrink_tokenizer(tokenizer_json: str, texts: Sequence[str], size: int) -> tuple[str, list[int]]:
    """Keep special tokens, all single characters, the pieces of `texts`, and then the most frequent pieces.

    BERT's vocabulary lists its words by falling frequency, so that "most frequent" is "lowest id".

    Args:
        tokenizer_json: a tokenizers file with a WordPiece model.
        texts: sentences whose pieces are kept, most frequent first, while there is room.
        size: number of tokens to keep.

    Returns:
        The new tokenizers file, and for each new id the old one.
    """
    spec: dict[str, Any] = json.loads(tokenizer_json)
    vocab: dict[str, int] = spec["model"]["vocab"]
    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    counts = Counter(token for encoding in tokenizer.encode_batch(list(texts)) for token in encoding.tokens)
    by_id = sorted(vocab, key=vocab.__getitem__)
    wanted = dict.fromkeys(SPECIAL_TOKENS)
    wanted |= dict.fromkeys(token for token in by_id if len(token.removeprefix("##")) == 1)
    wanted |= dict.fromkeys(token for token, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    wanted |= dict.fromkeys(token for token in by_id if not token.startswith("[unused"))
    # [PAD] is 0, as everywhere in BERT's family; the others stay in their old order.
    kept = sorted(list(wanted)[:size], key=vocab.__getitem__)
    new_ids = {token: number for number, token in enumerate(kept)}
    spec["model"]["vocab"] = new_ids
    spec["truncation"] = spec["padding"] = None
    spec["added_tokens"] = [
        {**added, "id": new_ids[added["content"]]} for added in spec["added_tokens"] if added["content"] in new_ids
    ]
    spec["post_processor"] = None
    small = Tokenizer.from_str(json.dumps(spec))
    small.post_processor = bert_template(("[CLS]", new_ids["[CLS]"]), ("[SEP]", new_ids["[SEP]"]))
    return small.to_str(), [vocab[token] for token in kept]
