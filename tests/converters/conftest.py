"""One small program for all converters, and each conversion of it made once per session."""

from __future__ import annotations

import pytest
import torch
from small_text import SmallTextClassifier, text_programs

from edgeformer.programs import Program


@pytest.fixture(scope="session")
def programs() -> tuple[Program, ...]:
    """Two buckets of the small classifier, with seeded weights."""
    torch.manual_seed(0)
    return text_programs(SmallTextClassifier().eval(), (16, 32))
