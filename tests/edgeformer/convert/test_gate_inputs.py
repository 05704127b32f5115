"""What conversions are judged on: enough of it, deterministic, for every bucket."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from edgeformer.tasks.image import varied_images
from edgeformer.tasks.text import LONG_PARTS, PAIRS, gate_texts, sentences


def test_sentences_are_many_and_all_others() -> None:
    assert len(sentences()) == len(set(sentences())) > 100
    assert gate_texts((16, 64)) == gate_texts((16, 64))


@pytest.mark.parametrize(("lengths", "single"), [((16, 32, 64), 102), ((128,), 102), ((512,), 64), ((4096,), 48)])
def test_long_buckets_are_judged_on_fewer(lengths: tuple[int, ...], single: int) -> None:
    texts = gate_texts(lengths)
    assert len(texts) == single + PAIRS + len(LONG_PARTS) + len(lengths) - 1
    longest = max(len(each["text"].split()) for each in texts)
    assert lengths[-1] // 2 <= longest <= lengths[-1]


def test_drawn_images_are_all_others() -> None:
    files = list(varied_images(8))
    assert files == list(varied_images(8))
    pictures = [np.asarray(Image.open(io.BytesIO(file)), float) for file in files]
    assert {picture.shape for picture in pictures} == {(240, 240, 3)}
    assert all(np.abs(a - b).mean() > 5 for a in pictures for b in pictures if a is not b)
