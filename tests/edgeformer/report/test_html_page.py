"""Pages: their markup, and in a browser, where there is one, that they fit a screen and a phone and follow the dark."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeformer.report.html_page import document, table

HEADERS = ("name", *(f"figure {number}, ms" for number in range(12)), "note")
WIDE = (
    "whisper-tiny.en-multilingual-" * 3,
    *("12345.67-23456.78 MB" for _ in range(12)),
    "answers: most of all on " + "x" * 300 + " and more words",
)
CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")


def test_columns_that_are_empty_everywhere_are_left_out() -> None:
    text = table(("a", "b", "c"), [("1", "", ""), ("2", "", "3")], numbers=(2,), best=(False, True))
    assert re.findall(r"<th[^>]*>(\w)</th>", text) == ["a", "c"]
    assert text.count('<tr class="best">') == 1 and '<td class="number" data-label="c">3</td>' in text


def test_what_comes_from_files_is_no_markup_nor_an_attributes_end() -> None:
    hostile = '"><script>x</script>\0<b>'
    text = document(hostile, table((hostile,), [(hostile * 5,)]))
    assert "<script" not in text and "<b>" not in text


def test_long_words_may_be_broken_and_short_ones_not() -> None:
    text = table(("a",), [("accuracy a_long.name/with-marks",)])
    assert "accuracy a_<wbr>long.<wbr>name/<wbr>with-<wbr>marks" in text
    assert table(("a",), [("y" * 30,)]).count("<wbr>") == 2


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs a headless Chromium: apt-get install chromium-headless-shell")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.mark.parametrize("width", [360, 1280])
def test_the_widest_table_fits(browser: Any, width: int, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(document("A" * 80, table(HEADERS, [WIDE, WIDE], numbers=range(1, 13))), encoding="utf-8")
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme="dark")
    page.goto(file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Nothing scrolls inside the page either.
    assert page.evaluate(
        "[...document.querySelectorAll('*')].every(each => getComputedStyle(each).overflowX !== 'auto')"
    )
    light, ink = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("backgroundColor", "color"))
    assert sum(map(int, re.findall(r"\d+", light)[:3])) < 150 < 400 < sum(map(int, re.findall(r"\d+", ink)[:3]))
    page.close()
