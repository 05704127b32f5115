"""The documents show the stored results, all of them, and the README no more than ten rows."""

from __future__ import annotations

from benchmarks import tables


def between_markers(text: str) -> str:
    return text.split(tables.BEGIN)[1].split(tables.END)[0].strip()


def test_documents_show_the_stored_results() -> None:
    assert between_markers(tables.PAGE.read_text(encoding="utf-8")) == tables.render_page()
    assert between_markers(tables.README.read_text(encoding="utf-8")) == tables.render_highlights()


def test_readme_has_at_most_ten_rows_of_numbers_and_the_page_has_each_of_them() -> None:
    readme, page = (file.read_text(encoding="utf-8") for file in (tables.README, tables.PAGE))
    rows = between_markers(readme).splitlines()[2:]
    assert 0 < len(rows) <= 10
    for row in rows:
        ratio = row.split("|")[5].strip()
        assert ratio in page, row
