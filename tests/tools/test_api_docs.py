"""docs/api.md says what the docstrings say, of all that is public."""

from __future__ import annotations

import edgeformer
import edgeformer_runtime
from tools.api_docs import FILE, document


def test_the_page_is_current() -> None:
    assert FILE.read_text(encoding="utf-8") == document(), "make api-docs"


def test_all_that_is_public_is_on_it() -> None:
    page = document()
    of_other_names = {"EvaluationResult", "Progress", "__version__"}  # a union of classes, an alias, a text
    for name in {*edgeformer.__all__, *edgeformer_runtime.__all__} - of_other_names:
        assert f"### {name}\n" in page or f".{name}\n" in page, name


def test_sections_become_lists_and_code() -> None:
    page = document()
    start = page.index("### edgeformer.verify")
    section = page[start : page.index("### edgeformer.evaluate")]
    assert "\n- `threads`: how many threads the engine may use.\n" in section
    assert "\n- `BundleError`: " in section
    assert "```pycon\n>>> found = ef.verify(" in section
    assert "Args:" not in page and "Raises:" not in page and "Attributes:\n    " not in page
