"""Tokenizer files that ask for time or memory without bound are refused, and their neighbours taken."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from edgeformer_runtime.errors import BundleError
from edgeformer_runtime.preprocess.tokenizer import Tokenizer
from tests.golden.golden_files import FOLDER

CASES = json.loads((FOLDER / "hostile_tokenizers.json").read_text(encoding="utf-8"))["cases"]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_a_tokenizer_has_bounds(case: dict[str, Any]) -> None:
    begun = time.process_time()
    if case["error"] is None:
        assert Tokenizer(case["file"], "tokenizer.json", 40).encode("a").ids[0] == 1
        return
    with pytest.raises(BundleError) as caught:
        Tokenizer(case["file"], "tokenizer.json", 8)
    assert "\n" not in str(caught.value)
    assert time.process_time() - begun < 1
