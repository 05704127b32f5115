"""One small program for all converters, and each conversion of it made once per session."""

from __future__ import annotations

import pytest
import torch
from executorch_runtimes import both_runtimes
from small_text import SmallTextClassifier, text_programs

from edgeformer.models.family import Program
from edgeformer_runtime.engines.executorch import Runtime


@pytest.fixture(scope="session")
def programs() -> tuple[Program, ...]:
    """Two buckets of the small classifier, with seeded weights."""
    torch.manual_seed(0)
    return text_programs(SmallTextClassifier().eval(), (16, 32))


@pytest.fixture(scope="session", params=["python", "shim"])
def executorch(request: pytest.FixtureRequest) -> Runtime:
    """ExecuTorch's Python binding, and the shim."""
    return both_runtimes(request.getfixturevalue("executorch_shim"))[request.param]
