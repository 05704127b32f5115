"""The small bundles verify with the engines that they were recorded with, and not with others."""

from __future__ import annotations

import pytest

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.verify.verify import verify
from tests.golden.golden_files import FOLDER
from tests.golden.tiny_bundles import BUNDLES, FormulaEngine, SpeakingEngine, TinyEngine

ENGINES = {
    "tiny-speech.zip": SpeakingEngine,
    "tiny-spans.zip": FormulaEngine,
    "tiny-entities.zip": FormulaEngine,
    "tiny-fills.zip": FormulaEngine,
}


@pytest.mark.parametrize("name", BUNDLES)
def test_verifies(name: str) -> None:
    with Bundle.open(FOLDER / name) as bundle:
        engine = ENGINES.get(name, TinyEngine)(bundle.manifest)
        found = verify(bundle, engine)
        assert found.ok, found
        assert len(found.stages) == (4 if "speech" in name else 2 + len(bundle.manifest.programs))
